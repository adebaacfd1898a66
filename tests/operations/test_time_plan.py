"""`e2h plan`: how long reinforcement learning takes, from runs that were measured on this host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rl_runs
from typer.testing import CliRunner

from e2h_pipeline.artifacts.manifest import Manifest, write_manifest
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.cli.app import app
from e2h_pipeline.cli.plan import show_time
from e2h_pipeline.models.memory import GB, Cards
from e2h_pipeline.operations.time_plan import TimePlan, time_plan
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.rl.speed import SPEED

CPU = Cards(64 * GB, accelerator=False)
KEY = "ladder/rl.updates=10/rl.rollouts=100/rl.max_new_tokens=50"


@pytest.fixture(scope="module")
def speed(
    ladder_evaluator: Path, ladder_tables: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Of a real run of the ladder's base model."""
    options = rl_runs.PPO.model_copy(update={"updates": 2, "epochs": 1})
    folder = tmp_path_factory.mktemp("measured")
    summary = rl_runs.run(options, rl_runs.SHIPPED, ladder_evaluator, ladder_tables, folder)
    return dict(summary[SPEED])


def _remember(home: Path, speed: dict[str, Any], key: str = KEY, name: str = "0" * 16, **fields: Any) -> None:
    """An artifact of a policy in a store."""
    folder = home / "store" / "rl_policy" / name
    folder.mkdir(parents=True)
    recipe = {"rl": Recipe.from_key(key).rl.model_dump(mode="json")}
    known = {"asset": "rl_policy", "key": name, "code_version": "c", "data_version": "d", "files": {}}
    known |= {"created": "2026-12-01T00:00:00+00:00", "experiment": key, "summary": {SPEED: speed}}
    write_manifest(folder, Manifest.model_validate({**known, "recipe": recipe, **fields}))


def _plan(home: Path, key: str = KEY, engine: str = "transformers", cards: Cards = CPU) -> TimePlan | None:
    return time_plan(Recipe.from_key(key), cards, engine, ArtifactStore(home))


def test_a_run_measures_itself(speed: dict[str, Any]) -> None:
    assert (speed["updates"], speed["completions"]) == (2, 2 * rl_runs.PPO.rollouts)
    assert 0 < speed["tokens"] <= speed["completions"] * rl_runs.PPO.max_new_tokens
    parts = [speed[f"{part}_seconds"] for part in ("drawing", "scoring", "learning")]
    assert all(part > 0 for part in parts) and sum(parts) < speed["seconds"]


def test_the_time_by_hand(speed: dict[str, Any], tmp_path: Path) -> None:
    """200 completions of 5,000 tokens in 100 s: 25 tokens each, 50 tokens/s. So 1,000 completions
    take 500 s, and 1,000 s where each has 50 tokens."""
    measured = speed | {"completions": 200, "tokens": 5000, "seconds": 100.0, "drawing_seconds": 40.0}
    _remember(tmp_path, measured)
    _remember(tmp_path, measured | {"seconds": 1e9}, name="1" * 16, created="2026-11-30T00:00:00+00:00")
    found = _plan(tmp_path)
    assert found is not None
    assert (found.seconds, found.at_most) == pytest.approx((500, 1000))
    assert (found.rates["all"], found.rates["drawing"]) == pytest.approx((50, 125))
    assert found.measured == f"2 updates of {KEY}, 2026-12-01"


@pytest.mark.parametrize(
    ("changes", "there"),
    [
        ({}, True),
        ({"key": f"{KEY}/rl.minibatch=20/rl.kl=0.2"}, True),
        ({"key": f"{KEY}/rl.algorithm=grpo"}, False),
        ({"key": f"{KEY}/rl.epochs=2"}, False),
        ({"key": f"{KEY}/rl.lag=1"}, False),
        ({"key": f"{KEY}/rl.lora_rank=4"}, False),
        ({"key": "ladder/rl.algorithm=rest"}, False),
        ({"cards": Cards(64 * GB, accelerator=False, count=2, ranks=2, sharded=True)}, False),
    ],
)
def test_only_runs_of_the_same_work_count(
    changes: dict[str, Any], there: bool, speed: dict[str, Any], tmp_path: Path
) -> None:
    _remember(tmp_path, speed)
    assert (_plan(tmp_path, **changes) is not None) is there


@pytest.mark.parametrize(
    "other", [{"host": "elsewhere"}, {"parameters": 7}, {"engines": 1, "engine": "vllm"}, {"processes": 2}]
)
def test_runs_of_other_circumstances_do_not_count(
    other: dict[str, Any], speed: dict[str, Any], tmp_path: Path
) -> None:
    _remember(tmp_path, speed | other)
    assert _plan(tmp_path) is None


def test_an_engine_counts_only_where_it_draws(
    speed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _remember(tmp_path, speed)
    assert _plan(tmp_path, engine="vllm") is not None
    monkeypatch.setenv("E2H_ROLLOUT_ENGINES", "1")
    assert _plan(tmp_path, engine="vllm") is None


def test_another_device_does_not_count(speed: dict[str, Any], tmp_path: Path) -> None:
    _remember(tmp_path, speed, device="NVIDIA H200")
    assert _plan(tmp_path) is None


def test_the_command_says_the_time(
    speed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2H_HOME", str(tmp_path))
    _remember(tmp_path, speed | {"completions": 200, "tokens": 5000, "seconds": 100.0})
    done = CliRunner().invoke(app, ["plan", KEY], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "rl_policy takes about 8 min 20 s, 16 min 40 s at most" in done.stdout
    named = CliRunner().invoke(app, ["plan", KEY, "--gpu", "80"])  # no speed is known of such a card
    assert named.exit_code == 0 and "rl_policy takes" not in named.stdout


def test_the_command_says_what_measures_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    show_time(KEY, Recipe.from_key(KEY), None)
    told = capsys.readouterr().out
    assert "time not measured here" in told
    assert "e2h run ladder/rl.updates=3/rl.rollouts=100/rl.max_new_tokens=50" in told
    show_time("ladder", Recipe.from_key("ladder/rl.algorithm=rest"), None)
    assert capsys.readouterr().out == ""
