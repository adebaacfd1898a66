import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.recipe import PrmReward, WeakToStrongReward
from e2h_pipeline.rewards.kinds.stepwise import step_objective
from e2h_pipeline.rewards.kinds.weak_to_strong import (
    WeakToStrong,
    balanced_threshold,
    confidence_loss,
    confidence_weight,
)
from e2h_pipeline.rewards.train import train_reward_model
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.supervision.weak_to_strong import with_errors
from e2h_pipeline.training.batches import collate, run_model
from e2h_pipeline.training.next_token import IGNORED
from e2h_pipeline.training.trainer import TrainingStep


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
    """With a constant target, d/dx of the cross-entropy is exactly sigmoid(x) - target."""
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


@pytest.mark.parametrize("progress", [0.0, 0.05, 0.1, 0.11, 0.9])
def test_the_released_codes_form(ladder_evaluator: Path, progress: float) -> None:
    """Against a plain re-statement of `logconf_loss_fn` (openai/weak-to-strong@6b450f2), with its two classes."""
    model, _ = load_evaluator(ladder_evaluator)
    rows = [{"input_ids": [4, 5, 6 + i], "labels": [IGNORED, IGNORED, 0.1 + 0.1 * i]} for i in range(8)]
    batch = collate(0, packing=False)(rows)
    options = WeakToStrongReward(confidence=0.5, confidence_warmup=0.1, schedule="jump")
    with torch.no_grad():
        own = run_model(model, batch).logits[:, -1, 0]
        found = WeakToStrong().objective(options, 0)(model, batch, TrainingStep(torch.tensor(8), progress))
    weak = batch["labels"][:, -1]
    logits, labels = torch.stack([own, torch.zeros(8)], -1), torch.stack([weak, 1 - weak], -1)
    share = (1.0 if progress > 0.1 else progress) * 0.5
    predictions = logits.softmax(-1)
    threshold = predictions[:, 0].quantile(labels.mean(0)[1])
    strong = torch.stack([predictions[:, 0] >= threshold, predictions[:, 0] < threshold], -1).float()
    target = labels * (1 - share) + strong * share
    assert found.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, target).item(), abs=1e-6)


def test_the_papers_threshold_parts_a_batch_in_halves(ladder_evaluator: Path) -> None:
    model, _ = load_evaluator(ladder_evaluator)
    rows = [{"input_ids": [4, 5, 6 + i], "labels": [IGNORED, IGNORED, 0.9]} for i in range(8)]
    batch = collate(0, packing=False)(rows)
    options = WeakToStrongReward(confidence=0.5, threshold="half")
    with torch.no_grad():
        own = run_model(model, batch).logits[:, -1, 0]
        found = WeakToStrong().objective(options, 0)(model, batch, TrainingStep(torch.tensor(8), 0.9))
    expected = confidence_loss(own, batch["labels"][:, -1], 0.5, own.sigmoid().quantile(0.5), 8)
    assert found.item() == pytest.approx(expected.item())


def test_a_weighted_label_counts_as_often() -> None:
    own, weak = torch.tensor([0.5, -2.0]), torch.tensor([0.1, 0.4])
    twice = confidence_loss(own[[0, 0, 1]], weak[[0, 0, 1]], 0.5, 0.5, 3).item()
    assert confidence_loss(own, weak, 0.5, 0.5, 3, torch.tensor([2.0, 1.0])).item() == pytest.approx(twice)


def test_its_weight_follows_the_progress_of_training(ladder_evaluator: Path) -> None:
    """At the start this is plain training on weak labels; later the loss uses the mean weak label
    as threshold."""
    model, _ = load_evaluator(ladder_evaluator)
    rows = [{"input_ids": [4, 5, 6 + i], "labels": [IGNORED, IGNORED, 0.1 + 0.8 * (i % 2)]} for i in range(8)]
    batch = collate(0, packing=False)(rows)
    objective = WeakToStrong().objective(WeakToStrongReward(confidence=0.5, confidence_warmup=0.2), 0)
    with torch.no_grad():
        losses = [
            objective(model, batch, TrainingStep(torch.tensor(8), p)).item() for p in (0, 0.1, 0.2, 0.9)
        ]
        own = run_model(model, batch).logits[:, -1, 0]
        weak = batch["labels"][:, -1]
        plain = step_objective(model, batch, TrainingStep(torch.tensor(8))).item()
    expected = [
        confidence_loss(own, weak, a, balanced_threshold(own, 0.5), 8).item() for a in (0, 0.25, 0.5, 0.5)
    ]
    assert losses == pytest.approx(expected)
    assert losses[0] == pytest.approx(plain)


def _rows(count: int, split: str, wrong: float) -> list[dict[str, Any]]:
    """A step is right if its result is even; a share of the labels is flipped at random."""
    rng = random.Random(f"weak/{split}")
    rows = []
    for i in range(count):
        steps = [f"{rng.randrange(7)}+{rng.randrange(7)}={rng.randrange(7)}" for _ in range(3)]
        labels = [(1 - int(step[-1]) % 2) ^ (rng.random() < wrong) for step in steps]
        rows.append(
            {
                "problem_id": f"{split}/{i}",
                "split": split,
                "question": "1+1",
                "completion": MARKED.completion(steps, "1"),
                "labels": [*map(float, labels), -1.0],
                "finished": True,
            }
        )
    return rows


@pytest.mark.parametrize(
    ("by_rule", "recovers"), [(False, True), (True, False)], ids=["at random", "by a rule"]
)
def test_errors_at_random_are_recovered_and_errors_by_a_rule_are_not(
    ladder_policy: Path, tmp_path: Path, by_rule: bool, recovers: bool
) -> None:
    """Burns et al., appendix E: the pass test of weak-to-strong learning. Both sets have as many wrong labels."""
    truth = [{**row, "split": "train"} for row in _rows(160, "train", wrong=0.0)]
    weak, wrong = with_errors(truth, 0.3, "appendix-e", MARKED, by_rule=by_rule)
    assert wrong / sum(label >= 0 for row in truth for label in row["labels"]) > 0.2
    held = [{**row, "split": "validation"} for row in _rows(80, "validation", wrong=0.0)]
    write_table(tmp_path / "labels" / "data.parquet", pa.Table.from_pylist([*weak, *held]))
    options = PrmReward.model_validate({"training": {"epochs": 6, "batch_size": 16, "learning_rate": 1e-2}})
    work = Work(tmp_path / "out", tmp_path / "work", 0)
    summary = train_reward_model(ladder_policy, {"steps": tmp_path / "labels"}, options, MARKED, work)
    assert (summary["validation_step_accuracy"] > 0.95) == recovers
    assert recovers or summary["validation_step_accuracy"] < 0.85


def test_it_trains_on_weak_labels(ladder_policy: Path, tmp_path: Path) -> None:
    rows = [*_rows(160, "train", wrong=0.1), *_rows(40, "validation", wrong=0.0)]
    write_table(tmp_path / "labels" / "data.parquet", pa.Table.from_pylist(rows))
    options = WeakToStrongReward.model_validate(
        {
            "training": {"epochs": 6, "batch_size": 16, "learning_rate": 1e-2},
            "confidence_warmup": 0.6,  # this body knows nothing yet: an early opinion would only confirm itself
        }
    )
    work = Work(tmp_path / "out", tmp_path / "work", 0)
    summary = train_reward_model(ladder_policy, {"steps": tmp_path / "labels"}, options, MARKED, work)
    assert summary["kind"] == "weak_to_strong"
    assert summary["solutions"] == 160
    assert summary["validation_step_auroc"] > 0.95
