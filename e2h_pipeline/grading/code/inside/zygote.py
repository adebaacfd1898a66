"""The process inside the walls from which programs are forked: `python zygote.py ROLE WALLS FOLDER LIMITS`.

It starts once, imports what programs use, gives up its rights, and then makes one process after the other:
each with its own limits and the filter of system calls, in an empty folder. It passes handles on and
never reads what a program writes. It holds no test: a program's memory is a copy of this one's. Tests
that are code have a process of their own, started in the same way (`tester`).

A request is a JSON object with handles: the source, and those that the process shall have. The reply says
how the process ended. The zygote leaves when the other end is closed, and takes its process with it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

LANDLOCK, NAMESPACES, NONE = "landlock", "bubblewrap", "none"
"""Walls between programs and files: made here, made by whoever started this, or none at all."""
PROGRAMS, TESTS = "programs", "tests"
"""Roles: the zygote of programs, and the process of tests."""
KILL = b"k"
CHANNEL = 0  # the socket to whoever started this
_LOOK_SECONDS = 0.2
_BUSY = 0.001  # seconds of CPU time between two looks, without which a process is idle
_LIBRARIES = (
    "array bisect cmath collections copy decimal enum fractions functools heapq io itertools json math operator random"
    " re string time typing"
)
_REQUEST_BYTES = 1 << 16
Limits = dict[str, float]
_SOURCE, _FIRST = 0, 1  # places among the handles of a request


def main(role: str, walls: str, folder: str, limits: str) -> None:
    """Serve requests until the other end is closed."""
    channel = socket.socket(fileno=os.dup(CHANNEL))
    os.dup2(os.open(os.devnull, os.O_RDONLY), CHANNEL)
    try:
        serve = _ready(role, walls, folder, json.loads(limits))
    except OSError as error:
        channel.send(json.dumps({"refused": str(error)}).encode())
        return
    os.write(channel.fileno(), b'{"ready": true}')
    serve(channel)


def _ready(role: str, walls: str, folder: str, limits: Limits) -> Callable[[socket.socket], None]:
    """Everything that needs rights, and then no rights; what serves."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import confine  # type: ignore[import-not-found]
    import program  # type: ignore[import-not-found]
    import seccomp  # type: ignore[import-not-found]
    import tester  # type: ignore[import-not-found]

    del sys.path[0]
    for name in _LIBRARIES.split():
        importlib.import_module(name)
    os.chdir(folder)
    close: Callable[[], None] | None = None
    count_threads = False
    if walls != NONE:
        close = seccomp.closer(seccomp.TESTS if role == TESTS else ())
        count_threads = confine.leave_root(folder)
    if walls == LANDLOCK:
        confine.close_files(folder)
    confine.limit(limits, count_threads)
    if role == TESTS:
        if close:
            close()
        return lambda channel: tester.serve(channel, limits["cpu_seconds"])

    def give_up() -> None:
        confine.limit_cpu(limits["cpu_seconds"])
        if close:
            close()

    program.warm_up()
    gc.collect()
    gc.freeze()
    return _Programs(folder, limits, program.run, give_up).serve


class _Programs:
    """Makes processes, one at a time."""

    def __init__(self, folder: str, limits: Limits, run: Any, give_up: Callable[[], None]) -> None:
        self._folder, self._limits, self._run, self._give_up = folder, limits, run, give_up

    def serve(self, channel: socket.socket) -> None:
        """A process for each request, and a reply when it has ended."""
        while True:
            message, handles, _, _ = socket.recv_fds(channel, _REQUEST_BYTES, 8)
            if not message:
                return
            if message == KILL:  # of a process that had just ended by itself
                continue
            reply = self._one(json.loads(message), handles, channel)
            try:
                channel.send(json.dumps(reply).encode())
            except OSError:
                return

    def _one(self, asked: dict[str, Any], handles: list[int], channel: socket.socket) -> dict[str, Any]:
        """Make a process, see it to its end, empty the folder; how it ended."""
        pid = os.fork()
        if not pid:
            self._child(asked, handles, channel)
        for handle in handles:
            os.close(handle)
        killed = _watch(pid, self._limits, channel, self._folder)
        _, status, used = os.wait4(pid, 0)
        _empty(self._folder)
        return {"status": status, "killed": killed, "cpu": used.ru_utime + used.ru_stime}

    def _child(self, asked: dict[str, Any], handles: list[int], channel: socket.socket) -> None:
        """Never returns."""
        status = 1
        try:
            channel.close()
            source = _text(handles[_SOURCE])
            _take_handles(handles[_FIRST:])
            self._give_up()
            status = self._run(source, asked["entry_point"])
        finally:
            os._exit(status)


def _text(handle: int) -> str:
    size = os.fstat(handle).st_size
    return os.pread(handle, size, 0).decode("utf-8", "replace")


def _take_handles(handles: list[int]) -> None:
    """Standard input, output and the note are the given ones, and no other handle is open."""
    for place, handle in zip((10, 11, 13), handles, strict=True):
        os.dup2(handle, place)
    os.dup2(10, 0)
    os.dup2(11, 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(13, 3)
    os.closerange(4, 1 << 20)


def _watch(pid: int, limits: Limits, channel: socket.socket, folder: str) -> str | None:
    """Wait for the end of a process; kill it at its limits, and say which one."""
    handle = os.pidfd_open(pid)
    waiting = select.poll()
    waiting.register(handle, select.POLLIN)
    waiting.register(channel, select.POLLIN)
    began, before, idle = time.monotonic(), 0.0, 0.0
    try:
        while True:
            news = {found for found, _ in waiting.poll(_LOOK_SECONDS * 1000)}
            if handle in news:
                return None
            cpu = _cpu_seconds(pid)
            idle = idle + _LOOK_SECONDS if cpu - before < _BUSY else 0.0
            before = cpu
            why = "asked" if news else _over(limits, cpu, idle, time.monotonic() - began)
            why = why or ("files" if _size(folder) > limits["folder_bytes"] else None)
            if why:
                os.kill(pid, signal.SIGKILL)
                if why == "asked" and not channel.recv(1):  # the other end is gone
                    os.waitpid(pid, 0)
                    _empty(folder)
                    os._exit(0)
                return why
    finally:
        os.close(handle)


def _over(limits: Limits, cpu: float, idle: float, wall: float) -> str | None:
    if cpu > limits["cpu_seconds"]:
        return "cpu"
    if idle > limits["idle_seconds"]:
        return "idle"
    return "wall" if wall > limits["wall_seconds"] else None


def _cpu_seconds(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the kernel's number for the CPU clock of a process
    except OSError:
        return 0.0


def _size(folder: str) -> int:
    """Bytes of the files of a folder; of those in folders below it too."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                continue
    return total


def _empty(folder: str) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):  # only without walls can a program make one
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)


if __name__ == "__main__":
    main(*sys.argv[1:])
