"""A home: made once whoever comes first, with its databases inside, and readable without writing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import toy_stages as toy
from read_only import python_without_writing
from tiny_experiment import e2h, environment

from e2h_pipeline.artifacts.home import HomeError, home
from e2h_pipeline.orchestration.instance import open_instance
from resources.mlflow_sender import MlflowSender
from resources.tracking import NAME, local_database, make_database

ROOT = Path(__file__).resolve().parents[2]
TOGETHER = 4

# The first thing that a process does in a home, at the moment when the parent closes the pipe.
_FIRST = """
import sys
from pathlib import Path
from e2h_pipeline.orchestration.instance import open_instance
from resources.tracking import make_database

home = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
with open_instance(home) as instance:
    instance.add_dynamic_partitions("experiment", [sys.argv[2]])
if sys.argv[3]:
    make_database(home)
"""


def test_first_processes_that_come_together_make_one_home(tmp_path: Path) -> None:
    place = tmp_path / "e2h"
    keys = [f"toy/seed={seed}" for seed in range(TOGETHER)]
    first = [
        subprocess.Popen(
            [sys.executable, "-c", _FIRST, str(place), key, "tracked" if key in keys[:2] else ""],
            env=environment(place) | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for key in keys
    ]
    for process in first:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in first:
        assert process.stdin
        process.stdin.close()
    errors = [process.stderr.read() if process.stderr else "" for process in first]
    assert [process.wait(timeout=120) for process in first] == [0] * len(first), errors
    with open_instance(place) as instance:
        assert sorted(instance.get_dynamic_partitions("experiment")) == keys
        assert {pool.name for pool in instance.event_log_storage.get_pool_limits()} >= {"cpu", "gpu"}
    assert (place / "mlflow.db").exists()


@pytest.mark.parametrize("name", ["50%", "what?", "a#b", "%2e%2e", "two\nlines", "caf\udce9"])
def test_a_home_whose_path_leads_databases_elsewhere_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2H_HOME", str(tmp_path / name))
    with pytest.raises(HomeError, match=r"E2H_HOME .* contains .*; choose a path without it"):
        home()


def test_a_command_says_so_in_one_line(tmp_path: Path) -> None:
    done = e2h(tmp_path / "50%", "results")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and "contains '%'" in done.stderr


@pytest.mark.parametrize(
    "name", ["my home", "höme 家", "a+b=c&d;e", "x@y:z", "(1) [2] {3} $HOME", "'\"", "file:x", "-n"]
)
def test_all_databases_of_an_odd_home_are_inside_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / name / "e2h"
    monkeypatch.setenv("E2H_HOME", str(place))
    monkeypatch.chdir(tmp_path)
    assert home() == place
    with open_instance(place) as instance:
        instance.add_dynamic_partitions("experiment", [toy.KEY])
        resources = toy.resources(place)
        assert dg.materialize(
            [toy.recipe], instance=instance, partition_key=toy.KEY, resources=resources
        ).success
    assert (place / "dagster" / "history" / "runs.db").is_file()
    assert (place / "dagster" / "history" / "runs" / "index.db").is_file()
    assert (place / "dagster" / "schedules" / "schedules.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


_READ = """
import os
from e2h_pipeline.artifacts.home import home
from e2h_pipeline.orchestration.instance import open_to_read

assert not os.access(home(), os.W_OK)
with open_to_read(home()) as instance:
    print(*instance.get_dynamic_partitions("experiment"), end="")
"""


@pytest.mark.parametrize("live", [False, True], ids=["quiet", "written elsewhere at the moment"])
def test_a_home_that_can_only_be_read_is_read(tmp_path: Path, live: bool) -> None:
    with open_instance(tmp_path) as instance:
        index = tmp_path / "dagster" / "history" / "runs" / "index.db"
        holder = sqlite3.connect(index if live else ":memory:")  # SQLite keeps its log while one is connected
        holder.execute("select 1 from sqlite_master").fetchall()
        instance.add_dynamic_partitions("experiment", ["toy"])
        assert index.with_name("index.db-wal").exists() == live
        assert python_without_writing(tmp_path, _READ) == "toy"
        holder.close()


def test_an_empty_home_that_can_only_be_read_is_one_error(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['e2h', 'results']\nfrom e2h_pipeline.cli.app import main\n"
    code += "sys.stderr = sys.stdout\ntry:\n    main()\nexcept SystemExit as done:\n    assert done.code == 1"
    said = python_without_writing(tmp_path, code)
    assert said == f"e2h: {tmp_path} can only be read, and nothing was ever run in it\n"


def test_mlflow_keeps_to_an_odd_home_too(tmp_path: Path) -> None:
    place = tmp_path / "höme & (1) @x:y" / "e2h"
    make_database(place)
    sender = MlflowSender(local_database(place), place, NAME)
    page = tmp_path / "page.html"
    page.write_text("<p>")
    opening = {"kind": "open", "tracking_id": "1", "name": "n", "experiment": "e", "time": 0}
    sender.apply({**opening, "tags": {}, "params": {}, "inputs": []})
    sender.apply({"kind": "page", "path": str(page)})
    assert (place / "mlflow.db").is_file()
    assert len(list((place / "mlflow-artifacts").rglob("page.html"))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["höme & (1) @x:y", "page.html"]
