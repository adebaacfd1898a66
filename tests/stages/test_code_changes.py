"""Code edited while a stage starts or runs: the result never gets the version of other code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.artifacts import code_version
from e2h_pipeline.artifacts.code_version import CodeChangedError, code_behind
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.registry import RegistryError
from e2h_pipeline.stages.spec import Stage, narrow
from resources.compute import BODIES, ComputeResource, StageCall

PACKAGE = "e2h_toy_edited"


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
        code_version._held.pop(name, None)
    for remembered in (code_version._scan, code_version._version, code_version._state_of_files):
        remembered.cache_clear()
    code_version._seen.clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a method that imports its maths inside the function, like ours."""
    package = tmp_path / "site" / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "maths.py").write_text("def half(x):\n    return x / 2\n")
    (package / "method.py").write_text(
        f"def method():\n    from {PACKAGE}.maths import half\n    return half(2)\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    _forget()
    yield package
    _forget()


def _edit(folder: Path) -> None:
    path = folder / "maths.py"
    path.write_text(path.read_text().replace("x / 2", "x / 3 + 0"))


@pytest.fixture
def spec(folder: Path) -> Stage:
    """A stage that uses the method."""
    return Stage("toy", "toy", (), ("seed",), False, code_behind(f"{PACKAGE}.method:method"))


def _job(spec: Stage, folder: Path) -> StageJob:
    view = narrow(Recipe.from_key("ladder"), spec.sections)
    return StageJob(view, {}, Work(folder, folder), code_version=spec.version(view, "transformers"))


def _method() -> Callable[[], float]:
    from importlib import import_module

    method: Callable[[], float] = import_module(f"{PACKAGE}.method").method
    return method


def test_an_edit_before_the_code_is_loaded_stops_the_stage(spec: Stage, folder: Path) -> None:
    job = _job(spec, folder)
    _edit(folder)
    with pytest.raises(CodeChangedError, match=r"maths\.py.* was edited .* Run it again"), spec.running(job):
        pytest.fail("the body must not begin")


def test_an_edit_while_it_runs_changes_nothing_of_it(spec: Stage, folder: Path) -> None:
    """All code of the stage is loaded before it begins, also code imported inside functions."""
    job = _job(spec, folder)
    with spec.running(job):
        _edit(folder)
        assert _method()() == 1.0
    assert _job(spec, folder).code_version == job.code_version  # this process still runs the old code


def test_the_next_process_has_another_version(spec: Stage, folder: Path) -> None:
    before = _job(spec, folder).code_version
    _edit(folder)
    _forget()
    assert _job(spec, folder).code_version != before


def test_an_edit_of_what_runs_in_another_process_is_found_at_the_end(
    spec: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker started by name reads its file at its start."""
    monkeypatch.setattr(
        code_version, "_loaded", lambda name: name != f"{PACKAGE}.maths" and name in sys.modules
    )
    job = _job(spec, folder)
    with pytest.raises(CodeChangedError), spec.running(job):
        _edit(folder)


def test_a_worker_process_refuses_other_code_than_that_of_the_key(tmp_path: Path) -> None:
    """The parent process has loaded one version, and the worker would load another."""
    from toy_stages import toy_easy  # registers its body

    name = toy_easy.key.to_user_string()
    recipe = Recipe.from_key("ladder")
    (tmp_path / "out").mkdir()
    (tmp_path / "work").mkdir()
    job = StageJob(
        recipe.slice(["seed", "problems"]),
        {},
        Work(tmp_path / "out", tmp_path / "work", 0),
        code_version="0" * 16,
    )
    with (tmp_path / "lock").open("w") as lock:
        call = StageCall(name, "toy_stages", job, recipe.model_dump(mode="json"), lock.fileno())
        with pytest.raises(Exception, match="was edited while the stage was starting"):
            ComputeResource(mode="subprocess").run(call)
    (note,) = (tmp_path / "work").glob("worker-error-*.json")
    assert "CodeChangedError" in json.loads(note.read_text())["error"]


def test_methods_that_are_not_declared_cannot_be_used(spec: Stage, folder: Path) -> None:
    from e2h_pipeline.registry import ALGORITHMS

    with pytest.raises(RegistryError, match="without saying so"), spec.running(_job(spec, folder)):
        ALGORITHMS.load("ppo")


def test_bodies_run_guarded_in_every_process() -> None:
    import toy_stages  # noqa: F401 - registers bodies

    body: Any = BODIES["toy_easy"]
    assert body.__name__ == "run" and body.__module__ == "e2h_pipeline.stages.asset"
