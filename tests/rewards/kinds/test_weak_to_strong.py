import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.rewards.kinds.weak_to_strong import balanced_threshold, confidence_loss, confidence_weight
from e2h_pipeline.training.batches import run_model
from e2h_pipeline.training.next_token import IGNORED
from e2h_pipeline.training.trainer import Settings, train


def test_the_worked_number() -> None:
    # weak .3, own .8, hardened to 1, a = .5: reference/oversight-methods.md, section h
    own = torch.tensor([math.log(4)])
    assert confidence_loss(own, torch.tensor([0.3]), 0.5, 0.5, 1).item() == pytest.approx(0.708347, abs=1e-6)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-6, 6), st.floats(0, 1)), min_size=1, max_size=8),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_both_forms_are_equal(pairs: list[tuple[float, float]], weight: float, threshold: float) -> None:
    own, weak = (torch.tensor([pair[i] for pair in pairs]) for i in (0, 1))
    hard = (own.sigmoid() > threshold).float()
    two_terms = (1 - weight) * binary_cross_entropy_with_logits(own, weak) + (
        weight * binary_cross_entropy_with_logits(own, hard)
    )
    one = confidence_loss(own, weak, weight, threshold, len(pairs))
    assert one.item() == pytest.approx(two_terms.item(), abs=1e-5)


def test_without_own_opinion_it_is_plain_cross_entropy() -> None:
    own, weak = torch.tensor([0.5, -2.0, 3.0]), torch.tensor([0.1, 0.4, 1.0])
    plain = binary_cross_entropy_with_logits(own, weak)
    assert confidence_loss(own, weak, 0, 0.5, 3).item() == pytest.approx(plain.item())


def test_no_gradient_goes_through_the_hardened_opinion() -> None:
    """d/dx of the cross-entropy with a constant target is sigmoid(x) - target, and nothing else."""
    own = torch.tensor([1.0, -1.0], requires_grad=True)
    weak = torch.tensor([0.3, 0.3])
    confidence_loss(own, weak, 0.5, balanced_threshold(own), 1).backward()
    assert own.grad is not None
    target = 0.5 * weak + 0.5 * torch.tensor([1.0, 0.0])
    assert torch.allclose(own.grad, own.detach().sigmoid() - target)


def test_the_threshold_parts_a_batch() -> None:
    own = torch.tensor([-3.0, -2.0, 1.0, 4.0])
    assert (own.sigmoid() > balanced_threshold(own)).tolist() == [False, False, True, True]
    assert (own.sigmoid() > balanced_threshold(own, 0.25)).tolist() == [False, False, False, True]
    assert balanced_threshold(torch.zeros(0)).item() == 0.5


def test_the_weight_warms_up() -> None:
    assert [confidence_weight(p, 0.75) for p in (0, 0.1, 0.2, 1)] == pytest.approx([0, 0.375, 0.75, 0.75])
    assert confidence_weight(0, 0.5, warmup=0) == 0.5


def test_the_trainer_takes_it_as_an_objective(ladder_evaluator: Path, tmp_path: Path) -> None:
    """The weight follows the progress that the batch tells."""
    weights: list[float] = []

    def objective(model: Any, batch: dict[str, Any], total: torch.Tensor) -> torch.Tensor:
        chosen = batch["labels"] != IGNORED
        own, weak = run_model(model, batch).logits.squeeze(-1)[chosen], batch["labels"][chosen]
        weights.append(confidence_weight(batch["progress"], 0.5))
        return confidence_loss(own, weak, weights[-1], balanced_threshold(own, float(weak.mean())), total)

    rows = [{"input_ids": [4, 5, 6 + i], "labels": [IGNORED, IGNORED, 0.1 + 0.8 * (i % 2)]} for i in range(8)]
    model, _ = load_evaluator(ladder_evaluator)
    train(
        model.train(),
        rows,
        objective,
        Settings(5, 4, 1e-3, 0, 0),
        pad_id=0,
        work=tmp_path,
        reporter=Reporter(),
    )
    assert weights == pytest.approx([0, 0.25, *[0.5] * 8])
