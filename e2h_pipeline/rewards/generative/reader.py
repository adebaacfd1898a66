"""A language model that judges: verdicts of all steps in one pass, or behind critiques that it writes.

The log odds of the two verdicts are linear in the hidden state: the difference of two rows of the
language-model head. So without critiques it is scored like an evaluator with a head of one row, with
prompts shared among solutions.

A critique of a step follows the step, with all earlier ones marked right. Draws depend on the recipe's seed
and the text alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.rewards.evaluators import BATCH_TOKENS, Evaluator
from e2h_pipeline.rewards.generative.prompt import Asked, Prompt
from e2h_pipeline.solutions import EncodedSolution

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.rewards.scoring import Solution
    from e2h_pipeline.solutions import TextFormat

_STREAM = "critique"


@dataclass(frozen=True)
class Critiques:
    """How critiques are written: how many of a step, their length, and their randomness."""

    count: int
    tokens: int
    temperature: float
    seed: int


class GenerativeEvaluator(Evaluator):
    """A language model with its prompt."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompt: Prompt,
        heading: str,
        critiques: Critiques,
    ) -> None:
        from e2h_pipeline.rewards.verdicts import verdict_scorer

        self.model, self.tokenizer, self.prompt = model, tokenizer, prompt
        self.heading, self.critiques = heading, critiques
        asked = self._asked(None)
        self.scorer = verdict_scorer(model, asked.right, asked.wrong)
        self._written: dict[tuple[str, str], int] = {}

    @property
    def models(self) -> tuple[PreTrainedModel, ...]:
        """See `Evaluator.models`."""
        return (self.model,)

    def logits(
        self, solutions: Sequence[Solution], text: TextFormat, batch_tokens: int = BATCH_TOKENS
    ) -> list[list[float]]:
        """See `Evaluator.logits`."""
        from e2h_pipeline.rewards.scoring import score_all

        asked = self._asked(text)
        distinct = list(dict.fromkeys((question, completion) for question, completion, _ in solutions))
        if self.critiques.count:
            scored = self._behind_critiques(asked, distinct, batch_tokens)
        else:
            encoded = [asked.encode(question, completion) for question, completion in distinct]
            scored = score_all(self.scorer, encoded, batch_tokens)
        found = dict(zip(distinct, scored, strict=True))
        return [found[question, completion] for question, completion, _ in solutions]

    def written(self, solutions: Sequence[Solution]) -> list[int] | None:
        """See `Evaluator.written`."""
        if not self.critiques.count:
            return None
        return [self._written[question, completion] for question, completion, _ in solutions]

    def _asked(self, text: TextFormat | None) -> Asked:
        from e2h_pipeline.solutions import MARKED

        return Asked.of(self.prompt, self.tokenizer, (text or MARKED).headed(self.heading))

    def _behind_critiques(
        self, asked: Asked, solutions: Sequence[tuple[str, str]], batch_tokens: int
    ) -> list[list[float]]:
        """Log odds of the mean probability of "right" over the critiques of each step."""
        from e2h_pipeline.rewards.scoring import score_all

        steps = [(place, *step) for place, one in enumerate(solutions) for step in _steps(asked, *one)]
        contexts = [ids for _, ids, _ in steps]
        drawn = self._drawn(asked, contexts, batch_tokens)
        closing = asked.ids(self.prompt.critique_end + self.prompt.verdict)
        rows = [
            EncodedSolution(ids, opened, (len(ids) - 1,))
            for (_, context, opened), critiques in zip(steps, drawn, strict=True)
            for critique, _ in critiques
            for ids in [(*context, *asked.ids(critique), *closing)]
        ]
        scores = iter(score_all(self.scorer, rows, batch_tokens))
        found: list[list[float]] = [[] for _ in solutions]
        self._written = dict.fromkeys(solutions, 0)
        for (place, _, _), critiques in zip(steps, drawn, strict=True):
            found[place].append(_mean_odds([next(scores)[0] for _ in critiques]))
            self._written[solutions[place]] += sum(tokens for _, tokens in critiques)
        return found

    def _drawn(
        self, asked: Asked, contexts: Sequence[Sequence[int]], batch_tokens: int
    ) -> list[list[tuple[str, int]]]:
        """The critiques behind each context, each with the number of its tokens."""
        from e2h_pipeline.generation.engines.protocol import SampleRequest, SamplingOptions
        from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
        from e2h_pipeline.generation.noise import stream_key

        options = self.critiques
        requests = [
            SampleRequest(
                "",
                asked.text,
                stream_key(options.seed, _STREAM, ",".join(map(str, context))),
                options.count,
                tokens=tuple(context),
            )
            for context in contexts
        ]
        sampling = SamplingOptions(
            options.temperature,
            options.tokens,
            batch_tokens=batch_tokens,
            stop=(self.prompt.critique_end,),
        )
        drawn = TransformersEngine(self.model, self.tokenizer).sample(requests, sampling)
        return [[(one.completion, len(one.token_ids)) for one in samples] for samples in drawn]


def _steps(asked: Asked, question: str, completion: str) -> Iterator[tuple[tuple[int, ...], int]]:
    """For each step of a solution the tokens up to its critique, and how many are the opening's."""
    ids = asked.opening(question)
    opened, prompt = len(ids), asked.prompt
    critique = asked.ids(prompt.critique)
    marked = [*asked.ids(prompt.verdict), asked.right, *asked.ids(prompt.after)]
    for piece in asked.pieces(completion):
        yield (*ids, *piece, *critique), opened
        ids = [*ids, *piece, *marked]


def _mean_odds(logits: Sequence[float]) -> float:
    """Log odds of the mean of probabilities, from their log odds; finite."""
    if len(logits) == 1:
        return logits[0]
    inside = [max(-30.0, min(30.0, logit)) for logit in logits]
    right = sum(1 / (1 + math.exp(-logit)) for logit in inside)
    wrong = sum(1 / (1 + math.exp(logit)) for logit in inside)
    return math.log(right / wrong)


def open_generative(folder: Path, told: Mapping[str, Any]) -> Evaluator:
    """The evaluator that `trained.train_generative` wrote."""
    from e2h_pipeline.models.load import load_policy

    critiques = Critiques(told["critiques"], told["critique_tokens"], told["temperature"], told["seed"])
    return GenerativeEvaluator(*load_policy(folder), Prompt(**told["prompt"]), told["heading"], critiques)
