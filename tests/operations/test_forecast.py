"""What `e2h run --dry-run` says: times of runs like it, and what is missing, before anything is run."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from tiny_experiment import e2h, new_home

from e2h_pipeline.operations.forecast import StageForecast, forecast
from e2h_pipeline.orchestration.planning import selection
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.stages.spec import STAGES, narrow

STAGE = "rl_policy"


def _made(home: Path, key: str, seconds: float, device: str = "cpu") -> None:
    """What a run of the stage leaves in the store, as far as a forecast reads it."""
    recipe = Recipe.from_key(key)
    slices: Mapping[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
        STAGE: narrow(recipe, STAGES[STAGE].sections).as_dict(),
    }
    for asset, values in slices.items():
        folder = home / "store" / asset / recipe.digest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        made = {"experiment": key, "recipe": values, "wall_seconds": seconds, "device": device}
        (folder / "manifest.json").write_text(json.dumps(made))


def _told(home: Path, key: str, device: str = "cpu") -> StageForecast:
    (found,) = forecast(key, home, selection(STAGE), device).stages
    return found


def test_a_time_is_that_of_the_nearest_runs_with_the_same_model_and_problems(tmp_path: Path) -> None:
    selection(STAGE)  # fills STAGES
    home = tmp_path / "home"
    assert _told(home, "ladder").seconds is None
    _made(home, "ladder/rl.updates=9", 100)
    _made(home, "ladder/rl.updates=9/seed=1", 300)  # a seed takes no time
    _made(home, "ladder/rl.kl=0.3/rl.updates=9", 7)  # further away
    _made(home, "ladder/base.dtype=bfloat16", 3)  # another number format
    _made(home, "ladder/seed=2", 5, device="H200")
    found = _told(home, "ladder/rl.updates=8/seed=5")
    assert (found.seconds, found.reckoned) == (200, "median of 2 runs; differs: rl.updates")
    found = _told(home, "ladder/seed=5", "H200")
    assert (found.seconds, found.reckoned) == (5, "ladder/seed=2")
    assert _told(home, "gsm8k-0.5b").seconds is None
    (home / "store" / STAGE / "damaged").mkdir()
    (home / "store" / STAGE / "damaged" / "manifest.json").write_text("{")
    assert _told(home, "ladder/seed=5", "H200").seconds == 5


def test_data_and_models_that_are_missing_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of 7 billion weights is not asked for: the Hub is only knocked at."""
    monkeypatch.delenv("E2H_DATA_DIR", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        found = forecast("llemma-7b", tmp_path / "home", None, "cpu")
    assert any(
        "'EleutherAI/llemma_7b' is not on this machine: it will be downloaded" in n for n in found.notes
    )
    assert any("no GPU" in note for note in found.notes)
    assert [why.partition(":")[0] for why in found.missing] == [
        "problems.source is math, but there is no data",
        "no PRM800K labels",
        "no PRM800K labels",
    ]
    away = forecast("llemma-7b", tmp_path / "home", selection("base_model"), "cpu")
    assert len(away.missing) == 1 and "127.0.0.1 does not answer" in away.missing[0]
    assert "hf download EleutherAI/llemma_7b" in away.missing[0]
    snapshot = tmp_path / "cache" / "models--EleutherAI--llemma_7b" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    (snapshot / "config.json").write_text("{}")
    assert forecast("llemma-7b", tmp_path / "home", selection("base_model"), "cpu").missing  # no weights
    (snapshot / "model.safetensors").write_text("")
    assert not forecast("llemma-7b", tmp_path / "home", selection("base_model"), "cpu").missing
    assert not (tmp_path / "home").exists()


def test_the_command_writes_nothing_and_its_status_says_whether_it_could_run(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home", empty=True)
    told = e2h(home, "run", "tiny", "--dry-run", "--json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["missing"] == [] and all(not stage["reused"] for stage in found["stages"])
    missing = e2h(home, "run", "gsm8k-0.5b/problems.path=nowhere", "--dry-run", "--select", "problem_source")
    assert missing.returncode == 1 and "missing" in missing.stdout and "nowhere" in missing.stderr
    assert sorted(path.name for path in home.iterdir()) == ["recipes"]
