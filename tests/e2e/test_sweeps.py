"""A sweep in real processes: shared stages are made once, a failed member does not stop the
others."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import e2h, new_home, start

pytestmark = pytest.mark.slow

SWEEP = """
description: two policies under two names each, and one that has nothing to train on
recipe: tiny
axes:
  sft.max_tokens: [700, 701, 8]
  evaluation.samples: [2, 3]
exclude: [{sft.max_tokens: 8, evaluation.samples: 3}]
select: "+sft_policy"
retries: 1
"""
# Members share every stage that reads equal fields. Only `recipe` reads all fields.
SHARED = (
    "base_model",
    "problem_source",
    "easy_problems",
    "hard_questions",
    "benchmark_questions",
    "easy_solutions",
)
DISTINCT = {**dict.fromkeys(SHARED, 1), "sft_policy": 2, "recipe": 5}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = new_home(tmp_path_factory.mktemp("sweep") / "e2h")
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "pairs.yaml").write_text(SWEEP)
    return folder


def outcomes(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return list(json.loads(done.stdout[done.stdout.index("[\n") :]))


def test_shared_stages_are_computed_once_by_processes_at_the_same_moment(home: Path) -> None:
    done = e2h(home, "sweep", "pairs", "--workers", "2", "--json")
    assert done.returncode == 1
    assert "1 of 5 members failed, the first is tiny/evaluation.samples=2/sft.max_tokens=8" in done.stderr
    found = outcomes(done)
    assert Counter(stage for outcome in found for stage in outcome["computed"]) == DISTINCT
    failed = [outcome for outcome in found if outcome["error"]]
    assert len(failed) == 1
    assert failed[0]["attempts"] == 2
    assert "no training examples" in failed[0]["error"]
    in_store = {asset: len(list((home / "store" / asset).iterdir())) for asset in DISTINCT}
    assert in_store == DISTINCT


def test_a_second_launch_computes_nothing(home: Path) -> None:
    found = outcomes(e2h(home, "sweep", "pairs", "--json"))
    assert len(found) == 1  # only the member that failed
    assert not found[0]["computed"]


def test_the_status_says_which_member_failed_and_why(home: Path) -> None:
    rows = json.loads(e2h(home, "sweep", "pairs", "--status", "--json").stdout)
    assert Counter(row["state"] for row in rows) == {"made": 4, "failed": 1}
    assert "no training examples" in next(row["error"] for row in rows if row["state"] == "failed")
    done = e2h(home, "sweep", "pairs", "--status")
    page = Path(done.stdout.split()[-1])
    assert page == home / "reports" / "sweep-pairs.html"
    assert "no training examples" in page.read_text()


def test_workers_end_with_the_command(home: Path) -> None:
    """A killed command leaves no worker, and the next run continues."""
    (home / "sweeps" / "long.yaml").write_text("recipe: tiny/base.updates=4000\naxes: {seed: [1, 2]}\n")
    started = start(home, "sweep", "long", "--workers", "2")
    workers: set[int] = set()
    deadline = time.monotonic() + 120
    while len(workers) < 2 and time.monotonic() < deadline:
        workers = _workers_of(home)
        time.sleep(0.2)
    started.kill()
    started.join()
    assert len(workers) == 2
    assert (home / "reports" / "sweep-long.html").is_file()  # although no member has ended
    while _workers_of(home) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _workers_of(home)


def _workers_of(home: Path) -> set[int]:
    """Worker processes of sweeps in a home folder: they write to its logs."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            out = os.readlink(process / "fd" / "1")
        except OSError:
            continue
        if out.startswith(str(home / "logs")):
            found.add(int(process.name))
    return found
