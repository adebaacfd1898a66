import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.recipe import RewardTraining
from e2h_pipeline.reporter import Reporter
from e2h_pipeline.rewards.prm import prm_example, train_prm, validate
from e2h_pipeline.rewards.scoring import score_solutions
from e2h_pipeline.solutions import encode, format_completion
from e2h_pipeline.training.objectives import IGNORED

ROW = {
    "question": "1+2*2",
    "completion": "1+2=3\n\n3*2=5\n\n# Answer\n\n5",
    "labels": [1, 0, -1],
    "finished": True,
}


def test_labels_stand_on_the_last_token_of_their_segment_only(ladder_tok: PreTrainedTokenizerFast) -> None:
    example = prm_example(ladder_tok, ROW)
    assert {i: x for i, x in enumerate(example["labels"]) if x != IGNORED} == {15: 1.0, 21: 0.0}
    assert list(example["input_ids"]) == list(encode(ladder_tok, "1+2*2", ROW["completion"]).input_ids)


def test_training_and_scoring_look_at_the_same_positions(tok: PreTrainedTokenizerFast) -> None:
    for finished in (True, False):
        row = {**ROW, "labels": [1, 1, 1], "finished": finished}
        example = prm_example(tok, row)
        encoded = encode(tok, row["question"], row["completion"], finished=finished)
        assert [i for i, x in enumerate(example["labels"]) if x != IGNORED] == list(encoded.segment_ends)


def test_a_label_too_few_is_an_error(ladder_tok: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="zip"):
        prm_example(ladder_tok, {**ROW, "labels": [1, 0]})


def _rows(count: int, split: str) -> list[dict[str, Any]]:
    """A task that a look at one token solves: a step is right where its result is even."""
    rng = random.Random(split)
    rows = []
    for i in range(count):
        steps = [f"{rng.randrange(7)}+{rng.randrange(7)}={rng.randrange(7)}" for _ in range(3)]
        labels = [1 - int(step[-1]) % 2 for step in steps] + [-1]
        rows.append(
            {
                "problem_id": f"{split}/{i}",
                "level": 1,
                "sample": 0,
                "split": split,
                "question": "1+1",
                "completion": format_completion(steps, "1"),
                "labels": labels,
                "finished": True,
            }
        )
    return rows


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    write_table(
        folder / "data.parquet", pa.Table.from_pylist([*_rows(160, "train"), *_rows(40, "validation")])
    )
    return folder


def _train(policy: Path, labels: Path, folder: Path, **changed: Any) -> dict[str, Any]:
    options = RewardTraining.model_validate({"epochs": 6, "batch_size": 16, "learning_rate": 1e-2, **changed})
    return train_prm(policy, labels, folder / "out", folder / "work", options, 0, Reporter())


def test_an_evaluator_learns_a_task_that_one_token_tells(
    ladder_policy: Path, labels: Path, tmp_path: Path
) -> None:
    summary = _train(ladder_policy, labels, tmp_path)
    assert summary["solutions"] == 160
    assert summary["dropped"] == 0
    assert summary["final_loss"] < 0.1  # from ln 2
    assert summary["validation_steps"] == 120
    assert summary["validation_step_auroc"] > 0.98
    assert summary["validation_step_accuracy"] > 0.95
    model, tokenizer = load_evaluator(tmp_path / "out")
    even, odd = (
        score_solutions(model, tokenizer, [("1+1", format_completion([f"1+1={d}"], "1"), True)])[0][0]
        for d in (4, 5)
    )
    assert even > 2
    assert odd < -2


def test_it_starts_at_no_opinion(ladder_policy: Path, labels: Path, tmp_path: Path) -> None:
    """A head of zeros: the first loss is ln 2, whatever the body."""
    summary = _train(ladder_policy, labels, tmp_path, epochs=1, batch_size=160, learning_rate=1e-9)
    assert summary["final_loss"] == pytest.approx(0.693147, abs=1e-4)


def test_frozen_layers_stay_and_the_others_learn(ladder_policy: Path, labels: Path, tmp_path: Path) -> None:
    _train(ladder_policy, labels, tmp_path, epochs=1, frozen_layers=1)
    before, after = (load_evaluator(folder)[0] for folder in (ladder_policy, tmp_path / "out"))
    changed = {
        name
        for name, tensor in before.base_model.state_dict().items()
        if not torch.equal(tensor, after.base_model.state_dict()[name])
    }
    assert changed
    assert all(name.startswith(("layers.1.", "norm.")) for name in changed)
    assert any(name.startswith("layers.1.") for name in changed)


def test_long_and_unlabelled_solutions_are_dropped_and_counted(
    ladder_policy: Path, ladder_tok: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows = _rows(20, "train")
    rows[3]["labels"] = [-1, -1, -1, -1]
    rows[7]["completion"], rows[7]["labels"] = format_completion(["1+1=2"] * 12, "1"), [1] * 13
    write_table(tmp_path / "labels" / "data.parquet", pa.Table.from_pylist(rows))
    limit = max(len(prm_example(ladder_tok, row)["input_ids"]) for row in rows[:3])
    summary = _train(ladder_policy, tmp_path / "labels", tmp_path, epochs=1, max_tokens=limit)
    assert (summary["solutions"], summary["dropped"]) == (18, 2)
    assert summary["validation_step_auroc"] is None  # there are no validation problems here


def test_validation_numbers_are_those_of_counting_pairs(ladder_evaluator: Path) -> None:
    model, tokenizer = load_evaluator(ladder_evaluator)
    rows = _rows(12, "validation")
    rows[1] = rows[0]  # equal steps: ties between right and wrong cannot come up, between equals they do
    summary = validate(model, tokenizer, rows)
    solutions = [(r["question"], r["completion"], True) for r in rows]
    pairs = [
        (logit, label)
        for logits, row in zip(score_solutions(model, tokenizer, solutions), rows, strict=True)
        for logit, label in zip(logits, row["labels"], strict=True)
        if label >= 0
    ]
    right, wrong = ([x for x, label in pairs if label == value] for value in (1, 0))
    wins = sum((r > w) + 0.5 * (r == w) for r in right for w in wrong)
    assert summary["validation_steps"] == len(pairs) == 36
    assert summary["validation_step_auroc"] == pytest.approx(wins / (len(right) * len(wrong)))
    accuracy = sum((x > 0) == (label == 1) for x, label in pairs) / 36
    assert summary["validation_step_accuracy"] == pytest.approx(accuracy)


def test_a_constant_score_is_an_auroc_of_a_half(ladder_policy: Path) -> None:
    model, tokenizer = load_evaluator(ladder_policy)
    model.score.weight.data.zero_()
    assert validate(model, tokenizer, _rows(5, "validation"))["validation_step_auroc"] == 0.5


def test_one_class_alone_has_no_auroc(ladder_evaluator: Path) -> None:
    rows = [{**row, "labels": [1, 1, 1, 1]} for row in _rows(3, "validation")]
    assert validate(*load_evaluator(ladder_evaluator), rows)["validation_step_auroc"] is None
