import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.models.load import load_policy
from e2h_pipeline.training.batches import WEIGHTS, run_model
from e2h_pipeline.training.next_token import IGNORED, next_token_loss
from e2h_pipeline.training.trainer import CURVES, Settings, TrainingStep, train

# 22 examples of different lengths, one without a label
EXAMPLES = [
    {"input_ids": ids, "labels": [IGNORED, *ids[1:]] if i else [IGNORED] * len(ids)}
    for i, ids in enumerate([[3 + (i * j) % 17 for j in range(1, 4 + i % 9)] for i in range(22)])
]
SETTINGS = Settings(epochs=3, batch_size=4, learning_rate=1e-2, warmup=0.2, seed=0)


def _loss(model: PreTrainedModel, batch: Mapping[str, torch.Tensor], step: TrainingStep) -> torch.Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return next_token_loss(logits, batch["labels"], step.total)


class Curve(Reporter):
    """Keeps reported metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[int, dict[str, float]]] = []

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.points.append((step, dict(values)))


def _train(
    policy: Path,
    work: Path,
    settings: Settings = SETTINGS,
    objective: Callable[..., torch.Tensor] = _loss,
    examples: Sequence[Mapping[str, Any]] = EXAMPLES,
    reporter: Reporter | None = None,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    model, tokenizer = load_policy(policy)
    summary = train(
        model.train(),
        examples,
        objective,
        settings,
        tokenizer.pad_token_id,
        Work(work / "out", work, reporter=reporter or Reporter()),
    )
    return model, summary


def _digest(model: PreTrainedModel) -> str:
    """Hash of all weights, to the bit."""
    joined = b"".join(p.detach().numpy().tobytes() for _, p in sorted(model.state_dict().items()))
    return hashlib.sha256(joined).hexdigest()


@pytest.fixture(scope="module")
def uninterrupted(ladder_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _digest(_train(ladder_policy, tmp_path_factory.mktemp("work"))[0])


def test_training_learns_and_tells(ladder_policy: Path, tmp_path: Path) -> None:
    curve = Curve()
    _, summary = _train(ladder_policy, tmp_path, reporter=curve)
    losses = [values["loss"] for _, values in curve.points]
    assert summary["updates"] == 18  # ceil(22 / 4) = 6 an epoch
    assert summary["examples"] == 22
    assert losses[-1] < 0.7 * losses[0]
    assert [step for step, _ in curve.points] == list(range(1, 19))
    rates = [values["learning_rate"] for _, values in curve.points]
    assert max(rates) == pytest.approx(SETTINGS.learning_rate)
    assert rates.index(max(rates)) == pytest.approx(0.2 * 18, abs=1)  # warm-up is a fifth
    assert rates[-1] < 0.1 * SETTINGS.learning_rate


@pytest.mark.parametrize("order", ["group_by_length", "sequential"])
def test_micro_batches_make_the_same_gradient_as_one_batch(
    ladder_policy: Path, tmp_path: Path, order: Any
) -> None:
    """Rows of 3 to 11 tokens: a mean over micro-batch means would differ."""
    whole_curve, parts_curve = Curve(), Curve()
    one_update = Settings(
        epochs=1,
        batch_size=8,
        learning_rate=1e-3,
        warmup=0,
        seed=0,
        max_grad_norm=1e9,
        order=order,
    )
    models = {}
    for name, micro, curve in (("whole", None, whole_curve), ("parts", 2, parts_curve)):
        settings = Settings(**{**one_update.__dict__, "micro_batch_size": micro})
        models[name], _ = _train(
            ladder_policy, tmp_path / name, settings, examples=EXAMPLES[:8], reporter=curve
        )
    (_, whole), (_, parts) = whole_curve.points[0], parts_curve.points[0]
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-5)


def test_the_reported_loss_is_the_mean_over_labelled_tokens(ladder_policy: Path, tmp_path: Path) -> None:
    curve = Curve()
    settings = Settings(epochs=1, batch_size=8, learning_rate=1e-9, warmup=0, seed=0, micro_batch_size=2)
    _train(ladder_policy, tmp_path, settings, examples=EXAMPLES[:8], reporter=curve)
    model, _ = load_policy(ladder_policy)
    nats, tokens = 0.0, 0
    for example in EXAMPLES[:8]:
        ids = torch.tensor([example["input_ids"]])
        with torch.no_grad():
            log_p = model(input_ids=ids).logits[0].log_softmax(-1)
        for t in range(1, ids.shape[1]):
            if example["labels"][t] != IGNORED:
                nats, tokens = nats - log_p[t - 1, ids[0, t]].item(), tokens + 1
    assert curve.points[0][1]["loss"] == pytest.approx(nats / tokens, rel=1e-4)


def test_padding_has_no_say(ladder_policy: Path, tmp_path: Path) -> None:
    """After the end of a row the objective sees -100 and a zero mask."""
    seen: list[dict[str, torch.Tensor]] = []

    def watch(model: PreTrainedModel, batch: dict[str, torch.Tensor], step: TrainingStep) -> torch.Tensor:
        seen.append(batch)
        return _loss(model, batch, step)

    _train(ladder_policy, tmp_path, Settings(1, 8, 1e-3, 0, 0), watch, EXAMPLES)
    rows = 0
    for batch in seen:
        for ids, mask, labels in zip(
            batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
        ):
            length = int(mask.sum())
            assert mask.tolist() == [1] * length + [0] * (len(mask) - length)
            assert (labels[length:] == IGNORED).all()
            assert {"input_ids": ids[:length].tolist(), "labels": labels[:length].tolist()} in EXAMPLES
            rows += 1
        assert int(batch["attention_mask"].sum(1).max()) == batch["input_ids"].shape[1]
    assert rows == len(EXAMPLES)


@pytest.mark.parametrize("order", ["group_by_length", "sequential"])
def test_an_epoch_sees_each_example_once(ladder_policy: Path, tmp_path: Path, order: Any) -> None:
    seen: list[list[int]] = []

    def watch(model: PreTrainedModel, batch: dict[str, torch.Tensor], step: TrainingStep) -> torch.Tensor:
        rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
        seen.extend(ids[: int(mask.sum())].tolist() for ids, mask in rows)
        return _loss(model, batch, step)

    _train(ladder_policy, tmp_path, Settings(2, 4, 1e-3, 0, 0, order=order), watch)
    first, second = seen[: len(EXAMPLES)], seen[len(EXAMPLES) :]
    as_they_come = [example["input_ids"] for example in EXAMPLES]
    assert sorted(first) == sorted(second) == sorted(as_they_come)
    if order == "sequential":
        assert first == second == as_they_come
    else:
        assert first != second  # an order of its own


def test_nothing_to_train_on_is_an_error(ladder_policy: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no training examples: check the data limits"):
        _train(ladder_policy, tmp_path, examples=[])


def test_a_model_that_would_stay_whole_against_the_config_is_an_error(
    ladder_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accelerate ignores FSDP on CPUs without a message."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match=r"asks for FSDP, but .* unset E2H_ACCELERATE_CONFIG"):
        _train(ladder_policy, tmp_path)


def test_fewer_examples_than_a_batch_are_one_update_an_epoch(ladder_policy: Path, tmp_path: Path) -> None:
    _, summary = _train(ladder_policy, tmp_path, Settings(2, 64, 1e-3, 0.2, 0), examples=EXAMPLES[:5])
    assert summary["updates"] == 2


def test_an_objective_knows_where_training_stands(ladder_policy: Path, tmp_path: Path) -> None:
    """It gets the number, progress and labelled positions of the update, also after a stop."""
    seen: dict[int, set[tuple[float, int]]] = {}

    def watch(model: PreTrainedModel, batch: dict[str, torch.Tensor], step: TrainingStep) -> torch.Tensor:
        seen.setdefault(step.number, set()).add((step.progress, int(step.total)))
        return _loss(model, batch, step)

    settings = Settings(1, 4, 1e-3, 0, 0, micro_batch_size=2, order="sequential")
    with pytest.raises(InterruptedError):
        _train(ladder_policy, tmp_path, settings, watch, reporter=Stops(3))
    _train(ladder_policy, tmp_path, settings, watch)
    labelled = [sum(label != IGNORED for label in example["labels"]) for example in EXAMPLES]
    assert seen == {n: {(n / 6, sum(labelled[4 * n : 4 * n + 4]))} for n in range(6)}


@pytest.mark.parametrize("packing", [False, True])
def test_labels_count_by_their_weights(ladder_policy: Path, tmp_path: Path, packing: bool) -> None:
    """Labels 1 and 2 with weights 1 and 3, and different lengths: the mean is 7/4 in one or two
    micro-batches."""

    def mean(model: PreTrainedModel, batch: dict[str, torch.Tensor], step: TrainingStep) -> torch.Tensor:
        chosen = batch["labels"] != IGNORED
        weighted = (batch["labels"] * batch[WEIGHTS])[chosen].sum()
        return weighted / step.total + 0 * run_model(model, batch).logits.sum()

    examples = [
        {
            "input_ids": [3] * (3 + i),
            "labels": [1.0 + i % 2, *[IGNORED] * (2 + i)],
            WEIGHTS: [1.0 + 2 * (i % 2)] * (3 + i),
        }
        for i in range(4)
    ]
    settings = Settings(1, 4, 1e-3, 0, 0, micro_batch_size=1, packing=packing)
    assert _train(ladder_policy, tmp_path, settings, mean, examples)[1]["final_loss"] == pytest.approx(1.75)


# Shares of several processes


@pytest.mark.parametrize(
    ("batch", "micro", "processes", "share"),
    [
        (128, None, 1, (128, 1)),
        (128, 16, 1, (16, 8)),
        (128, 16, 4, (16, 2)),
        (128, 50, 1, (32, 4)),  # the largest that shares the batch evenly
        (8, 16, 2, (4, 1)),
        (7, 4, 1, (1, 7)),
    ],
)
def test_a_batch_is_shared_out(batch: int, micro: int | None, processes: int, share: tuple[int, int]) -> None:
    settings = Settings(1, batch, 1e-3, 0, 0, micro_batch_size=micro)
    assert settings.micro_batch(processes) == share
    assert share[0] * share[1] * processes == batch


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size=9 cannot be shared by 2 processes"):
        Settings(1, 9, 1e-3, 0, 0).micro_batch(2)


# Kill and resume

KILLED = """
import sys
sys.path.insert(0, {tests!r})
from test_trainer import _train
_train(Path({policy!r}), Path({work!r}), reporter=SuicidalReporter({after}))
"""


def test_a_killed_run_ends_with_the_same_weights_to_the_bit(
    ladder_policy: Path, tmp_path: Path, kill_midway: Callable[[str], None], uninterrupted: str
) -> None:
    work = tmp_path / "work"
    script = KILLED.format(
        tests=str(Path(__file__).parent), policy=str(ladder_policy), work=str(work), after=10
    )
    kill_midway(script)  # in update 11 of 18: in epoch 2 of 3, between two checkpoints or at one
    steps = sorted(int(p.name.rsplit("-", 1)[1]) for p in work.glob("checkpoint-*"))
    assert steps
    assert steps[-1] < 18
    model, summary = _train(ladder_policy, work)
    assert summary["updates"] == 18
    assert _digest(model) == uninterrupted


class Stops(Reporter):
    """Ends the run when it reports an update."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def progress(self, done: int, total: int, unit: str, reused: int = 0, tokens: int | None = None) -> None:
        if done >= self._at:
            raise InterruptedError


def test_curves_are_the_same_whenever_a_run_was_stopped(ladder_policy: Path, tmp_path: Path) -> None:
    """114 updates: a report every two updates; checkpoints every tenth of the updates would fall
    between reports."""
    settings = Settings(epochs=19, batch_size=4, learning_rate=1e-3, warmup=0.2, seed=0)
    _train(ladder_policy, tmp_path / "whole", settings)
    for at in (12, 34):
        with pytest.raises(InterruptedError):
            _train(ladder_policy, tmp_path / "stopped", settings, reporter=Stops(at))
        assert list((tmp_path / "stopped").glob("checkpoint-*"))
    _train(ladder_policy, tmp_path / "stopped", settings)
    whole, stopped = (tmp_path / name / "out" / CURVES for name in ("whole", "stopped"))
    assert stopped.read_bytes() == whole.read_bytes()
    points = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [point["update"] for point in points] == list(range(2, 115, 2))
    assert all(point.keys() == {"update", "loss", "gradient_norm", "learning_rate"} for point in points)
    assert points[-1]["loss"] < points[0]["loss"]


def test_a_torn_checkpoint_is_not_believed(ladder_policy: Path, tmp_path: Path, uninterrupted: str) -> None:
    """The result of a kill during a save: truncated files under the final name, without
    `complete`."""
    _train(ladder_policy, tmp_path)
    last, before = tmp_path / "checkpoint-18", tmp_path / "checkpoint-17"
    assert (last / "complete").exists()
    assert (before / "complete").exists()
    (last / "complete").unlink()
    weights = last / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    model, _ = _train(ladder_policy, tmp_path)
    assert _digest(model) == uninterrupted
    assert (last / "complete").exists()  # made again, whole


def test_a_finished_run_that_was_killed_before_its_save_tells_the_same(
    ladder_policy: Path, tmp_path: Path, uninterrupted: str
) -> None:
    _, first = _train(ladder_policy, tmp_path)
    model, second = _train(ladder_policy, tmp_path)
    assert _digest(model) == uninterrupted
    assert second == first
