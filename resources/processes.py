"""Facts from /proc: whether a pid is still the same process, and which step started it.

A pid alone is not enough: after a restart it may belong to another process, so the start time
counts too. Linux only. Elsewhere nothing is known, and an unknown process is never called dead.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resources.supervise import GRACE_SECONDS, descendants

STEP_VARIABLE = "E2H_STEP"  # inherited by all child processes of a step: pid, start time, work folder
_PROC = Path("/proc")
_CLOCK_SLACK = 60.0  # seconds; the clock may have been adjusted


@dataclass(frozen=True)
class StepProcess:
    """A process that some step started.

    Attributes:
        step: pid of the step's process.
        step_alive: whether the step still runs.
        work: the work folder of the step.
    """

    pid: int
    command: str
    step: int
    step_alive: bool
    work: Path


def known() -> bool:
    """Whether this system provides /proc."""
    return (_PROC / "self" / "stat").exists()


def start_ticks(pid: int) -> int | None:
    """Start time in clock ticks since boot; None if the process is gone or a zombie."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def runs_since(pid: int, when: float) -> bool:
    """Whether the process that had this pid at a time (seconds since 1970) still runs."""
    ticks = start_ticks(pid)
    return ticks is not None and _boot_time() + ticks / os.sysconf("SC_CLK_TCK") <= when + _CLOCK_SLACK


def mark_step(work: Path) -> None:
    """Mark all processes that this one starts from now on as belonging to its step."""
    os.environ[STEP_VARIABLE] = f"{os.getpid()}:{start_ticks(os.getpid()) or 0}:{work}"


def step_processes() -> Iterator[StepProcess]:
    """Living processes that steps started; those of other users only with permission."""
    for entry in _PROC.glob("[0-9]*"):
        pid = int(entry.name)
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        marks = [v.decode(errors="replace") for v in variables if v.startswith(STEP_VARIABLE.encode() + b"=")]
        parts = marks[-1].partition("=")[2].split(":", 2) if marks else []
        if len(parts) == 3 and parts[0].isdecimal() and parts[1].isdecimal() and start_ticks(pid) is not None:
            step, ticks = int(parts[0]), int(parts[1])
            yield StepProcess(pid, command, step, start_ticks(step) == ticks, Path(parts[2]))


def end_tree(pid: int, grace: float = GRACE_SECONDS) -> None:
    """SIGTERM to a process and its descendants; SIGKILL to those left after `grace` seconds."""
    wanted = {found: start_ticks(found) for found in (pid, *descendants(pid))}
    _send(wanted, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while _left(wanted) and time.monotonic() < deadline:
        time.sleep(0.05)
    _send(wanted, signal.SIGKILL)


def _left(wanted: dict[int, int | None]) -> list[int]:
    return [pid for pid, ticks in wanted.items() if ticks is not None and start_ticks(pid) == ticks]


def _send(wanted: dict[int, int | None], number: signal.Signals) -> None:
    for pid in _left(wanted):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _boot_time() -> float:
    """Seconds since 1970."""
    for line in (_PROC / "stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0
