"""Draws that pause and go on are those that never paused, token for token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.generation.engines.cohort import Cohort
from e2h_pipeline.generation.engines.loading import load_engine
from e2h_pipeline.generation.engines.protocol import Sample, SampleRequest, SamplingOptions
from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.solutions import MARKED

QUESTIONS = ["3+5", "1-2*3+4+5-6*0", "6*6*6"]
HOT = SamplingOptions(temperature=1.0, max_new_tokens=40)
REQUESTS = [
    SampleRequest(q, MARKED, stream_key(0, "test", q), 1, first=n) for n in range(2) for q in QUESTIONS
]


@pytest.fixture(scope="module")
def engine(ladder_policy: Path) -> TransformersEngine:
    return load_engine("transformers", ladder_policy)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def bpe_engine(bpe_policy: Path) -> TransformersEngine:
    return load_engine("transformers", bpe_policy)  # type: ignore[return-value]


def resumed(engine: TransformersEngine, options: SamplingOptions, *, forget: bool = False) -> list[Sample]:
    """Samples drawn from pause to pause."""
    ended: list[Sample | None] = [None] * len(REQUESTS)
    drawn: list[tuple[int, ...]] = [()] * len(REQUESTS)
    scores = [0.0] * len(REQUESTS)
    while missing := [i for i, sample in enumerate(ended) if sample is None]:
        asked = [replace(REQUESTS[i], drawn=drawn[i]) for i in missing]
        for i, (sample,) in zip(missing, engine.sample(asked, options), strict=True):
            drawn[i] += sample.token_ids
            scores[i] += sample.logprob
            text = engine.tokenizer.decode(drawn[i], skip_special_tokens=True)
            if sample.finish_reason == "paused":
                assert sample.completion == text
                steps = text.count(options.pause)
                earlier = engine.tokenizer.decode(drawn[i][:-1], skip_special_tokens=True)
                assert steps > earlier.count(options.pause)  # the newest token completed it
                continue
            ended[i] = replace(sample, token_ids=drawn[i], logprob=scores[i])
        if forget:
            engine.forget()
    return [sample for sample in ended if sample]


def _same(found: list[Sample], plain: list[Sample]) -> None:
    for a, b in zip(found, plain, strict=True):
        assert replace(a, logprob=0) == replace(b, logprob=0)
        assert a.logprob == pytest.approx(b.logprob, abs=1e-3)


@pytest.mark.parametrize("name", ["engine", "bpe_engine"])
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_paused_draw_goes_on_as_if_it_had_not(
    name: str, request: pytest.FixtureRequest, data: st.DataObject
) -> None:
    """Whatever the text of the pause is, and with stop strings that reach over it."""
    engine: TransformersEngine = request.getfixturevalue(name)
    plain = [s for (s,) in engine.sample(REQUESTS, HOT)]
    text = data.draw(st.sampled_from([s.completion for s in plain if len(s.completion) > 4]))
    start = data.draw(st.integers(1, len(text) - 2))
    pause = text[start : start + data.draw(st.integers(1, 2))]
    other = data.draw(st.sampled_from([s.completion for s in plain if len(s.completion) > 4]))
    place = max(other.find(pause), 1)  # a stop string around a pause
    stop = data.draw(st.sampled_from([(), (other[place - 1 : place + 3],), (other[place : place + 4],)]))
    forget, temperature = data.draw(st.booleans()), data.draw(st.sampled_from([1.0, 0.7, 0.0]))
    options = replace(HOT, stop=tuple(filter(None, stop)), temperature=temperature)
    plain = [s for (s,) in engine.sample(REQUESTS, options)]
    _same(resumed(engine, replace(options, pause=pause), forget=forget), plain)


def test_what_was_drawn_is_not_computed_again(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that goes on feeds one token of its beginning, not all."""
    fed = []
    forward = type(engine.model).forward

    def counted(self: object, *args: object, **kwargs: object) -> object:
        fed.append(kwargs["input_ids"].shape)  # type: ignore[attr-defined]
        return forward(self, *args, **kwargs)  # type: ignore[arg-type]

    paused = replace(HOT, pause="\n\n")
    asked = [r for r in REQUESTS if engine.sample([r], paused)[0][0].finish_reason == "paused"]
    begun = [s for (s,) in engine.sample(asked, paused)]
    monkeypatch.setattr(type(engine.model), "forward", counted)
    engine.sample([replace(r, drawn=s.token_ids) for r, s in zip(asked, begun, strict=True)], paused)
    assert {length for _, length in fed} == {1}
    assert fed[0][0] == len(asked)


def test_requests_of_one_prompt_share_it(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Branches of a question have keys of their own, and one prompt in memory."""
    groups = []
    made = Cohort.__init__

    def counted(self: Cohort, *args: object) -> None:
        groups.append(len(args[1]))  # type: ignore[arg-type]
        made(self, *args)  # type: ignore[arg-type]

    branches = [SampleRequest("3+5", MARKED, key, 1, first=key) for key in range(12)]
    alone = [engine.sample([request], HOT)[0] for request in branches]
    monkeypatch.setattr(Cohort, "__init__", counted)
    together = engine.sample(branches, HOT)
    assert groups == [1]
    assert [[s.token_ids for s in own] for own in together] == [[s.token_ids for s in own] for own in alone]


def test_a_limit_counts_the_whole_sample(engine: TransformersEngine) -> None:
    options = replace(HOT, pause="1", max_new_tokens=7)
    for sample in resumed(engine, options):
        assert len(sample.token_ids) <= 7
        assert (len(sample.token_ids) == 7) >= (sample.finish_reason == "length")


def test_new_weights_do_not_meet_old_keys_and_values(engine: TransformersEngine) -> None:
    """`forget` leaves nothing, and so does a call without pauses."""
    paused = replace(HOT, pause="1")
    for clear in (engine.forget, lambda: engine.sample(REQUESTS[:1], HOT)):
        engine.sample(REQUESTS, paused)
        assert engine._kept.held > 0
        clear()
        assert engine._kept.held == 0
