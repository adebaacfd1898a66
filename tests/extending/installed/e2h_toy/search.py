"""A search method: each sample is the best of several tries, by the evaluator's score of the worst
step."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from e2h_pipeline.generation.engines.protocol import Sample, SampleRequest, SamplingOptions
from e2h_pipeline.generation.noise import branch_key
from e2h_pipeline.generation.search.protocol import Cost, Found, Tools
from e2h_pipeline.recipe import Search


class BestStepSearch(Search):
    """Its fields in a recipe: `search: {method: best_step, tries: 3}`."""

    tries: int = Field(2, ge=1, description="Solutions drawn for each sample.")


class BestStep:
    """The method `best_step`. Every try has a stream of randomness of its own."""

    Options = BestStepSearch
    needs_scorer = True

    def search(
        self,
        tools: Tools,
        requests: Sequence[SampleRequest],
        sampling: SamplingOptions,
        options: BestStepSearch,
    ) -> Found:
        """The best of `tries` solutions for each sample."""
        tried = [
            tools.engine.sample([_branch(request, attempt) for request in requests], sampling)
            for attempt in range(options.tries)
        ]
        samples: list[list[Sample]] = []
        costs: list[list[Cost]] = []
        for number, request in enumerate(requests):
            own = [list(choices) for choices in zip(*(drawn[number] for drawn in tried), strict=True)]
            samples.append([_best(tools, request, choices) for choices in own])
            costs.append([Cost(sum(len(c.token_ids) for c in choices), len(choices)) for choices in own])
        return Found(samples, costs)


def _branch(request: SampleRequest, attempt: int) -> SampleRequest:
    from dataclasses import replace

    return replace(request, key=branch_key(request.key, "try", attempt))


def _best(tools: Tools, request: SampleRequest, choices: Sequence[Sample]) -> Sample:
    """The choice with the highest score of its worst step; ties go to the first."""
    assert tools.scorer is not None
    asked = [(request.question, choice.completion, choice.finish_reason == "stop") for choice in choices]
    worst = [min(scores, default=0.0) for scores in tools.scorer.step_probabilities(asked)]
    return choices[worst.index(max(worst))]
