"""Policies, evaluators, sampling and packing are right, or refused, for every architecture."""

from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, OWN_CLASS, save_tiny, tiny_model
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast

from e2h_pipeline.generation.engines.embedded import Transformers
from e2h_pipeline.generation.engines.protocol import SampleRequest, SamplingOptions
from e2h_pipeline.models.base import ModelError, get_base_model, save_model
from e2h_pipeline.models.classifier import NoEvaluator, classifier_class, score_head, score_head_name
from e2h_pipeline.models.load import load_evaluator, new_evaluator
from e2h_pipeline.models.probes import reads_ahead
from e2h_pipeline.recipe import Base, MathProblems, RewardTraining
from e2h_pipeline.rewards.kinds.stepwise import step_objective
from e2h_pipeline.rewards.scoring import encode_for, score_encoded, score_solutions
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.training.adapters import prepare
from e2h_pipeline.training.batches import collate, packed_attention, run_model
from e2h_pipeline.training.next_token import IGNORED
from e2h_pipeline.training.trainer import TrainingStep

NOT_SERVED = ("falcon", "falcon-alibi", "bloom", "mpt", "stablelm", "gemma2", "gptj")
SOLUTIONS = [
    ("What is $3+4$?", MARKED.completion([f"We add {i}.", "So it is so. " * i], "7"), True) for i in range(4)
]


def _joined(scores: list[list[float]]) -> torch.Tensor:
    return torch.tensor([score for own in scores for score in own])


@pytest.fixture(params=tuple(ARCHITECTURES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def policy(name: str, bpe_tok: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    return save_tiny(name, bpe_tok, tmp_path / "policy")


def test_an_evaluator_learns_is_saved_and_scores_the_same(
    name: str, policy: Path, bpe_tok: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model, tokenizer = new_evaluator(policy)
    encoded = [encode_for(model, tokenizer, solution) for solution in SOLUTIONS]
    assert score_encoded(model, encoded) == [[0.0] * len(e.segment_ends) for e in encoded]
    batch = collate(0, packing=False)(
        [
            {
                "input_ids": e.input_ids,
                "labels": [1.0 if i in e.segment_ends else IGNORED for i in range(len(e.input_ids))],
            }
            for e in encoded
        ]
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(2):  # the head first: behind zeros the body has no gradient
        step_objective(model, batch, TrainingStep(torch.tensor(12.0))).backward()
        optimizer.step()
        optimizer.zero_grad()
    save_model(model, tokenizer, tmp_path / "evaluator")
    expected = [score_encoded(model, [e])[0] for e in encoded]  # one by one: no padding, no shared prompt
    assert _joined(expected).std() > 0
    again, _ = load_evaluator(tmp_path / "evaluator")
    found = score_solutions(again, tokenizer, SOLUTIONS)
    assert torch.allclose(_joined(found), _joined(expected), rtol=1e-4, atol=1e-4)
    if name in OWN_CLASS:  # then transformers alone reads it
        plain = AutoModelForTokenClassification.from_pretrained(tmp_path / "evaluator").eval()
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([encoded[1].input_ids])).logits[0, :, 0]
        assert torch.allclose(
            logits[list(encoded[1].segment_ends)], torch.tensor(expected[1]), rtol=1e-4, atol=1e-4
        )


def test_shared_prompts_and_padding_change_no_score(policy: Path) -> None:
    model, tokenizer = new_evaluator(policy)
    torch.manual_seed(5)
    torch.nn.init.normal_(score_head(model).weight)
    question = "A long question, so that sharing it is less work."
    solutions = [(question, MARKED.completion([f"We add {i}."] * (1 + i), "7"), True) for i in range(5)]
    encoded = [encode_for(model, tokenizer, solution) for solution in solutions]
    alone = [score for e in encoded for score in score_encoded(model, [e])[0]]
    for shared in (True, False):
        found = [s for own in score_solutions(model, tokenizer, solutions, share_prompts=shared) for s in own]
        assert torch.allclose(torch.tensor(found), torch.tensor(alone), rtol=1e-4, atol=1e-4)


def test_packed_documents_are_apart_or_packing_is_refused(policy: Path) -> None:
    model, tokenizer = new_evaluator(policy)
    torch.manual_seed(5)
    torch.nn.init.normal_(score_head(model).weight)
    rows = [{"input_ids": encode_for(model, tokenizer, solution).input_ids} for solution in SOLUTIONS[:3]]
    with torch.no_grad():
        alone = torch.cat([run_model(model, collate(0, packing=False)([row])).logits[0] for row in rows])
        try:
            with packed_attention(model):
                packed = run_model(model, collate(0, packing=True)(rows)).logits[0]
        except ValueError as error:
            assert "packing=false" in str(error)
            return
    assert torch.allclose(packed, alone, rtol=1e-4, atol=1e-4)


def test_packing_is_refused_where_attention_is_not_ours(bpe_tok: PreTrainedTokenizerFast) -> None:
    for name in ("bloom", "mpt", "falcon-alibi", "gemma2"):
        with pytest.raises(ValueError, match="packing=false"), packed_attention(tiny_model(name, bpe_tok)):
            pass
    for name in ("llama", "gpt2", "opt", "gemma3_text"):
        with packed_attention(tiny_model(name, bpe_tok)):
            pass


def test_the_engine_draws_what_the_model_would_or_refuses_at_once(
    name: str, policy: Path, bpe_tok: PreTrainedTokenizerFast
) -> None:
    if name in NOT_SERVED:
        with pytest.raises(ValueError, match="E2H_ENGINE=vllm"):
            Transformers().check(policy, 40)
        return
    Transformers().check(policy, 40)
    engine = Transformers().open(policy)
    request = SampleRequest("What is $x$?", MARKED, key=3, count=2)
    (drawn,) = engine.sample([request], SamplingOptions(0.0, 8))
    ids = list(bpe_tok(request.prompt)["input_ids"])
    model, start = tiny_model(name, bpe_tok), len(ids)
    with torch.no_grad():
        while len(ids) < start + 8 and ids[-1] != bpe_tok.eos_token_id:
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert [sample.token_ids for sample in drawn] == [tuple(ids[start:])] * 2


@pytest.mark.parametrize("name", ["diffllama", "nemotron"])
def test_an_attention_that_only_looks_plain_is_refused(
    name: str, bpe_tok: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """transformers says that both can be given another attention, and neither follows it."""
    model = tiny_model("llama", bpe_tok).config
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(2)
    config = AutoConfig.for_model(
        name, vocab_size=model.vocab_size, initializer_range=0.3, **ARCHITECTURES["llama"]
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    bpe_tok.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="attends in a way of its own"):
        Transformers().check(tmp_path, 20)


def test_windows_and_positions_shorter_than_samples_are_refused(
    bpe_tok: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    window = save_tiny("mistral", bpe_tok, tmp_path / "window", sliding_window=64)
    Transformers().check(window, 64)
    with pytest.raises(ValueError, match="attends to 64 tokens only, and samples may have 65"):
        Transformers().check(window, 65)
    for name in ("gpt2", "opt"):
        learned = save_tiny(name, bpe_tok, tmp_path / name)
        Transformers().check(learned, 256)
        with pytest.raises(ValueError, match="knows 256 positions, and prompt and sample may have 257"):
            Transformers().check(learned, 257)


def test_every_layer_can_be_frozen_or_adapted(policy: Path) -> None:
    model, _ = new_evaluator(policy)
    frozen = prepare(model, RewardTraining.model_validate({"frozen_layers": 1}))
    learning = {n for n, p in frozen.named_parameters() if p.requires_grad}
    assert any(".1." in n for n in learning)
    assert not any(".0." in n for n in learning)
    adapted = prepare(
        new_evaluator(policy)[0], RewardTraining.model_validate({"lora_rank": 2}), [score_head_name(model)]
    )
    adapters = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert any("lora_A" in n for n in adapters)
    assert any("modules_to_save" in n for n in adapters)


def test_a_model_that_reads_ahead_is_refused(bpe_tok: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """BERT loads as a causal language model."""
    from transformers import BertConfig, BertLMHeadModel

    torch.manual_seed(1)
    usual = ARCHITECTURES["llama"]
    bert = BertLMHeadModel(BertConfig(vocab_size=len(bpe_tok), initializer_range=0.3, **usual)).eval()
    assert reads_ahead(bert)
    bert.save_pretrained(tmp_path / "bert")
    bpe_tok.save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelError, match="BertLMHeadModel reads later tokens too"):
        get_base_model(Base(model=str(tmp_path / "bert")), MathProblems(), tmp_path / "out")


def test_a_decoder_without_a_body_of_its_own_is_refused(
    bpe_tok: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    from transformers import BartConfig, BartForCausalLM

    small = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "decoder_ffn_dim": 16,
        "decoder_attention_heads": 2,
    }
    BartForCausalLM(BartConfig(vocab_size=len(bpe_tok), **small)).save_pretrained(tmp_path / "bart")
    bpe_tok.save_pretrained(tmp_path / "bart")
    with pytest.raises(NoEvaluator, match="BartDecoderWrapper"):
        new_evaluator(tmp_path / "bart")
    with pytest.raises(ModelError, match="no evaluator can be made of it"):
        get_base_model(Base(model=str(tmp_path / "bart")), MathProblems(), tmp_path / "out")


def test_the_documented_lines_load_an_evaluator(bpe_tok: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """docs/models.md, for an architecture that transformers has no class of."""
    model, tokenizer = new_evaluator(save_tiny("opt", bpe_tok, tmp_path / "policy"))
    torch.nn.init.normal_(score_head(model).weight)
    save_model(model, tokenizer, tmp_path / "evaluator")
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    (snippet,) = [part.split("```")[0] for part in text.split("```python\n")[1:] if "GenericFor" in part]
    found: dict[str, object] = {"FOLDER": str(tmp_path / "evaluator")}
    exec(snippet, found)  # noqa: S102 (our own page)
    theirs = found["model"]
    assert isinstance(theirs, torch.nn.Module)
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        assert torch.allclose(theirs.eval()(input_ids=ids).logits, model(input_ids=ids).logits)


def test_made_classes_are_made_once() -> None:
    from transformers import OPTConfig

    assert classifier_class(OPTConfig()) is classifier_class(OPTConfig())
    assert classifier_class(OPTConfig()).__name__ == "OPTForTokenClassification"
