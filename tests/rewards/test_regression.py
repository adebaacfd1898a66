"""Heads fitted by regression, on whole models and on their lowest layers."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForTokenClassification

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.models.adapters import decoder_layers, keep_lowest_layers
from e2h_pipeline.models.load import load_evaluator, new_evaluator
from e2h_pipeline.recipe import Reward, RewardTraining
from e2h_pipeline.recipe.sections.reward import REWARD
from e2h_pipeline.rewards.examples import encode_row, step_example
from e2h_pipeline.rewards.train import train_reward_model
from e2h_pipeline.rewards.validate import score_rows
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.statistics.logistic import fit_logistic

RIDGE = 3.0


def _rows(count: int = 40) -> list[dict[str, Any]]:
    """A step is right if its result is even; every fifth row weighs double."""
    rows = []
    for i in range(count):
        steps = [f"{i % 7}+{j}={(2 * i + 3 * j) % 7}" for j in range(3)]
        rows.append(
            {
                "problem_id": f"p{i // 2}",
                "split": "validation" if i % 8 < 2 else "train",
                "question": "1+1",
                "completion": MARKED.completion(steps, "1"),
                "labels": [1.0 - int(step[-1]) % 2 for step in steps] + [-1.0],
                "finished": True,
                "outcome": i % 2,
                "weight": 2.0 if i % 5 == 0 else 1.0,
            }
        )
    return rows


def _train(policy: Path, folder: Path, kind: str = "prm", **training: Any) -> dict[str, Any]:
    write_table(folder / "labels" / "data.parquet", pa.Table.from_pylist(_rows()))
    given = {"epochs": 0, "head": "regression", "ridge": RIDGE, "batch_size": 8, **training}
    options: Reward = REWARD.member(kind).model_validate({"training": given})
    labels = dict.fromkeys(("steps", "outcomes"), folder / "labels")
    return train_reward_model(policy, labels, options, MARKED, Work(folder / "out", folder / "work", 0))


def test_without_training_only_the_head_is_new_and_it_is_the_regression(
    ladder_policy: Path, tmp_path: Path
) -> None:
    summary = _train(ladder_policy, tmp_path)
    assert (summary["updates"], summary["solutions"]) == (0, 30)
    assert summary["validation_step_auroc"] > 0.9
    before, tokenizer = new_evaluator(ladder_policy)
    after = load_evaluator(tmp_path / "out")[0]
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            before.base_model.state_dict().values(), after.base_model.state_dict().values(), strict=True
        )
    )
    features, labels, counts = [], [], []
    for row in _rows():
        example = step_example(tokenizer, row)
        with torch.inference_mode():
            states = before.base_model(torch.tensor([example["input_ids"]])).last_hidden_state[0]
        for place, label in enumerate(example["labels"]):
            if label >= 0 and row["split"] == "train":
                features.append(states[place].numpy())
                labels.append(label)
                counts.append(row["weight"])
    fitted = fit_logistic(np.array(features), np.array(labels), RIDGE, np.array(counts))
    weights, constant = fitted.plain()
    assert after.score.weight.detach().numpy()[0] == pytest.approx(weights, abs=1e-3)
    assert float(after.score.bias.detach()) == pytest.approx(constant, abs=1e-2)


def test_the_lowest_layers_alone_are_saved_as_a_model_of_so_many(ladder_policy: Path, tmp_path: Path) -> None:
    summary = _train(ladder_policy, tmp_path, layers=1, folds=3)
    assert summary["folds"] == 3
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "out")
    assert model.config.num_hidden_layers == len(decoder_layers(model)) == 1
    found, tokenizer = load_evaluator(tmp_path / "out")
    row = _rows()[0]
    encoded = encode_row(tokenizer, row)
    whole = new_evaluator(ladder_policy)[0].base_model
    with torch.inference_mode():
        states = whole(torch.tensor([encoded.input_ids]), output_hidden_states=True).hidden_states[1]
        expected = found.score(whole.norm(states[0, list(encoded.segment_ends)])).flatten()
    assert score_rows(found, tokenizer, [row], MARKED)[0] == pytest.approx(expected.tolist(), abs=1e-4)


def test_training_may_follow(ladder_policy: Path, tmp_path: Path) -> None:
    summary = _train(ladder_policy, tmp_path, epochs=1, learning_rate=1e-4)
    probed = _train(ladder_policy, tmp_path / "probed")
    assert summary["updates"] == 4
    assert summary["final_loss"] < 0.5  # from the regression's, not from ln 2
    assert summary["validation_step_auroc"] >= probed["validation_step_auroc"] - 0.05


def test_what_a_regression_cannot_do_is_refused(ladder_policy: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pairs of solutions to learn from"):
        _train(ladder_policy, tmp_path, kind="pairwise")
    with pytest.raises(ValueError, match="no training examples"):
        _train(ladder_policy, tmp_path, max_tokens=8)
    with pytest.raises(ValueError, match="epochs: 0 trains nothing"):
        RewardTraining(epochs=0)
    model = new_evaluator(ladder_policy)[0]
    with pytest.raises(ValueError, match="layers, not 99"):
        keep_lowest_layers(model, 99)
