"""Two ranks train as one process does: the same draws, curves and weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import rl_runs
from gloo_ranks import in_ranks
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from e2h_pipeline.recipe import OnlineRl

# Larger steps let rounding grow: one process with other passes then differs by 7e-4 too.
SLOW = {"learning_rate": 3e-4}
RUNS: dict[str, OnlineRl] = {
    "ppo": rl_runs.STATEFUL.model_copy(update={**SLOW, "value_learning_rate": 3e-4}),
    "grpo": rl_runs.GRPO.model_copy(update=SLOW),
}
LAST = Path("work/update-000005")
Train = Callable[[str, Path], None]


@pytest.fixture(scope="module")
def train(ladder_evaluator: Path, ladder_tables: Path) -> Train:
    """Make a run into a folder."""

    def run(name: str, folder: Path) -> None:
        rl_runs.run(RUNS[name], rl_runs.SHIPPED, ladder_evaluator, ladder_tables, folder)

    return run


@pytest.fixture(scope="module")
def alone(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of one process."""
    folder = tmp_path_factory.mktemp("alone")
    for name in RUNS:
        train(name, folder / name)
    return folder


@pytest.fixture(scope="module")
def two_ranks(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two ranks."""
    folder = tmp_path_factory.mktemp("two-ranks")

    def work() -> None:
        for name in RUNS:
            train(name, folder / name)

    assert in_ranks(2, work) == [0, 0]
    return folder


def _policy(run: Path) -> dict[str, Tensor]:
    return load_file(run / LAST / "policy" / "model.safetensors")


def _curves(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "out" / "curves.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_train_as_one_process_does(name: str, alone: Path, two_ranks: Path) -> None:
    ours, theirs = _curves(two_ranks / name), _curves(alone / name)
    assert len(ours) == len(theirs) == 5
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=2e-4, abs=1e-5)
    before = load_file(rl_runs.SHIPPED / "model.safetensors")
    after = _policy(alone / name)
    assert any((before[key] - after[key]).abs().max() > 5e-4 for key in before)  # it learned
    assert_close(_policy(two_ranks / name), after, rtol=0, atol=1e-5)
