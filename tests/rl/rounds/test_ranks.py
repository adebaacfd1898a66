"""Rounds of two ranks: rank 0 draws and chooses, both train, with whole models or with sharded ones,
and the policy is that of one process."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import rl_runs
from distributed_stages import FSDP2, shard_on_cpu
from gloo_ranks import in_ranks
from rl_runs import Train
from safetensors.torch import load_file
from torch.testing import assert_close

from e2h_pipeline.artifacts.shards import LocalRunner
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.sample_pool import Drawing
from e2h_pipeline.generation.search.independent import Independent
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import RoundsRl, Sampling
from e2h_pipeline.rl.rounds.own_process import OwnProcess, for_drawing

_ONE = {"rounds": 1, "epochs": 2, "probe_questions": 20, "learning_rate": 3e-4}
RUNS: dict[str, RoundsRl] = {
    "rest": rl_runs.REST.model_copy(update=_ONE),
    "dpo": rl_runs.DPO.model_copy(update=_ONE),
}
POLICY = Path("work/round-01/policy/model.safetensors")


@pytest.fixture(scope="module")
def train(ladder_evaluator: Path, ladder_tables: Path) -> Train:
    return rl_runs.trainer(RUNS, ladder_evaluator, ladder_tables)


@pytest.fixture(scope="module")
def two_ranks(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two ranks; ReST-EM's model is sharded."""
    folder = tmp_path_factory.mktemp("two-ranks")

    def sharded() -> None:
        os.environ |= FSDP2
        shard_on_cpu()
        train("rest", folder / "rest")

    assert in_ranks(2, sharded) == [0, 0]
    assert in_ranks(2, partial(train, "dpo", folder / "dpo")) == [0, 0]
    return folder


def _curve(run: Path) -> dict[str, float]:
    [line] = (run / "out" / "curves.jsonl").read_text().splitlines()
    found: dict[str, float] = json.loads(line)
    return found


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_train_as_one_process_does(
    name: str, train: Train, two_ranks: Path, tmp_path: Path
) -> None:
    train(name, tmp_path)
    together = two_ranks / name
    assert _curve(together) == pytest.approx(_curve(tmp_path), rel=1e-4, abs=1e-5)
    assert _curve(together)["chosen"] % RUNS[name].batch_size  # blanks fill up the last batch
    alone, trained, before = (
        load_file(file) for file in (tmp_path / POLICY, together / POLICY, rl_runs.SHIPPED / POLICY.name)
    )
    assert_close(trained, alone, rtol=0, atol=1e-5)
    assert any(not tensor.equal(before[key]) for key, tensor in trained.items())
    files = [{path.name for path in (run / "out").iterdir()} for run in (together, tmp_path)]
    assert files[0] == files[1]


def test_the_ranks_go_on_after_a_kill_as_if_nothing_had_happened(
    train: Train, two_ranks: Path, tmp_path: Path
) -> None:
    def work() -> None:
        train("dpo", tmp_path, rl_runs.Killer("round_1/loss", 2) if os.environ["RANK"] == "0" else None)

    assert in_ranks(2, work) == [-signal.SIGKILL, 1]  # rank 1 has an error of its own
    assert (tmp_path / "work/round-01/training/checkpoint-1").is_dir()
    assert in_ranks(2, partial(train, "dpo", tmp_path)) == [0, 0]
    undisturbed = two_ranks / "dpo"
    for file in [*undisturbed.glob("out/*"), undisturbed / POLICY]:
        assert (tmp_path / file.relative_to(undisturbed)).read_bytes() == file.read_bytes(), file


def test_a_batch_that_ranks_cannot_share_is_refused_before_anything_is_drawn(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="cannot be shared by 3 processes"):
        train("rest", tmp_path)
    assert not (tmp_path / "work").exists()


# Engines that cannot draw in a rank


def _surroundings(drawing: Drawing, *names: str) -> pa.Table:
    """A shard: variables of the process that makes it, and what it was told to draw."""
    found = {name: [os.environ.get(name)] for name in names}
    return pa.table(found | {"domain": [drawing.domain.name]})


def test_another_engine_than_the_embedded_draws_in_a_process_that_is_no_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(tmp_path, tmp_path, engine="vllm")
    assert for_drawing(work) == work  # in one process
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("E2H_ENGINE", "vllm")
    assert isinstance(for_drawing(work).runner, OwnProcess)
    assert isinstance(for_drawing(replace(work, engine="transformers")).runner, LocalRunner)
    drawing = Drawing(tmp_path, LADDER, Sampling(), "test", Independent())
    names = ("WORLD_SIZE", "MASTER_ADDR", "E2H_ENGINE")
    [(name, table)] = OwnProcess().run(_surroundings, [("one", (drawing, *names))])
    expected = {"WORLD_SIZE": None, "MASTER_ADDR": None, "E2H_ENGINE": "vllm", "domain": "ladder"}
    assert (name, table.to_pylist()) == ("one", [expected])
