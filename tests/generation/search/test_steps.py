"""Searches over steps, with the shipped ladder model: exact, fair to plain sampling, and counted.

With one next step for each beginning, or with a scorer that says nothing, every search gives the
samples of independent draws, token for token. So its accuracy is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from e2h_pipeline.generation.engines.loading import load_engine
from e2h_pipeline.generation.engines.protocol import Sample, SampleRequest, SamplingOptions, Watch
from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.generation.search.independent import Independent
from e2h_pipeline.generation.search.protocol import Found, Tools
from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.problems.ladder.checker import step_labels
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.records import ProblemSplit
from e2h_pipeline.recipe import BeamSearch, DvtsSearch, ParticleSearch, Search
from e2h_pipeline.registry import SEARCH_METHODS
from e2h_pipeline.rewards.growing import GrowingScorer, Reader, reader_of
from e2h_pipeline.rewards.scoring import encode_for

SHIPPED = Path(__file__).parents[3] / "e2h_pipeline/models/shipped/ladder-base"
HOT = SamplingOptions(temperature=1.0, max_new_tokens=60)
METHODS: Mapping[str, Search] = {
    "beam": BeamSearch(beams=2, expansions=3),
    "lookahead": BeamSearch(beams=2, expansions=2, lookahead=1, aggregation="last"),
    "dvts": DvtsSearch(expansions=3, aggregation="mean"),
    "particle": ParticleSearch(particles=4, aggregation="product"),
}


@dataclass
class Recording:
    """An engine that notes what it drew: (tokens before, sample)."""

    engine: TransformersEngine
    drawn: list[tuple[tuple[int, ...], Sample]] = field(default_factory=list)

    def sample(
        self, requests: Sequence[SampleRequest], options: SamplingOptions, watch: Watch | None = None
    ) -> list[list[Sample]]:
        found = self.engine.sample(requests, options, watch)
        self.drawn += [(r.drawn, s) for r, own in zip(requests, found, strict=True) for s in own]
        return found


@dataclass(frozen=True)
class Constant:
    """A scorer that says nothing."""

    def step_probabilities(self, solutions: Sequence[tuple[str, str, bool]]) -> list[NDArray[np.float64]]:
        return [np.ones(len(LADDER.text.parse(text).spans)) for _, text, _ in solutions]

    def close(self) -> None:
        """Nothing was loaded."""


@dataclass
class Oracle:
    """The ladder's checker; of a text that has ended, the last segment is right with its answer."""

    golds: Mapping[str, str]
    rounds: list[dict[tuple[str, str, bool], bool]] = field(default_factory=list)

    def right(self, question: str, text: str, ended: bool) -> bool:
        labels = step_labels(question, text)
        whole = not ended or LADDER.answer_of(text, True) == self.golds[question]
        return bool(labels) and min(labels) == 1 and whole

    def step_probabilities(self, solutions: Sequence[tuple[str, str, bool]]) -> list[NDArray[np.float64]]:
        self.rounds.append({solution: self.right(*solution) for solution in solutions})
        return [np.array([float(self.right(*solution))]) for solution in solutions]

    def close(self) -> None:
        """Nothing was loaded."""


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return load_engine("transformers", SHIPPED)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def golds(ladder_split: ProblemSplit) -> dict[str, str]:
    """Questions of all levels, with their answers."""
    return {p.question: p.answer for p in ladder_split.benchmark[::3]}


@pytest.fixture(scope="module")
def requests(golds: Mapping[str, str]) -> list[SampleRequest]:
    return [SampleRequest(q, LADDER.text, stream_key(0, "test", q), 4) for q in golds]


@pytest.fixture(scope="module")
def plain(engine: TransformersEngine, requests: list[SampleRequest]) -> Found:
    return Independent().search(Tools(engine), requests, HOT)


def _search(
    options: Search, tools: Tools, requests: Sequence[SampleRequest], sampling: SamplingOptions = HOT
) -> Found:
    found: Found = SEARCH_METHODS.load(options.method)().search(tools, requests, sampling, options)
    return found


def _same(one: Found, other: Found) -> None:
    for a, b in zip(_samples(one), _samples(other), strict=True):
        assert replace(a, logprob=0.0) == replace(b, logprob=0.0)
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)


def _samples(found: Found) -> list[Sample]:
    return [sample for own in found.samples for sample in own]


@pytest.mark.parametrize("name", METHODS)
def test_a_scorer_that_says_nothing_leaves_plain_samples(
    name: str, engine: TransformersEngine, requests: list[SampleRequest], plain: Found
) -> None:
    found = _search(METHODS[name], Tools(engine, Constant()), requests)
    _same(found, plain)
    if name != "particle":
        assert found.costs is not None
        assert sum(cost.dead_tokens for own in found.costs for cost in own) > 0


@pytest.mark.parametrize(
    "options",
    [
        BeamSearch(beams=1, expansions=1),
        BeamSearch(beams=4, expansions=1, lookahead=2),
        DvtsSearch(expansions=1),
        ParticleSearch(particles=1),
    ],
    ids=lambda options: options.method,
)
def test_one_next_step_is_plain_sampling_whatever_the_scores(
    options: Search,
    engine: TransformersEngine,
    requests: list[SampleRequest],
    plain: Found,
    ladder_evaluator: Path,
) -> None:
    found = _search(options, Tools(engine, GrowingScorer(ladder_evaluator, LADDER.text)), requests)
    _same(found, plain)
    for sample, cost in zip(_samples(found), [c for own in found.costs or () for c in own], strict=True):
        assert cost.read_tokens > 0 and cost.dead_tokens == cost.drawn_tokens - len(sample.token_ids)
    if not getattr(options, "lookahead", 0):
        assert all(cost.dead_tokens == 0 for own in found.costs or () for cost in own)


@pytest.mark.parametrize("name", METHODS)
def test_temperature_0_is_greedy(
    name: str, engine: TransformersEngine, requests: list[SampleRequest], ladder_evaluator: Path
) -> None:
    cold = replace(HOT, temperature=0.0)
    found = _search(
        METHODS[name], Tools(engine, GrowingScorer(ladder_evaluator, LADDER.text)), requests, cold
    )
    _same(found, Found(engine.sample(requests, cold)))


@pytest.mark.parametrize("name", ["beam", "lookahead", "dvts"])
def test_an_oracle_loses_a_right_beginning_only_where_no_next_step_is_right(
    name: str, engine: TransformersEngine, requests: list[SampleRequest], golds: dict[str, str], plain: Found
) -> None:
    options, together = METHODS[name], METHODS[name].together
    lost = 0
    for request in requests[:8]:
        one, oracle = replace(request, count=together), Oracle(golds)
        found = _search(options, Tools(engine, oracle), [one])
        ended = [
            oracle.right(request.question, s.completion, s.finish_reason == "stop") for s in found.samples[0]
        ]
        steps_went_wrong = any(not any(scored.values()) for scored in oracle.rounds)
        assert any(ended) or steps_went_wrong
        lost += not any(ended)
    assert lost < 8
    right = [
        LADDER.answer_of(s.completion, True) == g
        for own, g in zip(plain.samples, golds.values(), strict=True)
        for s in own
    ]
    whole = _search(options, Tools(engine, Oracle(golds)), requests)
    better = [
        LADDER.answer_of(s.completion, True) == g
        for own, g in zip(whole.samples, golds.values(), strict=True)
        for s in own
    ]
    assert sum(better) > sum(right)


@pytest.mark.parametrize("name", METHODS)
def test_results_do_not_depend_on_the_batch_or_the_order(
    name: str, engine: TransformersEngine, requests: list[SampleRequest], ladder_evaluator: Path
) -> None:
    tools = Tools(engine, GrowingScorer(ladder_evaluator, LADDER.text))
    together = _search(METHODS[name], tools, requests[:3])
    backward = _search(METHODS[name], tools, requests[2::-1])
    narrow = _search(METHODS[name], tools, requests[:3], replace(HOT, batch_tokens=400))
    later = _search(METHODS[name], tools, [replace(requests[0], first=4)])
    wide = _search(METHODS[name], tools, [replace(requests[0], count=8)])
    _same(together, Found(backward.samples[::-1]))
    _same(together, narrow)
    assert (together.costs, narrow.costs) == (narrow.costs, together.costs)
    _same(wide, Found([[*together.samples[0], *later.samples[0]]]))


@pytest.mark.parametrize("name", METHODS)
def test_costs_are_what_was_drawn_and_read(
    name: str, engine: TransformersEngine, requests: list[SampleRequest], ladder_evaluator: Path
) -> None:
    """Every step is read once: the evaluator's own count agrees, less the prompts."""
    scorer, recording = GrowingScorer(ladder_evaluator, LADDER.text), Recording(engine)
    scorer.close()
    found = _search(METHODS[name], Tools(recording, scorer), requests)
    costs = [cost for own in found.costs or () for cost in own]
    assert sum(c.drawn_tokens for c in costs) == sum(len(s.token_ids) for _, s in recording.drawn)
    kept = {
        (r.question, s.token_ids[: i + 1])
        for r, own in zip(requests, found.samples, strict=True)
        for s in own
        for i in range(len(s.token_ids))
    }
    living = sum(c.drawn_tokens - c.dead_tokens for c in costs)
    assert living >= len(kept)  # equal tokens of two branches were drawn twice
    reader: Reader = reader_of(scorer)
    prompts = sum(
        encode_for(*load_evaluator(ladder_evaluator), (r.question, "", False), LADDER.text).prompt_tokens
        for r in requests
    )
    # Equal texts are asked about several times, and read once.
    assert 0 < reader.tokens_read - prompts <= sum(c.read_tokens for c in costs)
    assert found.seconds.keys() == {"drawing", "scoring"}


def test_samples_that_are_no_whole_searches_are_refused(engine: TransformersEngine) -> None:
    request = SampleRequest("3+5", LADDER.text, 1, 3)
    with pytest.raises(ValueError, match="3 samples are asked for, and a search finds 2 together"):
        _search(METHODS["beam"], Tools(engine, Constant()), [request])


def test_a_beam_goes_on_from_a_prefix(engine: TransformersEngine) -> None:
    request = SampleRequest("3+5", LADDER.text, 1, 2, prefix="3+5=8\n\n")
    found = _search(METHODS["beam"], Tools(engine, Constant()), [request])
    _same(found, Found(engine.sample([request], HOT)))


def _options(**changed: Any) -> Search:
    return BeamSearch(**changed)


def test_equal_scores_do_not_make_beams_alike(
    engine: TransformersEngine, requests: list[SampleRequest]
) -> None:
    """Ties go to the first next step of each beam, so beams of one search stay different."""
    found = _search(_options(beams=4, expansions=4), Tools(engine, Constant()), requests)
    assert any(len({s.completion for s in own}) == 4 for own in found.samples)
