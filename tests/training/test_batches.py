"""Packing equals padding: the same logits, losses and gradients, for every objective and attention
layout."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForTokenClassification, PreTrainedModel

from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.rewards.kinds.pairwise import pairwise_loss
from e2h_pipeline.rewards.kinds.stepwise import step_loss
from e2h_pipeline.training.batches import collate, documents, packed_attention, run_model, together
from e2h_pipeline.training.next_token import IGNORED

ROWS = [
    {
        "input_ids": [3 + (i * j) % 17 for j in range(1, 5 + 3 * i)],
        "labels": [float(IGNORED)] * (1 + 3 * i) + [float(i % 2), float(IGNORED), 1.0],
    }
    for i in range(5)
]
TOTAL = sum(x != IGNORED for row in ROWS for x in row["labels"])


@pytest.fixture
def model(ladder_evaluator: Path) -> PreTrainedModel:
    return load_evaluator(ladder_evaluator)[0]


def _loss_and_gradients(
    model: PreTrainedModel, examples: list[Any], packing: bool, objective: Any = step_loss
) -> tuple[float, dict[str, torch.Tensor]]:
    batch = collate(0, packing)(examples)
    model.zero_grad()
    with packed_attention(model, packing):
        loss = objective(run_model(model, batch).logits, batch["labels"], TOTAL)
        loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_packing_gives_the_loss_and_gradient_of_padding(model: PreTrainedModel) -> None:
    padded, gradients = _loss_and_gradients(model, ROWS, packing=False)
    packed, others = _loss_and_gradients(model, ROWS, packing=True)
    assert packed == pytest.approx(padded, abs=1e-6)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(others[name], gradient, atol=1e-5), name


def test_packed_logits_are_those_of_each_document_alone(model: PreTrainedModel) -> None:
    batch = collate(0, packing=True)(ROWS)
    with torch.no_grad(), packed_attention(model):
        packed = run_model(model, batch).logits[0].split(batch["document_lengths"])
    for row, logits in zip(ROWS, packed, strict=True):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
        assert torch.allclose(logits, alone, atol=1e-5)


def test_the_trap_would_be_seen(model: PreTrainedModel) -> None:
    """Naive packing, with restarting positions: documents attend to earlier ones, and the loss is
    wrong."""
    padded, _ = _loss_and_gradients(model, ROWS, packing=False)
    batch = collate(0, packing=True)(ROWS)
    whole = torch.ones_like(batch["input_ids"])
    for more in ({"attention_mask": whole}, {"attention_mask": whole, "use_cache": False}):
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], **more).logits
        assert abs(step_loss(logits, batch["labels"], TOTAL).item() - padded) > 1e-3


def test_heads_may_share_keys() -> None:
    torch.manual_seed(0)
    model = LlamaForTokenClassification(
        LlamaConfig(
            vocab_size=32,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_labels=1,
            initializer_range=0.3,
            classifier_dropout=0.0,
        )
    )
    padded, _ = _loss_and_gradients(model, ROWS, packing=False)
    assert _loss_and_gradients(model, ROWS, packing=True)[0] == pytest.approx(padded, abs=1e-5)


def test_recomputed_activations_change_nothing(model: PreTrainedModel) -> None:
    padded, gradients = _loss_and_gradients(model, ROWS, packing=False)
    model.train().gradient_checkpointing_enable({"use_reentrant": False})
    packed, others = _loss_and_gradients(model, ROWS, packing=True)
    assert packed == pytest.approx(padded, abs=1e-6)
    assert all(torch.allclose(others[name], gradients[name], atol=1e-5) for name in gradients)


def test_attention_is_put_back(model: PreTrainedModel) -> None:
    before = model.config._attn_implementation
    with packed_attention(model):
        assert model.config._attn_implementation != before
    assert model.config._attn_implementation == before


def test_a_window_is_refused(model: PreTrainedModel) -> None:
    model.config.sliding_window = 4
    with pytest.raises(ValueError, match="packing=false"), packed_attention(model):
        pass


@pytest.mark.parametrize("packing", [False, True])
def test_pairs_stay_together(model: PreTrainedModel, packing: bool) -> None:
    right = {"input_ids": [4, 5, 6], "labels": [IGNORED, IGNORED, 1.0]}
    wrong = {"input_ids": [4, 7], "labels": [IGNORED, 0.0]}
    pair = together(right, wrong)
    assert documents(pair) == [right, wrong]
    loss, _ = _loss_and_gradients(model, [pair, pair], packing, pairwise_loss)
    with torch.no_grad():
        scores = [
            model(input_ids=torch.tensor([row["input_ids"]])).logits[0, -1, 0].item()
            for row in (right, wrong)
        ]
    expected = -torch.nn.functional.logsigmoid(torch.tensor(scores[0] - scores[1])).item()
    assert loss == pytest.approx(expected * 2 / (TOTAL / 2), abs=1e-5)


def test_other_columns_come_along() -> None:
    rows = [{"input_ids": [1, 2], "labels": [5, 6], "completion": [0, 1]}, {**ROWS[0], "completion": [1] * 4}]
    padded, packed = collate(9, packing=False)(rows), collate(9, packing=True)(rows)
    assert padded["completion"].tolist() == [[0, 1, 0, 0], [1, 1, 1, 1]]
    assert padded["input_ids"][0].tolist() == [1, 2, 9, 9]
    assert padded["labels"][0].tolist() == [5, 6, IGNORED, IGNORED]
    assert packed["completion"].tolist() == [[0, 1, 1, 1, 1, 1]]
    assert packed["position_ids"].tolist() == [[0, 1, 0, 1, 2, 3]]
