"""The workers and the page of a sweep, with deaths and damage during the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_experiment import new_home

from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.operations.sweep_runner import SweepEvent, _Crew
from e2h_pipeline.sweeps.learning_curves import Never
from e2h_pipeline.sweeps.spec import Sweep
from e2h_pipeline.sweeps.stop import Judge
from resources.engine import EngineResource

SWEEP = Sweep.model_validate(
    {"name": "two", "recipe": "tiny", "axes": {"seed": [1, 2]}, "select": "recipe", "retries": 0}
)


def test_a_worker_that_is_killed_between_two_members_fails_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = new_home(tmp_path / "e2h")
    monkeypatch.setenv("E2H_HOME", str(home))
    store, engine = ArtifactStore(home), EngineResource()

    def kill_after_the_first(event: SweepEvent) -> None:
        if event.stage is None and event.key == "tiny/seed=1":
            crew._workers[0].process.kill()
            crew._workers[0].process.join()

    crew = _Crew(SWEEP, home, store, engine, kill_after_the_first, Judge(Never(), [], store, engine))
    first, second = crew.run(["tiny/seed=1", "tiny/seed=2"], 1)
    assert (first.computed, first.error, first.attempts) == (["recipe"], None, 1)
    assert (second.computed, second.error, second.attempts) == (["recipe"], None, 1)
