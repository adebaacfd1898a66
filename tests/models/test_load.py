import json
import shutil
from pathlib import Path

import pytest
import torch

from e2h_pipeline.models.base import save_model
from e2h_pipeline.models.load import (
    FORMAT_FILE,
    HEADING_FIELD,
    STEP_END_FIELD,
    load_evaluator,
    load_policy,
    new_evaluator,
    read_format,
)


def test_an_evaluator_has_one_score_per_token_and_drops_nothing_out(ladder_policy: Path) -> None:
    model, tokenizer = new_evaluator(ladder_policy)
    ids = torch.tensor([tokenizer("1+2*2")["input_ids"]])
    model.train()
    with torch.no_grad():
        first, second = model(input_ids=ids).logits, model(input_ids=ids).logits
    assert first.shape == (1, 5, 1)
    assert torch.equal(first, second)


def test_an_evaluator_starts_from_the_policys_weights(ladder_policy: Path) -> None:
    policy, evaluator = load_policy(ladder_policy)[0], new_evaluator(ladder_policy)[0]
    body = evaluator.base_model.state_dict()
    assert all(torch.equal(tensor, body[name]) for name, tensor in policy.base_model.state_dict().items())


def test_a_saved_evaluator_scores_the_same(ladder_evaluator: Path, tmp_path: Path) -> None:
    model, tokenizer = load_evaluator(ladder_evaluator)
    save_model(model, tokenizer, tmp_path)
    again, _ = load_evaluator(tmp_path)
    ids = torch.tensor([tokenizer("1+2*2")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)
    assert model.score.weight.abs().sum() > 0


def test_a_tiled_language_model_head_is_the_mean_of_its_logits(ladder_policy: Path, tmp_path: Path) -> None:
    """As in the released easy-to-hard reward models: LlamaForCausalLM, two rows repeated over the
    vocabulary."""
    policy, tokenizer = load_policy(ladder_policy)
    torch.manual_seed(5)
    rows = torch.randn(2, policy.config.hidden_size)
    policy.config.tie_word_embeddings = False
    head = torch.nn.Linear(policy.config.hidden_size, policy.config.vocab_size, bias=False)
    head.weight.data = rows.repeat(policy.config.vocab_size // 2 + 1, 1)[: policy.config.vocab_size]
    policy.set_output_embeddings(head)
    policy.save_pretrained(tmp_path / "released")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    form = {"head": "tiled", "step_end": "first_newline", "tokenizer": str(tmp_path / "tokenizer")}
    (tmp_path / "released" / FORMAT_FILE).write_text(json.dumps(form))
    ids = torch.tensor([tokenizer("1+2*2")["input_ids"]])
    with torch.no_grad():
        expected = policy(input_ids=ids).logits.mean(-1)
    model, found = load_evaluator(tmp_path / "released")
    assert found.get_vocab() == tokenizer.get_vocab()
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits[..., 0], expected, atol=1e-5, rtol=1e-5)
    # Saved, it is an evaluator like ours, and remembers where steps are scored.
    save_model(model, tokenizer, tmp_path / "ours")
    again, _ = load_evaluator(tmp_path / "ours")
    assert getattr(again.config, STEP_END_FIELD) == "first_newline"
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits[..., 0], expected, atol=1e-5, rtol=1e-5)


def test_a_language_model_is_not_taken_for_a_tiled_head(ladder_policy: Path, tmp_path: Path) -> None:
    policy, tokenizer = load_policy(ladder_policy)
    save_model(policy, tokenizer, tmp_path)
    (tmp_path / FORMAT_FILE).write_text('{"head": "tiled"}')
    with pytest.raises(ValueError, match="'head' is tiled, but the rows"):
        load_evaluator(tmp_path)


def test_two_labels_become_their_log_odds(ladder_policy: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForTokenClassification

    torch.manual_seed(6)
    source = AutoModelForTokenClassification.from_pretrained(ladder_policy, num_labels=2).eval()
    torch.nn.init.normal_(source.score.weight)
    torch.nn.init.normal_(source.score.bias)
    tokenizer = load_policy(ladder_policy)[1]
    save_model(source, tokenizer, tmp_path)
    ids = torch.tensor([tokenizer("1+2*2")["input_ids"]])
    model, _ = load_evaluator(tmp_path)
    with torch.no_grad():
        right = source(input_ids=ids).logits.softmax(-1)[..., 1]
        torch.testing.assert_close(model(input_ids=ids).logits[..., 0].sigmoid(), right, atol=1e-6, rtol=1e-5)


def test_three_labels_are_refused(ladder_policy: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForTokenClassification

    model = AutoModelForTokenClassification.from_pretrained(ladder_policy, num_labels=3)
    save_model(model, load_policy(ladder_policy)[1], tmp_path)
    with pytest.raises(ValueError, match="a head of 3 labels"):
        load_evaluator(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"evaluator.json:1: not JSON"),
        ("[]", "must be an object"),
        ('{"heads": "tiled"}', "no such field 'heads'"),
        ('{"head": "mean"}', "'head' is 'mean'; allowed: auto, tiled"),
        ('{"heading": 3}', "'heading' is 3; allowed: a text"),
    ],
)
def test_a_format_that_cannot_be_read_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / FORMAT_FILE).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_format(tmp_path)


def test_a_heading_comes_from_the_format(ladder_evaluator: Path, tmp_path: Path) -> None:
    shutil.copytree(ladder_evaluator, tmp_path / "e")
    (tmp_path / "e" / FORMAT_FILE).write_text('{"heading": "# Homework"}')
    assert getattr(load_evaluator(tmp_path / "e")[0].config, HEADING_FIELD) == "# Homework"
    assert not hasattr(load_evaluator(ladder_evaluator)[0].config, HEADING_FIELD)
