from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.generation.engines.loading import load_engine
from e2h_pipeline.generation.engines.protocol import Sample, SampleRequest, SamplingOptions
from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine, choose
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.solutions import MARKED, encode

QUESTIONS = ["3+5", "1-2*3+4+5-6*0", "6*6*6", "4*4", "2+2-2+2", "1"]
HOT = SamplingOptions(temperature=1.0, max_new_tokens=24)
TINY_BATCH = 40  # prompt + 24 new tokens of the longest question fill it: one row a batch


@pytest.fixture(scope="module")
def engine(ladder_policy: Path) -> TransformersEngine:
    return load_engine("transformers", ladder_policy)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def bpe_engine(bpe_policy: Path) -> TransformersEngine:
    return load_engine("transformers", bpe_policy)  # type: ignore[return-value]


def _requests(questions: list[str], count: int = 4) -> list[SampleRequest]:
    return [SampleRequest(q, MARKED, stream_key(0, "test", q), count) for q in questions]


def _ids(drawn: list[list[Sample]]) -> list[list[tuple[int, ...]]]:
    return [[s.token_ids for s in samples] for samples in drawn]


def test_an_unknown_engine_is_named(ladder_policy: Path) -> None:
    with pytest.raises(ValueError, match=r"engine: no .vroom.; there are transformers, vllm"):
        load_engine("vroom", ladder_policy)


def test_samples_do_not_depend_on_the_batch(engine: TransformersEngine) -> None:
    together = engine.sample(_requests(QUESTIONS), HOT)
    alone = [engine.sample([request], HOT)[0] for request in _requests(QUESTIONS)]
    one_row = engine.sample(
        _requests(QUESTIONS), SamplingOptions(1.0, HOT.max_new_tokens, batch_tokens=TINY_BATCH)
    )
    assert _ids(together) == _ids(alone) == _ids(one_row)
    assert [s.completion for d in together for s in d] == [s.completion for d in alone for s in d]
    for a, b in zip([s for d in together for s in d], [s for d in one_row for s in d], strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
    assert len({ids for d in _ids(together) for ids in d}) > 20  # they are not all the same


def test_samples_do_not_depend_on_the_order(engine: TransformersEngine) -> None:
    requests = _requests(QUESTIONS)
    forward, backward = engine.sample(requests, HOT), engine.sample(requests[::-1], HOT)
    assert _ids(forward) == _ids(backward)[::-1]


def test_more_samples_keep_the_first_ones(engine: TransformersEngine) -> None:
    few, many = (engine.sample(_requests(QUESTIONS[:3], n), HOT) for n in (3, 8))
    assert [ids[:3] for ids in _ids(many)] == _ids(few)
    key = stream_key(0, "test", QUESTIONS[0])
    rest = engine.sample([SampleRequest(QUESTIONS[0], MARKED, key, count=5, first=3)], HOT)
    assert _ids(rest)[0] == _ids(many)[0][3:]
    assert [s.index for s in rest[0]] == [3, 4, 5, 6, 7]


def test_another_stream_draws_other_samples(engine: TransformersEngine) -> None:
    drawn = [
        engine.sample([SampleRequest("3+5", MARKED, stream_key(seed, "test", "p"), 4)], HOT)[0]
        for seed in range(2)
    ]
    assert {s.token_ids for s in drawn[0]}.isdisjoint({s.token_ids for s in drawn[1]})


@pytest.mark.parametrize("name", ["engine", "bpe_engine"])
def test_greedy_is_what_generate_says_padded_or_not(name: str, request: pytest.FixtureRequest) -> None:
    engine: TransformersEngine = request.getfixturevalue(name)
    drawn = engine.sample(_requests(QUESTIONS, 1), SamplingOptions(0.0, 16))
    for question, samples in zip(QUESTIONS, drawn, strict=True):
        prompt = torch.tensor([engine.tokenizer(MARKED.prompt(question))["input_ids"]])
        out = engine.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=16
        )
        assert list(samples[0].token_ids) == out[0, prompt.shape[1] :].tolist()


@pytest.mark.parametrize("name", ["engine", "bpe_engine"])
def test_samples_go_on_from_a_prefix(name: str, request: pytest.FixtureRequest) -> None:
    """The prompt is `solutions.encode` of a solution's beginning, and other requests do not
    change."""
    engine: TransformersEngine = request.getfixturevalue(name)
    prefix = "3+5=1\n\n"
    options = SamplingOptions(0.0, 16)
    requests = [SampleRequest("3+5", MARKED, 1, 1, prefix=prefix), SampleRequest("1", MARKED, 2, 2)]
    (one,), others = engine.sample(requests, options)
    prompt = engine.tokenizer(MARKED.prompt("3+5"))["input_ids"]
    body = engine.tokenizer(prefix, add_special_tokens=False)["input_ids"]
    whole = torch.tensor([[*prompt, *body, *one.token_ids]])
    with torch.no_grad():
        greedy = engine.model(input_ids=whole).logits[0].argmax(-1)
    assert greedy[len(prompt) + len(body) - 1 : -1].tolist() == list(one.token_ids)
    assert _ids(engine.sample([SampleRequest("1", MARKED, 2, 2)], options)) == _ids([others])
    assert encode(engine.tokenizer, "3+5", prefix, finished=False).input_ids == (*prompt, *body)


def test_the_logprob_is_the_models_own(engine: TransformersEngine) -> None:
    options = SamplingOptions(temperature=0.6, max_new_tokens=12, top_k=5)
    for question, samples in zip(QUESTIONS, engine.sample(_requests(QUESTIONS), options), strict=True):
        prompt = engine.tokenizer(MARKED.prompt(question))["input_ids"]
        for sample in samples:
            ids = torch.tensor([[*prompt, *sample.token_ids]])
            with torch.no_grad():
                scores = engine.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            expected = scores.gather(1, ids[0, len(prompt) :, None]).sum().item()
            assert sample.logprob == pytest.approx(expected, abs=1e-4)


def test_finish_reasons(engine: TransformersEngine) -> None:
    end = engine.tokenizer.eos_token_id
    samples = [s for d in engine.sample(_requests(QUESTIONS, 16), HOT) for s in d]
    assert set(Counter(s.finish_reason for s in samples)) == {"stop", "length"}
    for sample in samples:
        assert end not in sample.token_ids[:-1]
        assert (sample.token_ids[-1] == end) == (sample.finish_reason == "stop")
        assert len(sample.token_ids) <= HOT.max_new_tokens
        if sample.finish_reason == "length":
            assert len(sample.token_ids) == HOT.max_new_tokens
        assert sample.completion == engine.tokenizer.decode(sample.token_ids, skip_special_tokens=True)
        assert engine.tokenizer.eos_token not in sample.completion


def test_one_token_is_enough_to_stop(engine: TransformersEngine) -> None:
    samples = [s for d in engine.sample(_requests(QUESTIONS, 64), SamplingOptions(1.0, 1)) for s in d]
    stopped = [s for s in samples if s.finish_reason == "stop"]
    assert stopped
    assert all(s.completion == "" and len(s.token_ids) == 1 for s in stopped)


def test_first_tokens_follow_the_models_distribution(engine: TransformersEngine) -> None:
    """2,000 samples of one question against softmax, by chi-square over the likelier tokens."""
    n = 2000
    samples = engine.sample(
        [SampleRequest("3+5", MARKED, stream_key(5, "test", "p"), n)], SamplingOptions(1.0, 1)
    )[0]
    counts = Counter(s.token_ids[0] for s in samples)
    prompt = torch.tensor([engine.tokenizer(MARKED.prompt("3+5"))["input_ids"]])
    with torch.no_grad():
        expected = engine.model(input_ids=prompt).logits[0, -1].softmax(-1) * n
    common = [i for i, e in enumerate(expected.tolist()) if e >= 5]
    assert len(common) >= 5
    statistic = sum((counts[i] - expected[i].item()) ** 2 / expected[i].item() for i in common)
    freedom = len(common)
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5


def test_sampling_leaves_the_mode_of_the_model_as_it_was(engine: TransformersEngine) -> None:
    for training in (True, False):
        engine.model.train(training)
        engine.sample(_requests(["1+1"], 1), SamplingOptions(1.0, 2))
        assert engine.model.training is training


@pytest.mark.parametrize("budget", [200, 500, 3000])
def test_a_batch_never_holds_more_than_its_budget(engine: TransformersEngine, budget: int) -> None:
    held: list[int] = []
    handle = engine.model.register_forward_pre_hook(
        lambda model, args, kwargs: held.append(sum(c.held for c in kwargs.get("cohorts", ()))),
        with_kwargs=True,
    )
    options = SamplingOptions(1.0, 120, batch_tokens=budget)
    drawn = engine.sample(_requests(QUESTIONS, 20), options)
    handle.remove()
    assert 0.5 * budget < max(held) <= 1.1 * budget  # a prompt may be in two groups
    assert _ids(drawn) == _ids(engine.sample(_requests(QUESTIONS, 20), SamplingOptions(1.0, 120)))


def test_rows_that_turn_out_longer_than_expected_are_put_back(ladder_policy: Path) -> None:
    """Six short questions end at once, so the engine keeps little room for the others, which need
    more."""

    class Counting(TransformersEngine):
        entered = 0

        def _enter(self, entered: Any, *rest: Any) -> Any:
            self.entered += len(entered)
            return super()._enter(entered, *rest)

    found = load_engine("transformers", ladder_policy)
    engine = Counting(found.model, found.tokenizer)  # type: ignore[attr-defined]
    requests = _requests(QUESTIONS, 40)
    options = SamplingOptions(1.0, 150, batch_tokens=1500)
    drawn = engine.sample(requests, options)
    assert engine.entered > 240
    assert _ids(drawn) == _ids([engine.sample([r], SamplingOptions(1.0, 150))[0] for r in requests])


# Drawing one token


def _choose(logits: list[float], uniforms: np.ndarray, **options: float) -> list[int]:
    rows = torch.tensor([logits] * len(uniforms))
    settings = SamplingOptions(**{"temperature": 1.0, "max_new_tokens": 1, **options})  # type: ignore[arg-type]
    return choose(rows, torch.from_numpy(uniforms), settings).tolist()


def _reference(logits: list[float], temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """Temperature, then top-k (ties kept), then top-p, token by token."""
    scaled = [x / temperature for x in logits]
    if 0 < top_k < len(scaled):
        kth = sorted(scaled, reverse=True)[top_k - 1]
        scaled = [x if x >= kth else -np.inf for x in scaled]
    weights = np.exp(np.array(scaled) - max(scaled))
    weights /= weights.sum()
    kept, mass = set(), 0.0
    for i in sorted(range(len(weights)), key=lambda i: -weights[i]):
        if mass < top_p or top_p == 1:
            kept.add(i)
        mass += weights[i]
    weights = np.array([w if i in kept else 0.0 for i, w in enumerate(weights)])
    return weights / weights.sum()


def test_choose_by_hand() -> None:
    logits = np.log([0.5, 0.2, 0.3]).tolist()
    drawn = _choose(logits, np.array([0.0, 0.49, 0.51, 0.69, 0.71, 0.999999]))
    assert drawn == [0, 0, 1, 1, 2, 2]
    assert _choose(logits, np.array([0.0, 0.9]), temperature=0.0) == [0, 0]
    assert _choose(logits, np.array([0.0, 0.62, 0.63, 0.99]), top_k=2) == [0, 0, 2, 2]  # 0.5 : 0.3
    assert _choose(logits, np.array([0.0, 0.62, 0.63, 0.99]), top_p=0.6) == [0, 0, 2, 2]
    assert _choose(logits, np.array([0.0, 0.99]), top_p=0.4) == [0, 0]
    assert _choose(logits, np.array([0.0, 0.99]), top_k=1) == [0, 0]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(-40, 40).map(lambda x: x / 10), min_size=2, max_size=8, unique=True),
    st.sampled_from([0.3, 0.7, 1.0, 1.5]),
    st.integers(0, 9),
    st.sampled_from([0.1, 0.5, 0.9, 1.0]),
)
def test_choose_draws_each_token_as_often_as_the_reference(
    logits: list[float], temperature: float, top_k: int, top_p: float
) -> None:
    grid = (np.arange(2000) + 0.5) / 2000  # every stretch of the unit interval
    drawn = _choose(logits, grid, temperature=temperature, top_k=top_k, top_p=top_p)
    shares = np.bincount(drawn, minlength=len(logits)) / len(grid)
    expected = _reference(logits, temperature, top_k, top_p)
    np.testing.assert_allclose(shares, expected, atol=1.1e-3)
    assert not shares[expected == 0].any()


def test_ties_at_the_kth_logit_are_all_kept() -> None:
    grid = (np.arange(300) + 0.5) / 300
    assert Counter(_choose([1.0, 1.0, 0.0, 1.0], grid, top_k=2)) == {0: 100, 1: 100, 3: 100}


def test_a_masked_token_is_never_drawn_at_the_edges() -> None:
    edges = np.array([0.0, np.nextafter(1.0, 0.0)])
    assert _choose([-5.0, 3.0, 2.9, -5.0], edges, top_k=2) == [1, 2]
    assert _choose([-np.inf, 0.0, -np.inf], edges) == [1, 1]
