"""A worker ends with its step, also if the step is killed, together with its processes in other
sessions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import alive

from resources.compute import ComputeResource

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks processes up in /proc")

STEP = """
import sys
from pathlib import Path
import dagster as dg
import toy_stages as toy

with dg.DagsterInstance.ephemeral() as instance:
    toy.materialize(Path(sys.argv[1]), instance, [toy.recipe, toy.toy_endless], mode="subprocess")
"""


def _wait(condition: object, seconds: float) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_whole_tree_dies_with_the_step(tmp_path: Path, how: signal.Signals) -> None:
    notes = tmp_path / "pids"
    environment = {
        **os.environ,
        "TOY_PIDS": str(notes),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]),
    }
    step = subprocess.Popen(
        [sys.executable, "-c", STEP, str(tmp_path)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert _wait(notes.exists, 60)
        body, grandchild = map(int, notes.read_text().split())
        assert alive(body) and alive(grandchild)
        step.send_signal(how)
        step.wait(30)
        assert _wait(lambda: not alive(body) and not alive(grandchild), 20)
    finally:
        step.kill()
        step.wait()


def test_a_command_that_ends_takes_what_it_left_behind_along() -> None:
    script = "import subprocess; p = subprocess.Popen(['sleep', '600'], start_new_session=True); print(p.pid)"
    command = [sys.executable, "-m", "resources.supervise", sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        left_behind = int(holder.stdout.readline())
        assert holder.wait(60) == 0
    assert not alive(left_behind)


def test_the_status_comes_through() -> None:
    command = [sys.executable, "-m", "resources.supervise", sys.executable, "-c", "raise SystemExit(7)"]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert holder.wait(60) == 7
    assert holder.stdin is not None
    holder.stdin.close()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ComputeResource.from_environment().mode == "in_process"
    monkeypatch.setenv("E2H_COMPUTE", "accelerate")
    monkeypatch.setenv("E2H_PROCESSES", "2")
    found = ComputeResource.from_environment()
    assert (found.mode, found.processes, found.accelerate_config) == ("accelerate", 2, "")
    monkeypatch.setenv("E2H_PROCESSES", "two")
    with pytest.raises(ValueError, match="E2H_PROCESSES is 'two'"):
        ComputeResource.from_environment()
