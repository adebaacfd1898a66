import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from e2h_pipeline.artifacts.hashing import data_version, fingerprint
from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.models.base import save_model
from e2h_pipeline.models.load import load_classifier, load_evaluator, load_policy, new_evaluator
from e2h_pipeline.recipe import RewardTraining
from e2h_pipeline.recipe.sections.reward import REWARD
from e2h_pipeline.rewards.examples import step_example
from e2h_pipeline.rewards.scoring import score_solutions
from e2h_pipeline.rewards.train import train_reward_model
from e2h_pipeline.rewards.validate import validate
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.statistics.ranking import auroc
from e2h_pipeline.training.adapters import prepare, whole


def _rows(count: int, split: str) -> list[dict[str, Any]]:
    """A task that one token solves: a step is right if its result is even."""
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
                "completion": MARKED.completion(steps, "1"),
                "labels": labels,
                "outcome": int(i % 3 > 0),
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
    return _train_kind("prm", policy, {"steps": labels}, folder, **changed)


def _train_kind(
    kind: str,
    policy: Path,
    labels: Mapping[str, Path],
    folder: Path,
    reporter: Reporter | None = None,
    **changed: Any,
) -> dict[str, Any]:
    """Train an evaluator; `changed` are fields of its section or of its training."""
    section = REWARD.member(kind)
    own = {name: value for name, value in changed.items() if name in section.model_fields}
    training = {name: value for name, value in changed.items() if name not in own}
    options = section.model_validate(
        {"training": {"epochs": 6, "batch_size": 16, "learning_rate": 1e-2, **training}, **own}
    )
    work = Work(folder / "out", folder / "work", 0, reporter or Reporter())
    return train_reward_model(policy, labels, options, MARKED, work)


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
        score_solutions(model, tokenizer, [("1+1", MARKED.completion([f"1+1={d}"], "1"), True)])[0][0]
        for d in (4, 5)
    )
    assert even > 2
    assert odd < -2


def test_it_starts_at_no_opinion(ladder_policy: Path, labels: Path, tmp_path: Path) -> None:
    """A head of zeros: the first loss is ln 2, whatever the body."""
    summary = _train(ladder_policy, labels, tmp_path, epochs=1, batch_size=160, learning_rate=1e-9)
    assert summary["final_loss"] == pytest.approx(0.693147, abs=1e-4)


def test_the_control_without_pretraining_starts_from_random_weights(
    ladder_policy: Path, labels: Path, tmp_path: Path
) -> None:
    """Its own by seed, the same each time, and none of the model's."""
    drawn = [new_evaluator(ladder_policy, seed)[0].state_dict() for seed in (1, 1, 2)]
    kept = new_evaluator(ladder_policy)[0].state_dict()
    name = next(name for name in kept if name.endswith("q_proj.weight"))
    assert torch.equal(drawn[0][name], drawn[1][name])
    assert not torch.equal(drawn[0][name], drawn[2][name])
    assert not torch.equal(drawn[0][name], kept[name])
    assert drawn[0].keys() == kept.keys()
    summary = _train(ladder_policy, labels, tmp_path, init="random", epochs=1)
    assert summary["solutions"] == 160
    with pytest.raises(ValueError, match="random weights are all trained"):
        RewardTraining(init="random", frozen_layers=1)


def test_frozen_layers_stay_and_the_others_learn(ladder_policy: Path, labels: Path, tmp_path: Path) -> None:
    _train(ladder_policy, labels, tmp_path, epochs=1, frozen_layers=1)
    before, after = new_evaluator(ladder_policy)[0], load_evaluator(tmp_path / "out")[0]
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
    rows[7]["completion"], rows[7]["labels"] = MARKED.completion(["1+1=2"] * 12, "1"), [1] * 13
    write_table(tmp_path / "labels" / "data.parquet", pa.Table.from_pylist(rows))
    limit = max(len(step_example(ladder_tok, row)["input_ids"]) for row in rows[:3])
    summary = _train(ladder_policy, tmp_path / "labels", tmp_path, epochs=1, max_tokens=limit)
    assert (summary["solutions"], summary["dropped"]) == (18, 2)
    assert summary["validation_step_auroc"] is None  # there are no validation problems here


def test_validation_numbers_are_those_of_counting_pairs(ladder_evaluator: Path) -> None:
    model, tokenizer = load_evaluator(ladder_evaluator)
    rows = _rows(12, "validation")
    rows[1] = rows[0]  # equal steps: no ties between right and wrong, but between equals
    summary = validate(ladder_evaluator, {"steps": rows, "outcomes": rows})
    scored = score_solutions(model, tokenizer, [(r["question"], r["completion"], True) for r in rows])
    steps = [
        (logit, label)
        for logits, row in zip(scored, rows, strict=True)
        for logit, label in zip(logits, row["labels"], strict=True)
        if label >= 0
    ]
    ends = [(logits[-1], row["outcome"]) for logits, row in zip(scored, rows, strict=True)]
    for unit, pairs in (("step", steps), ("outcome", ends)):
        right, wrong = ([x for x, label in pairs if label == value] for value in (1, 0))
        wins = sum((r > w) + 0.5 * (r == w) for r in right for w in wrong)
        assert summary[f"validation_{unit}_auroc"] == pytest.approx(wins / (len(right) * len(wrong)))
        accuracy = sum((x > 0) == (label == 1) for x, label in pairs) / len(pairs)
        assert summary[f"validation_{unit}_accuracy"] == pytest.approx(accuracy)
    assert (summary["validation_steps"], summary["validation_solutions"]) == (36, 12)


def test_a_constant_score_is_an_auroc_of_a_half() -> None:
    assert auroc(np.zeros(5), np.array([True, False, True, True, False])) == 0.5


def test_one_class_alone_has_no_auroc(ladder_evaluator: Path) -> None:
    rows = [{**row, "labels": [1, 1, 1, 1]} for row in _rows(3, "validation")]
    assert validate(ladder_evaluator, {"steps": rows})["validation_step_auroc"] is None


# Outcomes, mixes, pairs


def _outcomes(count: int, split: str) -> list[dict[str, Any]]:
    """A solution is right if its answer is even; the last token decides."""
    rng = random.Random(f"outcomes/{split}")
    return [
        {
            "problem_id": f"{split}/{i // 4}",
            "split": split,
            "question": "1+1",
            "completion": MARKED.completion([f"1+1={digit}"], str(digit)),
            "finished": True,
            "outcome": 1 - digit % 2,
        }
        for i in range(count)
        for digit in [rng.randrange(8)]
    ]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outcomes")
    rows = [*_outcomes(160, "train"), *_outcomes(40, "validation")]
    write_table(folder / "data.parquet", pa.Table.from_pylist(rows))
    return folder


@pytest.mark.parametrize("tokens", ["every", "last"])
def test_an_outcome_model_learns(ladder_policy: Path, outcomes: Path, tmp_path: Path, tokens: str) -> None:
    summary = _train_kind("orm", ladder_policy, {"outcomes": outcomes}, tmp_path, tokens=tokens)
    assert summary["kind"] == "orm"
    assert summary["solutions"] == summary["labels"]["outcomes"]["examples"] == 160
    assert (summary["labels"]["outcomes"]["positions"] == 160) == (tokens == "last")
    assert summary["validation_solutions"] == 40
    assert summary["validation_outcome_auroc"] > 0.98
    assert "validation_step_auroc" not in summary


def test_a_mixed_model_learns_both(ladder_policy: Path, labels: Path, outcomes: Path, tmp_path: Path) -> None:
    both = {"steps": labels, "outcomes": outcomes}
    summary = _train_kind("oprm", ladder_policy, both, tmp_path, outcome_share=0.25, tokens="last")
    assert summary["labels"]["steps"]["examples"] == 160
    assert summary["labels"]["outcomes"]["examples"] == 53  # a quarter of 213
    assert summary["validation_step_auroc"] > 0.95
    assert summary["validation_outcome_auroc"] > 0.95


def test_labels_of_little_weight_have_little_say(ladder_policy: Path, outcomes: Path, tmp_path: Path) -> None:
    """Each solution has a copy with flipped labels at a hundredth of the weight; outcomes have no
    weights."""
    rows = _rows(160, "train")
    turned = [{**row, "labels": [1 - x if x >= 0 else x for x in row["labels"]]} for row in rows]
    table = [
        *({**row, "weight": 1.0} for row in [*rows, *_rows(40, "validation")]),
        *({**row, "weight": 0.01} for row in turned),
    ]
    write_table(tmp_path / "labels" / "data.parquet", pa.Table.from_pylist(table))
    both = {"steps": tmp_path / "labels", "outcomes": outcomes}
    summary = _train_kind("oprm", ladder_policy, both, tmp_path, tokens="last", epochs=3)
    assert summary["validation_step_auroc"] > 0.9


@pytest.mark.parametrize("packing", [False, True])
def test_a_pairwise_model_learns(ladder_policy: Path, outcomes: Path, tmp_path: Path, packing: bool) -> None:
    summary = _train_kind(
        "pairwise", ladder_policy, {"outcomes": outcomes}, tmp_path, packing=packing, micro_batch_size=4
    )
    assert summary["pairs"] > 40
    assert summary["labels"]["pairs"]["positions"] == 2 * summary["pairs"]
    assert summary["final_loss"] < 0.1
    assert summary["validation_outcome_auroc"] > 0.98


def test_labels_that_a_kind_needs_must_be_there(ladder_policy: Path, labels: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="oprm needs labels of outcomes"):
        _train_kind("oprm", ladder_policy, {"steps": labels}, tmp_path)


# Adapters, packing, recomputation


def test_adapters_learn_and_are_merged_when_saved(ladder_policy: Path, labels: Path, tmp_path: Path) -> None:
    summary = _train(ladder_policy, labels, tmp_path, lora_rank=4, learning_rate=2e-2)
    assert summary["validation_step_auroc"] > 0.9
    names = set(load_evaluator(tmp_path / "out")[0].state_dict())
    assert names == set(new_evaluator(ladder_policy)[0].state_dict())
    assert not list((tmp_path / "out").glob("adapter*"))
    before, after = (
        model.base_model.state_dict()
        for model, _ in (new_evaluator(ladder_policy), load_evaluator(tmp_path / "out"))
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("_proj" in name for name in changed)


def test_adapters_resume(ladder_policy: Path, labels: Path, tmp_path: Path) -> None:
    """After the last checkpoint nothing is trained again, and the weights are the same."""
    _train(ladder_policy, labels, tmp_path, lora_rank=2, epochs=1)
    first = load_evaluator(tmp_path / "out")[0].state_dict()
    _train(ladder_policy, labels, tmp_path, lora_rank=2, epochs=1)
    second = load_evaluator(tmp_path / "out")[0].state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from test_train import _train_kind
_train_kind(
    "prm", Path({policy!r}), {{"steps": Path({labels!r})}}, Path({folder!r}), SuicidalReporter(13), epochs=2
)
"""


def test_a_killed_training_saves_the_same_folder_to_the_bit(
    ladder_policy: Path, labels: Path, tmp_path: Path, kill_midway: Callable[[str], None]
) -> None:
    whole_run = _train(ladder_policy, labels, tmp_path / "whole", epochs=2)
    folder = tmp_path / "killed"
    tests = str(Path(__file__).parent)
    kill_midway(KILLED.format(tests=tests, policy=str(ladder_policy), labels=str(labels), folder=str(folder)))
    assert not (folder / "out").exists()
    steps = [int(p.name.rsplit("-", 1)[1]) for p in (folder / "work").glob("checkpoint-*")]
    assert max(steps) in (12, 13, 14)  # of 20, in the second epoch
    assert _train(ladder_policy, labels, folder, epochs=2) == whole_run
    first, second = (data_version(fingerprint(tmp_path / name / "out")) for name in ("whole", "killed"))
    assert first == second


def test_frozen_layers_have_no_adapters(ladder_policy: Path, labels: Path, tmp_path: Path) -> None:
    _train(ladder_policy, labels, tmp_path, lora_rank=2, epochs=1, frozen_layers=1)
    before, after = (
        model.base_model.state_dict()
        for model, _ in (new_evaluator(ladder_policy), load_evaluator(tmp_path / "out"))
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("layers.1.") for name in changed)


@pytest.mark.parametrize("kind", ["prm", "orm", "pairwise"])
def test_packing_and_recomputation_change_no_loss(
    ladder_policy: Path, labels: Path, outcomes: Path, tmp_path: Path, kind: str
) -> None:
    """Losses of the whole training agree to 1e-4."""
    both = {"steps": labels, "outcomes": outcomes}
    plain, packed, recomputed = (
        _train_kind(kind, ladder_policy, both, tmp_path / name, epochs=2, learning_rate=1e-3, **changed)[
            "final_loss"
        ]
        for name, changed in (
            ("plain", {}),
            ("packed", {"packing": True, "micro_batch_size": 8}),
            ("recomputed", {"packing": True, "gradient_checkpointing": True}),
        )
    )
    assert packed == pytest.approx(plain, abs=1e-4)
    assert recomputed == pytest.approx(plain, abs=1e-4)


def _curve(policy: Path, labels: Path, folder: Path, **changed: Any) -> list[float]:
    curve: list[float] = []

    class Curve(Reporter):
        def metrics(self, values: Mapping[str, float], step: int) -> None:
            curve.append(values["loss"])

    knobs = {"epochs": 4, "learning_rate": 3e-3, "packing": True, **changed}
    _train_kind("prm", policy, {"steps": labels}, folder, Curve(), **knobs)
    return curve


def test_mixed_precision_keeps_the_loss_and_the_stored_format(
    ladder_policy: Path, labels: Path, tmp_path: Path
) -> None:
    """bfloat16 products of float32 weights: at every update the loss is near the float32 loss, but
    not equal."""
    low = _save_as(torch.bfloat16, ladder_policy, tmp_path / "bfloat16")
    rounded = _save_as(torch.float32, low, tmp_path / "float32")
    plain = _curve(rounded, labels, tmp_path / "plain")
    mixed = _curve(low, labels, tmp_path / "mixed", mixed_precision=True)
    assert mixed != plain
    assert mixed == pytest.approx(plain, rel=0.05)
    assert mixed[:8] == pytest.approx(plain[:8], rel=0.002)  # before differences accumulate
    assert mixed[-1] < 0.5 * mixed[0]
    trained = [load_evaluator(tmp_path / name / "out")[0] for name in ("plain", "mixed")]
    assert [model.dtype for model in trained] == [torch.float32, torch.bfloat16]


def _save_as(dtype: torch.dtype, policy: Path, folder: Path) -> Path:
    model, tokenizer = load_policy(policy)
    save_model(model.to(dtype), tokenizer, folder)
    return folder


def test_adapters_and_shards_exclude_each_other(
    ladder_evaluator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="lora_rank=0"):
        prepare(load_evaluator(ladder_evaluator)[0], RewardTraining.model_validate({"lora_rank": 2}))


def test_gathered_shards_are_what_is_saved(
    ladder_evaluator: Path, ladder_policy: Path, tmp_path: Path
) -> None:
    model, _ = new_evaluator(ladder_policy)
    assert whole(model, tmp_path, load_classifier) is model
    gathered, _ = load_evaluator(ladder_evaluator)
    gathered.save_pretrained(tmp_path / "gathered")
    found = whole(model, tmp_path, load_classifier).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in gathered.state_dict().items())
