from pathlib import Path

import torch

from e2h_pipeline.models.base import save_model
from e2h_pipeline.models.load import load_evaluator, load_policy


def test_an_evaluator_has_one_score_per_token_and_drops_nothing_out(ladder_policy: Path) -> None:
    model, tokenizer = load_evaluator(ladder_policy)
    ids = torch.tensor([tokenizer("1+2*2")["input_ids"]])
    model.train()
    with torch.no_grad():
        first, second = model(input_ids=ids).logits, model(input_ids=ids).logits
    assert first.shape == (1, 5, 1)
    assert torch.equal(first, second)


def test_an_evaluator_starts_from_the_policys_weights(ladder_policy: Path) -> None:
    policy, evaluator = load_policy(ladder_policy)[0], load_evaluator(ladder_policy)[0]
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
