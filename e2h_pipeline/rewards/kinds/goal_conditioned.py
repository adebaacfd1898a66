"""Goal-conditioned representations of a reward model: Nath et al. 2024 (arXiv 2407.13887).

    L = L_R + lambda L_C,   lambda = 0.5,   L_R the pairwise loss on the last token
    L_C = -log mean sigmoid(cos(h_i, h_j)) - log(1 - mean sigmoid(cos(h_m, h_n)))

h are last-layer states: i before j in the preferred completion (a source and a later goal), m in
the preferred and n in the dispreferred one. The means run over the batch, inside the logarithm, so
L_C does not add up over micro-batches: it is computed per micro-batch, and weighted by the
micro-batch's share of the update. Without a temperature it lies in [0.627, 2.627]: a curve that
stands at 0.63 has converged.

The goal is the mean last state of right training solutions, and is saved beside the model with its
provenance. Q of a
token is the cosine of its state with the goal; a solution may be dropped at its first token with Q
below a threshold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.rewards.kinds.base import EvaluatorKind
from e2h_pipeline.rewards.kinds.pairwise import pair_examples, pairwise_loss
from e2h_pipeline.training.batches import collate, documents, run_model
from e2h_pipeline.training.next_token import IGNORED

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.recipe import GoalConditionedReward
    from e2h_pipeline.rewards.examples import Row, Rows
    from e2h_pipeline.solutions import TextFormat
    from e2h_pipeline.training.batches import Example
    from e2h_pipeline.training.trainer import Objective, TrainingStep

GOAL_FILE, GOAL = "goal.safetensors", "goal"  # beside the model; name of the one tensor in it
GOAL_TOLD = "goal.json"  # the goal's provenance
COMPLETION = "completion"  # column of examples: 1 on tokens of the completion, 0 on those of the prompt
UNJUDGED = 5  # number of first tokens that the authors' filter skips
_GOAL_ROWS = 32  # solutions per forward pass that measures the goal


class GoalConditioned(EvaluatorKind):
    """A scorer of whole solutions whose states point to where right solutions end."""

    reads = ("outcomes",)
    solution_aggregation = "last"
    unit = "pairs"
    judges_tokens = True  # after every token it has a score and a Q: `rewards.token_values`

    def examples(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Mapping[str, Rows],
        options: GoalConditionedReward,
        seed: int,
        text: TextFormat,
    ) -> dict[str, list[Example]]:
        """See `EvaluatorKind.examples`: pairs, with completions marked."""
        from e2h_pipeline.rewards.examples import encode_row, with_labels

        def example(row: Row) -> Example:
            encoded = encode_row(tokenizer, row, text)
            prompt, length = encoded.prompt_tokens, len(encoded.input_ids)
            labels = {end: float(row["outcome"]) for end in encoded.segment_ends[-1:]}
            return {**with_labels(encoded, labels), COMPLETION: [*[0] * prompt, *[1] * (length - prompt)]}

        return {"pairs": pair_examples(rows["outcomes"], seed, example)}

    def objective(self, options: GoalConditionedReward, seed: int) -> Objective:
        """See `EvaluatorKind.objective`."""

        def loss(model: PreTrainedModel, batch: Mapping[str, Any], step: TrainingStep) -> Tensor:
            output = run_model(model, batch, output_hidden_states=True)
            ranking = pairwise_loss(output.logits, batch["labels"], step.total)
            draws = _Draws(seed, step.number, options.pairs_per_solution)
            states = drawn_states(output.hidden_states[-1], batch, draws)
            if not len(states[0]):  # blanks, which fill up the last batch of several processes
                return ranking
            share = (batch["labels"] != IGNORED).sum() / step.total
            return ranking + options.contrastive_weight * share * contrastive_loss(*states)

        return loss

    def finish(self, folder: Path, examples: Sequence[Example]) -> None:
        """See `EvaluatorKind.finish`: the goal, float32 (width,), in `goal.safetensors`, and what
        it was made of in `goal.json`."""
        from safetensors.torch import save_file

        from e2h_pipeline.models.load import load_evaluator

        model, tokenizer = load_evaluator(folder)
        right = {tuple(documents(pair)[0]["input_ids"]): documents(pair)[0] for pair in examples}
        states = last_states(model, list(right.values()), tokenizer.pad_token_id)
        goal = goal_state(states)
        save_file({GOAL: goal}, folder / GOAL_FILE)
        told = {
            "made_of": "last states of right training solutions of easy problems",
            "solutions": len(right),
            "solutions_hash": digest_json(sorted(map(list, right))),
            "norm": float(goal.norm()),
        }
        (folder / GOAL_TOLD).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Draws:
    """Counter-based randomness: the draws of a pair depend on seed, update and the pair, not on its
    batch, so a resumed run draws the same."""

    seed: int
    update: int
    count: int

    def generator(self, ids: Sequence[int]) -> Generator:
        """The generator of a pair, by the token ids of its right solution and the wrong one."""
        import torch

        text = f"goal/{self.seed}/{self.update}/{','.join(map(str, ids))}"
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]))


def drawn_states(
    states: Tensor, batch: Mapping[str, Any], draws: _Draws
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States at the positions i, j, m and n of the formula, each (n, width), drawn in every pair of
    a batch.

    Completions are read up to their label. A pair with a right completion of fewer than two tokens
    is left out: it has no source before a goal.

    Args:
        states: (batch, length, width) last-layer states.
        batch: with `labels` (right, wrong, right, wrong in reading order), `completion` and
            `input_ids`.
    """
    import torch

    spans = _spans(batch)
    parts: tuple[list[Tensor], ...] = ([], [], [], [])
    for right, wrong in zip(spans[0::2], spans[1::2], strict=True):
        if right.stop - right.start < 2:
            continue
        generator = draws.generator([*_ids(batch, right), IGNORED, *_ids(batch, wrong)])
        source, goal = source_and_goal(right.start, right.stop, generator, draws.count)
        preferred, dispreferred = (
            torch.randint(span.start, span.stop, (draws.count,), generator=generator)
            for span in (right, wrong)
        )
        drawn = ((right, source), (right, goal), (right, preferred), (wrong, dispreferred))
        for part, (span, positions) in zip(parts, drawn, strict=True):
            part.append(states[span.row, positions.to(states.device)])
    empty = states.new_zeros(0, states.shape[-1])
    i, j, m, n = (torch.cat(part) if part else empty for part in parts)
    return i, j, m, n


@dataclass(frozen=True)
class _Span:
    """Where a completion stands in a batch: its row and half-open range up to its label."""

    row: int
    start: int
    stop: int


def _spans(batch: Mapping[str, Any]) -> list[_Span]:
    """Judged completions of a batch, padded or packed, in reading order."""
    found = []
    for row, end in (batch["labels"] != IGNORED).nonzero().tolist():
        prompt = (batch[COMPLETION][row, : end + 1] == 0).nonzero()
        found.append(_Span(row, int(prompt[-1]) + 1, end + 1))
    return found


def _ids(batch: Mapping[str, Any], span: _Span) -> list[int]:
    found: list[int] = batch["input_ids"][span.row, span.start : span.stop].tolist()
    return found


def contrastive_loss(source: Tensor, goal: Tensor, preferred: Tensor, dispreferred: Tensor) -> Tensor:
    """L_C of a batch of states, each (n, width): states i, j, m and n of the formula above."""
    from torch.nn.functional import cosine_similarity, logsigmoid

    near = cosine_similarity(source.float(), goal.float(), dim=-1)
    far = cosine_similarity(preferred.float(), dispreferred.float(), dim=-1)
    return (
        -logsigmoid(near).exp().mean().log() - (-far).sigmoid().mean().log()
    )  # 1 - sigmoid(x) = sigmoid(-x)


def source_and_goal(start: int, stop: int, generator: Generator, draws: int) -> tuple[Tensor, Tensor]:
    """Positions i < j, uniform over all such pairs in the half-open range [start, stop): two
    tensors (draws,).

    Raises:
        ValueError: a completion of fewer than two tokens has no pair.
    """
    import torch

    length = stop - start
    if length < 2:
        raise ValueError(f"a completion of {length} tokens has no source before a goal")
    first = torch.randint(length, (draws,), generator=generator)
    second = (first + torch.randint(1, length, (draws,), generator=generator)) % length
    return start + torch.minimum(first, second), start + torch.maximum(first, second)


def last_states(model: PreTrainedModel, solutions: Sequence[Example], pad_id: int) -> Tensor:
    """The state at the label of each solution, (solutions, width), on the CPU."""
    import torch

    found = []
    for start in range(0, len(solutions), _GOAL_ROWS):
        batch = collate(pad_id, packing=False)(solutions[start : start + _GOAL_ROWS])
        batch = {name: column.to(model.device) for name, column in batch.items()}
        with torch.inference_mode():
            states = run_model(model, batch, output_hidden_states=True).hidden_states[-1]
        found.append(states[batch["labels"] != IGNORED].float().cpu())
    return torch.cat(found)


def goal_state(last_states: Tensor) -> Tensor:
    """The goal (width,): mean last-token state of right training solutions (solutions, width)."""
    return last_states.float().mean(0)


def q_values(states: Tensor, goal: Tensor) -> Tensor:
    """Q of each token in [-1, 1]: cosine of states (..., length, width) with the goal (width,)."""
    from torch.nn.functional import cosine_similarity

    return cosine_similarity(states.float(), goal.float(), dim=-1)


@dataclass(frozen=True)
class Filtered:
    """The result of a filter.

    Attributes:
        kept: indices of solutions that pass.
        cut: of each solution the tokens up to where it was dropped; all of them where it was not.
        saved: tokens that would not have been sampled.
    """

    kept: tuple[int, ...]
    cut: tuple[int, ...]
    saved: int


def q_filter(values: Sequence[Sequence[float]], threshold: float = 0.0, unjudged: int = UNJUDGED) -> Filtered:
    """Drop solutions of one problem at their first token with Q below `threshold`.

    If all would be dropped, all are kept and no tokens are saved (the paper's rule).

    Args:
        values: Q of the completion's tokens, one sequence per solution.
        unjudged: first tokens that cannot drop a solution.
    """
    cut = tuple(
        next((t + 1 for t, q in enumerate(row) if t >= unjudged and q < threshold), len(row))
        for row in values
    )
    failed = {i for i, row in enumerate(values) if any(q < threshold for q in row[unjudged:])}
    if len(failed) == len(values):
        return Filtered(tuple(range(len(values))), tuple(len(row) for row in values), 0)
    saved = sum(len(row) - stop for row, stop in zip(values, cut, strict=True))
    return Filtered(tuple(i for i in range(len(values)) if i not in failed), cut, saved)
