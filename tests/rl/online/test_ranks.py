"""Two ranks train as one process does, with whole models and with sharded ones: the same draws, curves
and weights. A run goes on with another number of ranks."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import rl_runs
import torch
from gloo_ranks import in_ranks
from rl_runs import Train
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from e2h_pipeline.recipe import OnlineRl

# Larger steps let rounding grow: one process with other passes then differs by 7e-4 too.
SLOW = {"learning_rate": 3e-4}
ADAPTERS = {"lora_rank": 2}
PPO = rl_runs.STATEFUL.model_copy(update={**SLOW, "value_learning_rate": 3e-4, "value_warmup_updates": 1})
GRPO = rl_runs.GRPO.model_copy(update=SLOW)
RUNS: dict[str, OnlineRl] = {
    "ppo": PPO,
    "grpo": GRPO,
    "ppo-lora": PPO.model_copy(update=ADAPTERS),
    "grpo-lora": GRPO.model_copy(update=ADAPTERS),
}
WAYS = {"replicated": "false", "sharded": "true"}
# Algorithm, adapters and way are independent: these are half of the combinations.
PAIRS = (("ppo", "sharded"), ("grpo", "replicated"), ("ppo-lora", "replicated"), ("grpo-lora", "sharded"))
LAST = Path("work/update-000005")


@pytest.fixture(scope="module")
def train(ladder_evaluator: Path, ladder_tables: Path) -> Train:
    return rl_runs.trainer(RUNS, ladder_evaluator, ladder_tables)


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

    for name, way in PAIRS:
        assert _run(2, way, partial(train, name, folder / name)) == [0, 0]
    return folder


def _run(count: int, way: str, work: Callable[[], None]) -> list[int]:
    def asked() -> None:
        os.environ["ACCELERATE_USE_FSDP"] = WAYS[way]
        work()

    return in_ranks(count, asked)


def _state(run: Path) -> dict[str, Tensor]:
    """All weights that learned, and their moments, of the last checkpoint."""
    parts = [load_file(file) for file in sorted((run / LAST).glob("rank-*.safetensors"))]
    names = {name for part in parts for name in part}
    found = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: torch.cat(own) if own[0].dim() else own[0] for name, own in found.items()}


def _curves(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "out" / "curves.jsonl").read_text().splitlines()]


def _assert_same(ours: Path, theirs: Path) -> None:
    """The same curves and weights, to 1e-5."""
    mine, other = _curves(ours), _curves(theirs)
    assert len(mine) == len(other) == 5
    for a, b in zip(mine, other, strict=True):
        assert a == pytest.approx(b, rel=2e-4, abs=1e-5)
    assert_close(_state(ours), _state(theirs), rtol=1e-3, atol=1e-5)
    files = [{p.name for p in (run / "out").iterdir()} for run in (ours, theirs)]
    assert files[0] == files[1]
    policies = [load_file(run / "out" / "model.safetensors") for run in (ours, theirs)]
    assert_close(*policies, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_two_ranks_train_as_one_process_does(name: str, way: str, alone: Path, two_ranks: Path) -> None:
    _assert_same(two_ranks / name, alone / name)
    assert len(list((two_ranks / name / LAST).glob("rank-*"))) == (2 if way == "sharded" else 1)


@pytest.mark.parametrize("name", RUNS)
def test_these_runs_learn(name: str, alone: Path) -> None:
    """Otherwise equal weights would prove nothing."""
    moments = {key: value for key, value in _state(alone / name).items() if key.endswith("/exp_avg")}
    assert all(moment.any() for moment in moments.values())
    assert {key.partition("/")[0] for key in moments} == (
        {"policy", "critic"} if "ppo" in name else {"policy"}
    )


@pytest.fixture(scope="module")
def killed(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sharded run of two ranks. Rank 1 was killed in update 4, after the checkpoint of update 2."""
    folder = tmp_path_factory.mktemp("killed")

    def work() -> None:
        train("ppo", folder, rl_runs.Killer("kl", 4) if os.environ["RANK"] == "1" else None)

    assert _run(2, "sharded", work) == [1, -signal.SIGKILL]  # rank 0 has an error of its own
    assert [path.name for path in (folder / "work").glob("update-*")] == ["update-000002"]
    return folder


def test_the_ranks_go_on_after_a_kill_as_if_nothing_had_happened(
    killed: Path, train: Train, two_ranks: Path, tmp_path: Path
) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    torn = tmp_path / "work" / ".update-000004.tmp"
    torn.mkdir(exist_ok=True)
    (torn / "rank-00000.safetensors").write_bytes(b"half")
    assert _run(2, "sharded", partial(train, "ppo", tmp_path)) == [0, 0]
    undisturbed = two_ranks / "ppo"
    for file in [*undisturbed.glob("out/*"), *(undisturbed / LAST).rglob("*.safetensors")]:
        assert (tmp_path / file.relative_to(undisturbed)).read_bytes() == file.read_bytes(), file


@pytest.mark.parametrize(("count", "way"), [(1, "replicated"), (3, "sharded")])
def test_another_number_of_ranks_goes_on(
    count: int, way: str, killed: Path, train: Train, alone: Path, tmp_path: Path
) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    assert _run(count, way, partial(train, "ppo", tmp_path)) == [0] * count
    _assert_same(tmp_path, alone / "ppo")
