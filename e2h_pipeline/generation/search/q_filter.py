"""Filtering by Q values: independent samples, dropped at a token that leads away from the goal.

A goal-conditioned evaluator has a Q after every token, the cosine of its state with the goal. A
sample whose Q falls below the threshold is given up while it is drawn, and has no vote (Nath et al.
2024, arXiv 2407.13887, whose threshold is 0). Samples are judged every few tokens, all tokens so
far, and once more when they have ended. The first five tokens do not count, as in the authors' code.

One rule of theirs needs all samples of a question: where all would be dropped, all vote. Here each
sample stands alone, so that a pool can grow; `early_stop_metrics` replays the vote with that rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from e2h_pipeline.generation.engines.protocol import Candidate, Sample, SampleRequest, SamplingOptions
from e2h_pipeline.generation.search.protocol import Cost, Found, TokenJudge, Tools

if TYPE_CHECKING:
    from e2h_pipeline.recipe.sections.search import QFilterSearch


class QFilter:
    """The word `q_filter`."""

    needs_scorer = False
    needs_token_judge = True

    def search(
        self,
        tools: Tools,
        requests: Sequence[SampleRequest],
        sampling: SamplingOptions,
        options: QFilterSearch,
    ) -> Found:
        """Samples; those that were dropped end there, `abandoned`."""
        assert tools.token_judge is not None
        watch = QWatch(tools.token_judge, options.threshold, options.every)
        drawn = tools.engine.sample(requests, sampling, watch)
        kept = [watch.finished(request, own) for request, own in zip(requests, drawn, strict=True)]
        costs = [
            [watch.cost(request, sample) for sample in own]
            for request, own in zip(requests, kept, strict=True)
        ]
        return Found(kept, costs)


@dataclass
class QWatch:
    """Gives up samples with a Q below the threshold (`generation.engines.protocol.Watch`).

    Attributes:
        looks, read: by sample, how often it was judged, and the tokens read for it.
    """

    judge: TokenJudge
    threshold: float
    every: int
    looks: Counter[tuple[int, int]] = field(default_factory=Counter)
    read: Counter[tuple[int, int]] = field(default_factory=Counter)

    def hopeless(self, candidates: Sequence[Candidate]) -> list[bool]:
        """See `Watch`."""
        return self._below(
            [(c.key, c.index) for c in candidates], [(c.question, c.completion, False) for c in candidates]
        )

    def finished(self, request: SampleRequest, samples: Sequence[Sample]) -> list[Sample]:
        """Samples that have ended, judged as wholes."""
        ended = [sample for sample in samples if sample.finish_reason != "abandoned"]
        below = self._below(
            [(request.key, sample.index) for sample in ended],
            [
                (request.question, request.prefix + sample.completion, sample.finish_reason == "stop")
                for sample in ended
            ],
        )
        dropped = {sample.index for sample, low in zip(ended, below, strict=True) if low}
        return [
            replace(sample, finish_reason="abandoned") if sample.index in dropped else sample
            for sample in samples
        ]

    def cost(self, request: SampleRequest, sample: Sample) -> Cost:
        """What a sample cost."""
        name = (request.key, sample.index)
        return Cost(len(sample.token_ids), self.looks[name], 0, self.read[name])

    def _below(
        self, names: Sequence[tuple[int, int]], solutions: Sequence[tuple[str, str, bool]]
    ) -> list[bool]:
        judged = self.judge.lowest_q(solutions)
        for name, (_, tokens) in zip(names, judged, strict=True):
            self.looks[name] += 1
            self.read[name] += tokens
        return [lowest < self.threshold for lowest, _ in judged]
