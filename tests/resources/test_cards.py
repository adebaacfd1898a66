"""Cards: no two stages hold one, and none holds half of what it needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

import pytest

from e2h_pipeline.artifacts.locks import lock_is_held
from resources import cards
from resources.cards import ALL, VISIBLE, Taken, taken, visible_cards
from resources.compute import ComputeResource

CARDS = ["0", "1", "2", "GPU-3/1"]
ROOT = Path(__file__).resolve().parents[2]

# Takes two cards for a worker under `resources.supervise`, and tells the worker's pid.
_STEP = """
import os, subprocess, sys
from pathlib import Path
from resources.cards import taken

with taken(["0", "1", "2"], 2, Path(sys.argv[1])) as found:
    worker = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
    environment = {**os.environ, **found.environment()}
    command = [sys.executable, "-m", "resources.supervise", *worker]
    subprocess.Popen(command, env=environment, pass_fds=found.handles, stdin=subprocess.PIPE).wait()
"""


def held(folder: Path) -> list[str]:
    return [card for card in CARDS if lock_is_held(folder / f"card-{card.replace('/', '_')}.lock")]


@pytest.mark.parametrize(
    ("wanted", "names"), [(1, "0"), (3, "0,1,2"), (4, "0,1,2,GPU-3/1"), (ALL, "0,1,2,GPU-3/1")]
)
def test_a_stage_sees_the_cards_that_it_holds(tmp_path: Path, wanted: int, names: str) -> None:
    with taken(CARDS, wanted, tmp_path) as found:
        assert found.environment()[VISIBLE] == names
        assert held(tmp_path) == names.split(",")
    assert held(tmp_path) == []


def test_a_host_without_cards_has_nothing_to_wait_for(tmp_path: Path) -> None:
    with taken([], 8, tmp_path) as found:
        assert found == Taken() and found.environment() == {}


def test_visible_cards_are_those_that_people_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_DEVICES", tmp_path)
    monkeypatch.setenv(VISIBLE, "0")
    assert visible_cards() == []  # a host without a GPU
    for number in range(3):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
    assert visible_cards() == ["0"]
    monkeypatch.setenv(VISIBLE, "2, GPU-7")
    assert visible_cards() == ["2", "GPU-7"]
    for nothing in ("", "-1"):
        monkeypatch.setenv(VISIBLE, nothing)
        assert visible_cards() == []
    monkeypatch.delenv(VISIBLE)
    assert visible_cards() == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("compute", "distributed", "wanted"),
    [
        (ComputeResource(), True, 1),
        (ComputeResource(mode="subprocess", processes=8), True, 1),
        (ComputeResource(mode="accelerate", processes=8), True, 8),
        (ComputeResource(mode="accelerate", processes=8), False, 1),
        (ComputeResource(mode="ray", processes=8, ray_address="10.0.0.1:6379"), True, 8),
        (ComputeResource(mode="ray", ray_address="10.0.0.1:6379"), True, 1),
        (ComputeResource(mode="ray"), False, ALL),
    ],
)
def test_a_stage_wants_a_card_for_each_process(
    compute: ComputeResource, distributed: bool, wanted: int
) -> None:
    assert compute.cards(distributed) == wanted


def test_of_stages_that_compete_no_two_share_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads will do: a lock belongs to an open file, not to a process."""
    monkeypatch.setattr(cards, "_LOOK_SECONDS", 0.001)
    wanted = [3, 2, 1, 3, 2, 4, 1, 1]
    start, using = Barrier(len(wanted)), Counter[str]()
    most: list[int] = []

    def stage(count: int) -> list[str]:
        start.wait()
        with taken(CARDS, count, tmp_path) as own:
            using.update(own.names)
            time.sleep(0.01)
            most.append(max(using.values()))
            using.subtract(own.names)
            return list(own.names)

    with ThreadPoolExecutor(len(wanted)) as pool:
        found = list(pool.map(stage, wanted))
    assert [len(names) for names in found] == wanted
    assert most == [1] * len(wanted)
    assert held(tmp_path) == []


def test_a_stage_that_waits_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_LOOK_SECONDS", 0.001)
    said = []
    with ExitStack() as other:
        other.enter_context(taken(CARDS, 2, tmp_path))

        def told(message: str) -> None:
            said.append(message)
            assert held(tmp_path) == CARDS[:2]  # the other's
            other.close()

        with taken(CARDS, 3, tmp_path, told) as found:
            assert found.names == ("0", "1", "2")
    assert said == ["waits for 3 free GPUs of 4"]


@pytest.mark.parametrize("killed", ["step", "supervisor"])
def test_cards_are_free_when_the_last_process_has_ended(tmp_path: Path, killed: str) -> None:
    step = subprocess.Popen(
        [sys.executable, "-c", _STEP, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert step.stdout
    worker = int(step.stdout.readline())
    assert held(tmp_path) == ["0", "1"]
    supervisor = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(step.pid if killed == "step" else supervisor, signal.SIGKILL)
    step.stdout.read()  # until the worker has ended
    step.wait()
    deadline = time.monotonic() + 60
    while held(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert held(tmp_path) == []
