"""Run a command whose processes all end with the step: `python -m resources.supervise COMMAND...`.

The step holds the other end of our standard input. When the step ends in any way (`kill -9`
included), the kernel closes that pipe and we end every descendant: SIGTERM, a grace period,
SIGKILL. Launchers such as torchrun start their workers in new sessions, so a process group is not
enough: we register as the reaper of orphans (Linux), and find processes by descent. If we are killed
ourselves, the kernel ends our child (`die_with_parent`); workers and rollout engines ask for the same.

Standard library only: it must start fast and stay small beside a training run.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

GRACE_SECONDS = 5.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PROC = Path("/proc")


def main(command: list[str]) -> int:
    """Run `command` to its end, or until standard input closes; return its exit status."""
    _adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: None)  # we must outlive the others to end them
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, pass_fds=_inherited(), preexec_fn=die_with_parent
    )
    threading.Thread(target=_end_at_eof, daemon=True).start()
    status = child.wait()
    end_descendants()
    return status if status >= 0 else 128 - status


def die_with_parent() -> None:
    """From here on `kill -9` of the parent ends this process too (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def end_descendants(grace: float = GRACE_SECONDS) -> None:
    """SIGTERM to all descendants, then SIGKILL to those left after `grace` seconds."""
    _signal(signal.SIGTERM)
    deadline = time.monotonic() + grace
    while descendants(os.getpid()) and time.monotonic() < deadline:
        time.sleep(0.05)
    while descendants(os.getpid()):
        _signal(signal.SIGKILL)
        time.sleep(0.05)


def descendants(root: int) -> list[int]:
    """Living descendants of `root`, without itself and without zombies."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if entry.name.isdigit() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _parent(entry: Path) -> int | None:
    """Parent of a process; None if it is gone or a zombie. Names may hold spaces, brackets."""
    try:
        state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return int(parent) if state != "Z" else None


def _signal(number: signal.Signals) -> None:
    for pid in descendants(os.getpid()):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    if not _PROC.is_dir():  # descent is unknown: signal the process group, ourselves included
        os.killpg(0, number)


def _end_at_eof() -> None:
    while os.read(0, 4096):  # not sys.stdin, whose lock would be held at interpreter shutdown
        continue
    end_descendants()


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _inherited() -> tuple[int, ...]:
    """Locks of the artifact being made and of its cards, kept as long as one of our processes
    lives; and the socket of a rollout engine."""
    variables = ("E2H_LOCK_FD", "E2H_CARD_FDS", "E2H_ENGINE_FD")
    named = [os.environ.get(name, "") for name in variables]
    return tuple(int(handle) for handles in named for handle in handles.split(",") if handle)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
