"""What a goal-conditioned evaluator says of a solution after each of its tokens.

Two signals: the score of the head, as if the solution ended there, and Q, the cosine of the state
with the goal (Nath et al. 2024). Both read only the tokens so far, so a solution that is still
being written has the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.rewards.kinds.goal_conditioned import GOAL, GOAL_FILE, UNJUDGED, q_values
from e2h_pipeline.rewards.scoring import encode_for
from e2h_pipeline.training.batches import run_model

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.rewards.scoring import Solution
    from e2h_pipeline.solutions import EncodedSolution, TextFormat

SCORE, Q = "score", "q"


@dataclass(frozen=True)
class TokenValues:
    """Signals of some solutions, solution by solution.

    Attributes:
        lengths: (solutions,) tokens of each, in the evaluator's tokenizer.
        signals: name of a signal -> (all tokens,) its values; higher should mean right.
    """

    lengths: NDArray[np.int64]
    signals: dict[str, NDArray[np.float32]]


WithGoal = tuple["PreTrainedModel", "PreTrainedTokenizerBase", "Tensor"]
"""A goal-conditioned evaluator and its goal."""


def load_with_goal(evaluator: Path) -> WithGoal:
    """A goal-conditioned evaluator, loaded."""
    from safetensors.torch import load_file

    from e2h_pipeline.models.load import load_evaluator

    model, tokenizer = load_evaluator(evaluator)
    return model, tokenizer, load_file(evaluator / GOAL_FILE)[GOAL].to(model.device)


def token_values(
    evaluator: Path,
    solutions: Sequence[Solution],
    text: TextFormat,
    batch_tokens: int = 65536,
    loaded: WithGoal | None = None,
) -> TokenValues:
    """Both signals after each token of each solution; equal solutions are read once.

    Args:
        evaluator: folder of a goal-conditioned evaluator, with its goal.
        solutions: (question, completion, finished).
        text: how the domain writes solutions.
        batch_tokens: upper bound on rows x length of a forward pass.
        loaded: the evaluator, where it is in memory.
    """
    import torch

    model, tokenizer, goal = loaded or load_with_goal(evaluator)
    distinct = list(dict.fromkeys(solutions))
    encoded = [encode_for(model, tokenizer, solution, text) for solution in distinct]
    found: dict[Solution, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for batch in _batches(encoded, batch_tokens):
        ids = [encoded[i].input_ids for i in batch]
        longest = max(map(len, ids))
        padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids], device=model.device)
        with torch.inference_mode():  # causal attention never looks right: padding needs no mask
            output = run_model(model, {"input_ids": padded}, output_hidden_states=True)
            scores = output.logits.squeeze(-1).float().cpu().numpy()
            values = q_values(output.hidden_states[-1], goal).cpu().numpy()
        for row, i in enumerate(batch):
            ends = encoded[i].segment_ends  # it was trained to judge a whole solution at the last
            own = slice(encoded[i].prompt_tokens, ends[-1] + 1 if ends else len(encoded[i].input_ids))
            found[distinct[i]] = scores[row, own], values[row, own]
    told = [found[solution] for solution in solutions]
    return TokenValues(
        np.array([len(scores) for scores, _ in told], np.int64),
        {
            name: np.concatenate([signals[place] for signals in told] or [np.empty(0, np.float32)])
            for place, name in enumerate((SCORE, Q))
        },
    )


def _batches(encoded: Sequence[EncodedSolution], batch_tokens: int) -> list[list[int]]:
    """Indices, longest first, as many in a batch as its longest allows."""
    batches: list[list[int]] = []
    longest = 0
    for i in sorted(range(len(encoded)), key=lambda i: -len(encoded[i].input_ids)):
        if not batches or (len(batches[-1]) + 1) * longest > batch_tokens:
            batches.append([])
            longest = max(1, len(encoded[i].input_ids))
        batches[-1].append(i)
    return batches


@dataclass(frozen=True)
class GoalJudge:
    """The token judge of a search (`generation.search.protocol.TokenJudge`). It is sent to other
    processes as a path.

    Attributes:
        evaluator: folder of a goal-conditioned evaluator.
        text: how the domain writes solutions.
    """

    evaluator: Path
    text: TextFormat
    batch_tokens: int = 65536

    def lowest_q(self, solutions: Sequence[Solution]) -> list[tuple[float, int]]:
        """See `TokenJudge`."""
        found = token_values(self.evaluator, solutions, self.text, self.batch_tokens, _loaded(self.evaluator))
        parts = np.split(found.signals[Q], np.cumsum(found.lengths)[:-1]) if solutions else []
        return [(float(own[UNJUDGED:].min(initial=np.inf)), len(own)) for own in parts]

    def close(self) -> None:
        """See `TokenJudge`."""
        _loaded.cache_clear()


@lru_cache(maxsize=1)
def _loaded(evaluator: Path) -> WithGoal:
    return load_with_goal(evaluator)
