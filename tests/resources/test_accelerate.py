"""Several processes under `accelerate launch`: the same training, one reporter, clear failures, no
survivors."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.solutions import MARKED
from resources.compute import ComputeResource, StageCall, StageOutcome

pytestmark = pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="workers are looked after through /proc"
)


class Heard(Reporter):
    """Keeps reports."""

    def __init__(self) -> None:
        super().__init__(every_seconds=0)
        self.points: list[tuple[int, dict[str, float]]] = []
        self.lines: list[str] = []

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.points.append((step, dict(values)))

    def message(self, text: str) -> None:
        self.lines.append(text)


def run(
    body: str, folder: Path, processes: int, reporter: Reporter | None = None, config: str = ""
) -> StageOutcome:
    """Run a body of `distributed_stages` like a step."""
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    recipe = Recipe(name="toy", description="toy")
    job = StageJob(
        recipe=recipe.slice(["seed"]),
        inputs={},
        work=Work(folder / "out", folder / "work", 0, reporter or Reporter()),
    )
    with tempfile.TemporaryFile() as lock:
        return ComputeResource(mode="accelerate", processes=processes, accelerate_config=config).run(
            StageCall(
                body,
                "distributed_stages",
                job,
                {**recipe.model_dump(mode="json")},
                lock.fileno(),
                distributed=True,
            )
        )


@pytest.fixture(scope="module")
def inputs(ladder_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """31 training and 10 validation solutions, and a tiny policy."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(ladder_policy, folder / "policy")
    rng = random.Random(0)
    rows = []
    for i in range(41):
        digits = [rng.randrange(8) for _ in range(1 + i % 5)]
        rows.append(
            {
                "question": "1+1",
                "completion": MARKED.completion([f"1+1={d}" for d in digits], "2"),
                "labels": [1 - d % 2 for d in digits] + [-1],
                "finished": True,
                "split": "train" if i < 31 else "validation",
            }
        )
    write_table(folder / "labels" / "data.parquet", pa.Table.from_pylist(rows))
    return folder


@pytest.fixture(scope="module")
def alone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone")


@pytest.fixture(scope="module")
def alone(inputs: Path, alone_folder: Path) -> tuple[dict[str, Any], Heard]:
    """The result of one process."""
    heard = Heard()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("E2H_TEST_INPUTS", str(inputs))
        return run("train", alone_folder, 1, heard).summary, heard


def _assert_same_curve(ours: Heard, theirs: Heard, start: int = 1) -> None:
    """Compare eight updates with the other curve from `start` on."""
    assert [step for step, _ in ours.points] == list(range(1, 9))
    assert [step for step, _ in theirs.points] == list(range(start, 9))
    for (_, a), (_, b) in zip(ours.points[start - 1 :], theirs.points, strict=True):
        for name in ("loss", "grad_norm", "learning_rate"):
            assert b[name] == pytest.approx(a[name], rel=1e-3, abs=1e-5), name


def _assert_same_weights(ours: Path, theirs: Path) -> None:
    a, b = (load_file(folder / "out" / "model.safetensors") for folder in (ours, theirs))
    torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_train_as_one_does(
    inputs: Path, alone: tuple[dict[str, Any], Heard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With packed rows here; the test below compares padded ones."""
    monkeypatch.setenv("E2H_TEST_INPUTS", str(inputs))
    monkeypatch.setenv("E2H_TEST_PACKING", "yes")
    both = Heard()
    (one, by_itself), two = alone, run("train", tmp_path, 2, both).summary
    assert one["updates"] == two["updates"] == 8  # ceil(31 / 8) = 4 an epoch
    _assert_same_curve(by_itself, both)
    assert two["validation_step_auroc"] == pytest.approx(one["validation_step_auroc"], abs=0.02)
    assert [line for line in both.lines if line.startswith("8/8 updates")]
    assert "2 processes train together (DistributedType.MULTI_CPU)" in both.lines
    heard = "\n".join(both.lines)
    assert "rank 0 speaks" in heard
    assert "rank 1 speaks" in heard
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.slow
def test_two_processes_resume_where_they_were_killed(
    inputs: Path,
    alone: tuple[dict[str, Any], Heard],
    alone_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("E2H_TEST_INPUTS", str(inputs))
    monkeypatch.setenv("E2H_TEST_KILL_AT", "6")
    with pytest.raises(dg.Failure, match="rank 0 was ended by SIGKILL"):
        run("train", tmp_path, 2)
    assert list((tmp_path / "work").glob("checkpoint-*"))
    monkeypatch.delenv("E2H_TEST_KILL_AT")
    heard = Heard()
    resumed = run("train", tmp_path, 2, heard).summary
    _assert_same_curve(alone[1], heard, start=6)  # not from the start
    assert resumed["updates"] == 8
    assert resumed["final_loss"] == pytest.approx(alone[0]["final_loss"], rel=1e-3)
    _assert_same_weights(alone_folder, tmp_path)


FSDP = str(Path(__file__).parents[2] / "deploy" / "accelerate" / "fsdp.yaml")


@pytest.mark.slow
def test_shards_train_as_a_whole_model_does_and_resume(
    inputs: Path,
    alone: tuple[dict[str, Any], Heard],
    alone_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FSDP2 with the shipped config, killed during training: the same curve and the same saved
    model."""
    monkeypatch.setenv("E2H_TEST_INPUTS", str(inputs))
    monkeypatch.setenv("E2H_TEST_SHARD_ON_CPU", "yes")
    monkeypatch.setenv("E2H_TEST_KILL_AT", "6")
    with pytest.raises(dg.Failure, match="rank 0 was ended by SIGKILL"):
        run("train", tmp_path, 2, config=FSDP)
    monkeypatch.delenv("E2H_TEST_KILL_AT")
    heard = Heard()
    resumed = run("train", tmp_path, 2, heard, config=FSDP).summary
    assert "2 processes train together (DistributedType.FSDP)" in heard.lines
    parts = list((tmp_path / "work" / "checkpoint-8").glob("pytorch_model_fsdp_0/*.distcp"))
    assert len(parts) == 2  # each process held a half
    _assert_same_curve(alone[1], heard, start=6)
    assert resumed["updates"] == 8
    _assert_same_weights(alone_folder, tmp_path)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        p.name for p in (alone_folder / "out").iterdir()
    )


@pytest.mark.slow
def test_reinforcement_learning_in_shards_fails_with_its_own_traceback(
    ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the shipped config, on CPUs too. The other rank waits for the one that failed; it must not
    for long."""
    shutil.copytree(ladder_tables, tmp_path / "inputs")
    shutil.copytree(ladder_evaluator, tmp_path / "inputs" / "evaluator")
    monkeypatch.setenv("E2H_TEST_INPUTS", str(tmp_path / "inputs"))
    heard = Heard()
    with pytest.raises(dg.Failure, match="rank 1: ValueError: cannot report update 3") as caught:
        run("stumbling_rl", tmp_path / "run", 2, heard, config=FSDP)
    assert "distributed_stages.py" in str(caught.value.metadata["traceback"].value)
    assert "2 processes train together, models in shards" in heard.lines
    assert [step for step, _ in heard.points][:3] == [1, 2, 3]
    saved = tmp_path / "run" / "work" / "work" / "update-000002"
    assert len(list(saved.glob("rank-*.safetensors"))) == 2  # each process wrote its part


@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "rest", "dpo"])
def test_every_algorithm_trains_in_several_processes(algorithm: str) -> None:
    import assets.rl_policy  # noqa: F401
    from e2h_pipeline.stages.spec import STAGES

    stage = STAGES["rl_policy"]
    recipe = Recipe.from_key(f"ladder/rl.algorithm={algorithm}").slice(["rl"])
    assert stage.distributed(recipe)


def test_a_launcher_of_ones_own_takes_the_place_of_accelerates(tmp_path: Path) -> None:
    compute = ComputeResource(mode="accelerate", launcher="srun 'a b.sh' --x")
    call = StageCall("toy", "toy", None, {}, 0, distributed=True)  # type: ignore[arg-type]
    assert compute._launcher(call) == ["srun", "a b.sh", "--x"]
    assert compute._launcher(replace(call, distributed=False)) == [sys.executable]


def test_a_failed_rank_shows_its_own_traceback(tmp_path: Path) -> None:
    with pytest.raises(dg.Failure, match=r"broken: .* rank 1: ValueError: bad example in line 7") as caught:
        run("broken", tmp_path, 2)
    traceback = str(caught.value.metadata["traceback"].value)
    assert "distributed_stages.py" in traceback
    assert "bad example in line 7" in traceback


def test_a_killed_rank_is_named(tmp_path: Path) -> None:
    """It leaves no traceback; the errors of the other ranks are not the cause."""
    with pytest.raises(dg.Failure, match=r"killed: .* rank 1 was ended by SIGKILL"):
        run("killed", tmp_path, 2)


STEP = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_accelerate import run
run("endless", Path(sys.argv[1]), 2)
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait(condition: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(condition())


def test_all_ranks_die_with_the_step(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "TOY_PIDS": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)]),
    }
    step = subprocess.Popen(
        [sys.executable, "-c", STEP.format(here=str(Path(__file__).parent)), str(tmp_path / "step")],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        notes = [tmp_path / rank for rank in "01"]
        assert _wait(lambda: step.poll() is not None or all(n.exists() and n.read_text() for n in notes), 90)
        ranks = [int(note.read_text()) for note in notes]
        assert all(map(_alive, ranks))
        step.send_signal(signal.SIGKILL)
        assert _wait(lambda: not any(map(_alive, ranks)), 30)
    finally:
        step.kill()
        step.wait()
