"""Cross-validation by problem, and training on kept states of frozen layers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.artifacts.hashing import fingerprint
from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.recipe import PrmReward, RewardTraining
from e2h_pipeline.rewards.folds import OUT_OF_FOLD, folds_of, read_out_of_fold
from e2h_pipeline.rewards.train import train_reward_model
from e2h_pipeline.rewards.validate import score_rows
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.statistics.ranking import auroc

FOLDS = 3


def _rows() -> list[dict[str, Any]]:
    """Two solutions of each of nine problems; a step is right if its result is even."""
    rows = []
    for i in range(18):
        steps = [f"{i % 7}+{j}={(i + 3 * j) % 7}" for j in range(3)]
        rows.append(
            {
                "problem_id": f"p{i // 2}",
                "split": "validation" if i < 4 else "train",
                "question": "1+1",
                "completion": MARKED.completion(steps, "1"),
                "labels": [1.0 - int(step[-1]) % 2 for step in steps] + [-1.0],
                "finished": True,
            }
        )
    return rows


def _train(
    policy: Path,
    folder: Path,
    rows: list[dict[str, Any]],
    reporter: Reporter | None = None,
    **changed: Any,
) -> dict[str, Any]:
    write_table(folder / "labels" / "data.parquet", pa.Table.from_pylist(rows))
    training = RewardTraining(epochs=2, batch_size=4, learning_rate=1e-2, **changed)
    work = Work(folder / "out", folder / "work", 0, reporter or Reporter())
    return train_reward_model(
        policy, {"steps": folder / "labels"}, PrmReward(training=training), MARKED, work
    )


@given(st.sets(st.text(min_size=1), min_size=4, max_size=40), st.integers(2, 4), st.integers(0, 3))
def test_folds_share_out_problems_evenly_and_by_seed_alone(problems: set[str], count: int, seed: int) -> None:
    found = folds_of(sorted(problems), count, seed)
    assert found == folds_of([*problems, *problems], count, seed)
    sizes = np.bincount(list(found.values()), minlength=count)
    assert found.keys() == problems
    assert sizes.max() - sizes.min() <= 1


def test_more_folds_than_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="folds is 4, but only 2 problems"):
        folds_of(["a", "b", "a"], 4, 0)


def test_a_solution_is_judged_by_an_evaluator_that_has_not_seen_its_problem(
    ladder_policy: Path, tmp_path: Path
) -> None:
    rows = _rows()
    summary = _train(ladder_policy, tmp_path, rows, folds=FOLDS)
    judged = read_out_of_fold(tmp_path / "out")
    assert judged is not None
    assert summary["solutions"] == 18  # the kept one is trained on all, validation problems too
    for fold in range(FOLDS):
        others = [{**row, "split": "train"} for row in rows if judged.folds[row["problem_id"]] != fold]
        _train(ladder_policy, tmp_path / str(fold), others)
        model, tokenizer = load_evaluator(tmp_path / str(fold) / "out")
        own = [i for i, row in enumerate(rows) if judged.folds[row["problem_id"]] == fold]
        expected = score_rows(model, tokenizer, [rows[i] for i in own], MARKED)
        assert own
        for i, logits in zip(own, expected, strict=True):
            assert judged.logits["steps"][i] == pytest.approx(logits, abs=1e-4)
    pairs = [
        (logit, label)
        for row, logits in zip(rows, judged.logits["steps"], strict=True)
        for logit, label in zip(logits, row["labels"], strict=True)
        if label >= 0
    ]
    scores, truth = (np.array(column) for column in zip(*pairs, strict=True))
    assert summary["validation_step_auroc"] == auroc(scores, truth > 0.5)


def test_finished_folds_are_not_trained_again(
    ladder_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _train(ladder_policy, tmp_path, _rows(), folds=FOLDS)
    whole = fingerprint(tmp_path / "out")
    trained: list[Any] = []
    from e2h_pipeline.training import trainer

    train = trainer.train
    monkeypatch.setattr(trainer, "train", lambda *a, **k: trained.append(0) or train(*a, **k))
    (tmp_path / "work" / "fold-1.parquet").write_bytes(b"PAR1 torn")
    for checkpoint in tmp_path.glob("work/**/checkpoint-*"):
        for file in sorted(checkpoint.rglob("*"), reverse=True):
            file.unlink()
        checkpoint.rmdir()
    again = tmp_path / "out"
    for file in again.iterdir():
        file.unlink()
    _train(ladder_policy, tmp_path, _rows(), folds=FOLDS)
    assert len(trained) == 2  # the torn fold, and the one that is kept
    assert fingerprint(again) == whole


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from test_folds import KEPT, _rows, _train

class KilledInTheSecondFold(Reporter):
    def message(self, text):
        if "fold 2 of 3" in text:
            os.kill(os.getpid(), signal.SIGKILL)

_train(Path({policy!r}), Path({folder!r}), _rows(), KilledInTheSecondFold(), **KEPT)
"""
KEPT: dict[str, Any] = {"folds": FOLDS, "frozen_layers": 1, "cache_frozen": True}


def test_a_kill_in_a_fold_changes_nothing(
    ladder_policy: Path, tmp_path: Path, kill_midway: Callable[[str], None]
) -> None:
    _train(ladder_policy, tmp_path / "whole", _rows(), **KEPT)
    folder = tmp_path / "killed"
    tests = str(Path(__file__).parent)
    kill_midway(KILLED.format(tests=tests, policy=str(ladder_policy), folder=str(folder)))
    assert (folder / "work" / "fold-0.parquet").is_file()
    assert not (folder / "work" / "fold-1.parquet").exists()
    _train(ladder_policy, folder, _rows(), **KEPT)
    assert fingerprint(folder / "out") == fingerprint(tmp_path / "whole" / "out")


def test_kept_states_of_frozen_layers_train_the_same_evaluator(ladder_policy: Path, tmp_path: Path) -> None:
    plain = _train(ladder_policy, tmp_path / "plain", _rows(), folds=FOLDS, frozen_layers=1)
    kept = _train(ladder_policy, tmp_path / "kept", _rows(), folds=FOLDS, frozen_layers=1, cache_frozen=True)
    assert kept["final_loss"] == pytest.approx(plain["final_loss"], rel=1e-4)
    assert kept["validation_step_auroc"] == pytest.approx(plain["validation_step_auroc"], abs=1e-6)
    first, second = (
        read_table(tmp_path / name / "out" / OUT_OF_FOLD)["step_logits"].to_pylist()
        for name in ("plain", "kept")
    )
    for a, b in zip(first, second, strict=True):
        assert a == pytest.approx(b, abs=1e-3)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"folds": 1}, "one fold leaves nothing"),
        ({"cache_frozen": True}, "no layers are frozen"),
        (
            {"cache_frozen": True, "frozen_layers": 1, "gradient_checkpointing": True},
            "cannot be used together",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        RewardTraining(**changed)
