"""The embedded engine against `generate` for every kind of attention, and the models that it
refuses."""

from collections.abc import Sequence

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from e2h_pipeline.generation.engines.cohort import Cohort, UnsupportedModel, probe
from e2h_pipeline.generation.engines.protocol import Candidate, Sample, SampleRequest, SamplingOptions
from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.solutions import MARKED

QUESTIONS = ["3+5", "1-2*3+4+5-6*0", "6*6*6", "4*4", "2+2-2+2", "1"]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
# Grouped queries, one key head, biases, partial rotation, parallel blocks, norms on queries, wide
# heads.
FAMILIES = {
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 1, "sliding_window": 200},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "olmo2": {"num_key_value_heads": 4},
    "gpt_neox": {},
    "phi": {"num_key_value_heads": 4},
    "gemma": {"num_key_value_heads": 1, "head_dim": 16},
}


def tiny(family: str, tokenizer: PreTrainedTokenizerFast, **changed: object) -> TransformersEngine:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        **{**SIZES, **FAMILIES.get(family, {}), **changed},
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return TransformersEngine(AutoModelForCausalLM.from_config(config).eval(), tokenizer)


def requests(count: int) -> list[SampleRequest]:
    return [SampleRequest(q, MARKED, stream_key(0, "test", q), count) for q in QUESTIONS]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_what_generate_says_in_every_family(
    family: str, ladder_tok: PreTrainedTokenizerFast
) -> None:
    engine = tiny(family, ladder_tok)
    drawn = engine.sample(requests(2), SamplingOptions(0.0, 40))
    for question, (one, other) in zip(QUESTIONS, drawn, strict=True):
        prompt = torch.tensor([ladder_tok(MARKED.prompt(question))["input_ids"]])
        out = engine.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=40
        )
        assert list(one.token_ids) == out[0, prompt.shape[1] :].tolist()
        assert one.token_ids == other.token_ids
    assert engine.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("budget", [100, 700, 3000])
def test_rows_that_leave_and_enter_change_nothing(
    family: str, budget: int, ladder_tok: PreTrainedTokenizerFast
) -> None:
    """Uneven requests, in batches of one row, a few rows, or all."""
    engine = tiny(family, ladder_tok)
    counts = [1, 17, 2, 9, 1, 30]
    asked = [
        SampleRequest(q, MARKED, stream_key(0, "t", q), n) for q, n in zip(QUESTIONS, counts, strict=True)
    ]
    drawn = engine.sample(asked, SamplingOptions(1.2, 45, batch_tokens=budget))
    alone = [engine.sample([r], SamplingOptions(1.2, 45))[0] for r in asked]
    assert [len(d) for d in drawn] == counts
    assert [[s.token_ids for s in d] for d in drawn] == [[s.token_ids for s in d] for d in alone]
    assert len({len(s.token_ids) for d in drawn for s in d}) > 5


def test_logprobs_behind_padded_prompts_and_holes(ladder_tok: PreTrainedTokenizerFast) -> None:
    engine = tiny("llama", ladder_tok)
    drawn = engine.sample(requests(12), SamplingOptions(1.0, 60))
    for question, samples in zip(QUESTIONS, drawn, strict=True):
        prompt = ladder_tok(MARKED.prompt(question))["input_ids"]
        for sample in samples:
            ids = torch.tensor([[*prompt, *sample.token_ids]])
            with torch.no_grad():
                scores = engine.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            expected = scores.gather(1, ids[0, len(prompt) :, None]).sum().item()
            assert sample.logprob == pytest.approx(expected, abs=1e-4)


def test_prompts_are_held_once_and_go_with_their_last_row() -> None:
    keys = torch.arange(3.0)[:, None, None, None].expand(3, 2, 5, 4)
    cohort = Cohort([(keys, keys)], torch.tensor([5, 4, 5]), torch.tensor([0, 0, 1, 2, 2, 2]), limit=8)
    assert len(cohort.prompt_keys[0]) == 3 * 2  # key heads
    cohort.keep(torch.tensor([1, 4]))
    assert cohort.prompt_keys[0][:, 0, 0].tolist() == [0, 0, 2, 2]
    assert cohort.group.tolist() == [0, 1]
    assert cohort.lengths.tolist() == [5, 5]


def test_a_row_has_only_the_room_it_needs(ladder_tok: PreTrainedTokenizerFast) -> None:
    keys = torch.zeros(1, 2, 5, 4)
    cohort = Cohort([(keys, keys)], torch.tensor([5]), torch.tensor([0, 0]), limit=1000)
    assert cohort.keys[0].shape[0] < 100
    for _ in range(200):
        cohort.advance()
    assert 200 < cohort.keys[0].shape[0] <= 400


def test_scores_are_not_rounded_to_sixteen_bits() -> None:
    """A score of 20 in bfloat16 is off by up to .06, so its weight by 6%. Values of 1 and 0 show the
    weights."""
    generator = torch.Generator().manual_seed(0)
    prompt, query, key = (torch.randn(shape, generator=generator) for shape in ((7, 64), (64,), (64,)))
    prompt, query, key = (x.to(torch.bfloat16) for x in (prompt, 3 * query, key))
    expected = (torch.stack([*prompt, key]).double() @ query.double() / 8).softmax(0)
    assert expected.max() < 0.999  # several keys count
    for place in range(8):
        told = torch.zeros(8, 64, dtype=torch.bfloat16)
        told[place] = 1
        cohort = Cohort(
            [(prompt[None, None], told[None, None, :7])], torch.tensor([7]), torch.tensor([0]), limit=9
        )
        found = cohort.attend(0, *(x[None, None, None] for x in (query, key, told[7])), scaling=1 / 8)
        assert float(found.flatten()[0]) == pytest.approx(float(expected[place]), rel=6e-3, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_deep_model_of_any_number_format_is_served(
    dtype: torch.dtype, ladder_tok: PreTrainedTokenizerFast
) -> None:
    """In bfloat16 the rounding of sixty layers is a large part of the logits; that is no other
    kind of attention."""
    engine = tiny("llama", ladder_tok, num_hidden_layers=60)
    engine.model.to(dtype)
    probe(engine.model)
    assert engine.model.dtype == dtype
    assert len(engine.model.model.layers) == engine.model.config.num_hidden_layers == 60
    capped = tiny("gemma2", ladder_tok, num_key_value_heads=1, head_dim=8, attn_logit_softcapping=5.0)
    with pytest.raises(UnsupportedModel, match="softcap"):
        probe(capped.model.to(dtype))


def test_models_that_attend_otherwise_are_refused(ladder_tok: PreTrainedTokenizerFast) -> None:
    engine = tiny("mistral", ladder_tok, sliding_window=16)
    with pytest.raises(UnsupportedModel, match="16 tokens only, and samples may have"):
        engine.sample(requests(1), SamplingOptions(1.0, 20))
    capped = tiny("gemma2", ladder_tok, num_key_value_heads=1, head_dim=8, attn_logit_softcapping=5.0)
    with pytest.raises(UnsupportedModel, match="softcap"):
        capped.sample(requests(1), SamplingOptions(1.0, 4))
    assert capped.model.config._attn_implementation != "e2h_cohorts"


# Stop strings and the watch


def longest_common(samples: Sequence[Sample], whole: Sequence[Sample]) -> bool:
    return all(w.token_ids[: len(s.token_ids)] == s.token_ids for s, w in zip(samples, whole, strict=True))


def test_a_sample_ends_at_the_first_stop_string(ladder_tok: PreTrainedTokenizerFast) -> None:
    engine = tiny("llama", ladder_tok)
    texts = [s.completion for d in engine.sample(requests(30), SamplingOptions(1.0, 40)) for s in d]
    pairs = [t[i : i + 2] for t in texts for i in range(len(t) - 1)]
    stop = tuple(sorted(set(pairs), key=pairs.count)[-2:])
    stopped = [s for d in engine.sample(requests(30), SamplingOptions(1.0, 40, stop=stop)) for s in d]
    ended = 0
    for sample, text in zip(stopped, texts, strict=True):
        first = min((text.find(s) for s in stop if s in text), default=-1)
        if first < 0:
            assert (sample.completion, sample.stop_reason) == (text, None)
            continue
        ended += 1
        assert sample.completion == text[:first]
        assert text[first:].startswith(sample.stop_reason or "?")
        assert sample.finish_reason == "stop"
        drawn = ladder_tok.decode(sample.token_ids, skip_special_tokens=True)
        assert drawn.startswith(text[: first + 2])
    assert 20 < ended < len(texts)


class EveryThird:
    """Gives up samples whose number is a multiple of three, once their text has three
    characters."""

    every = 4

    def __init__(self) -> None:
        self.seen: list[Candidate] = []

    def hopeless(self, candidates: Sequence[Candidate]) -> list[bool]:
        self.seen += candidates
        return [c.index % 3 == 0 and len(c.completion) >= 3 for c in candidates]


def test_what_the_watch_gives_up_ends_there(ladder_tok: PreTrainedTokenizerFast) -> None:
    engine = tiny("llama", ladder_tok)
    options = SamplingOptions(1.0, 40)
    whole = [s for d in engine.sample(requests(9), options) for s in d]
    watch = EveryThird()
    watched = [s for d in engine.sample(requests(9), options, watch) for s in d]
    assert longest_common(watched, whole)
    given_up = [s for s in watched if s.finish_reason == "abandoned"]
    assert given_up
    assert all(s.index % 3 == 0 and len(s.token_ids) % 4 == 0 for s in given_up)
    kept = [(s, w) for s, w in zip(watched, whole, strict=True) if s.finish_reason != "abandoned"]
    assert all(s.token_ids == w.token_ids and s.finish_reason == w.finish_reason for s, w in kept)
    assert {c.question for c in watch.seen} <= set(QUESTIONS)


def test_the_watch_sees_the_prefix_too(ladder_tok: PreTrainedTokenizerFast) -> None:
    watch = EveryThird()
    tiny("llama", ladder_tok).sample(
        [SampleRequest("3+5", MARKED, 1, 2, prefix="3+5=1\n\n")], SamplingOptions(1.0, 8), watch
    )
    assert all(c.completion.startswith("3+5=1\n\n") for c in watch.seen)


def test_the_mode_of_the_model_survives_an_error(ladder_tok: PreTrainedTokenizerFast) -> None:
    engine = tiny("llama", ladder_tok)

    class Broken(EveryThird):
        def hopeless(self, candidates: Sequence[Candidate]) -> list[bool]:
            raise RuntimeError("no evaluator")

    engine.model.train()
    with pytest.raises(RuntimeError, match="no evaluator"):
        engine.sample(requests(1), SamplingOptions(1.0, 8), Broken())
    assert engine.model.training
    assert engine.model.config._attn_implementation == "sdpa"
