"""Worker processes for untrusted text, which the parent can always kill.

Why own processes and not a pool from the standard library: there a timed-out task keeps its worker
(verl, AReaL), a signal handler cannot interrupt one long multiplication, and signals do not work off
the main thread. Here one pair is one request on a pipe. A pair may take `cpu_seconds` of its worker's
CPU time (counted by the kernel, so that a busy machine does not change verdicts) and four times that
on the clock, after which the parent kills and replaces the worker.

JSON lines only, no pickle. A worker whose parent is gone leaves by itself.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

CPU_SECONDS = 3.0
MEMORY_BYTES = 1 << 30
_WALL_FACTOR = 4  # the clock limit, for a worker that waits or is starved
_START_SECONDS = 120.0  # importing sympy on a busy machine
_KEPT_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "HOME", "TMPDIR")


class GradingError(RuntimeError):
    """The grading workers cannot run at all (not: a text cannot be graded)."""


class WorkerPool:
    """A few math-verify workers, started on first use; a context manager that leaves none behind."""

    def __init__(
        self, workers: int | None = None, cpu_seconds: float = CPU_SECONDS, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self.size = workers or min(8, len(os.sched_getaffinity(0)))
        self.cpu_seconds = cpu_seconds
        self.memory_bytes = memory_bytes
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill and reap all workers. The pool can be used again afterwards."""
        while self._workers:
            self._workers.pop().kill()

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """`equal`, `different` or `undecided` for each (gold, answer), in order.

        Raises:
            GradingError: a worker cannot start.
        """
        with self._lock:
            try:
                return self._compare(pairs)
            except BaseException:  # a reply left in a pipe would answer the next question
                self.close()
                raise

    def _compare(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        words: dict[int, str] = {}
        waiting = deque(range(len(pairs)))
        while len(words) < len(pairs):
            self._hand_out(waiting, pairs)
            for worker in self._wait_for_news():
                job, word = worker.job, worker.take_word()
                if word is None or job is None:
                    continue  # half a line, or a start that has just ended
                words[job] = word
                if worker.dead:
                    self._workers.remove(worker)
        return [words[i] for i in range(len(pairs))]

    def _hand_out(self, waiting: deque[int], pairs: Sequence[tuple[str, str]]) -> None:
        """Give every idle worker a pair; start workers while there are more pairs than those."""
        for worker in [w for w in self._workers if w.idle]:
            if worker.process.poll() is not None:
                worker.kill()
                self._workers.remove(worker)
            elif waiting:
                job = waiting.popleft()
                worker.send(job, pairs[job], _WALL_FACTOR * self.cpu_seconds)
        starting = sum(not w.ready for w in self._workers)
        while starting < len(waiting) and len(self._workers) < self.size:
            self._workers.append(_Worker(self.cpu_seconds, self.memory_bytes))
            starting += 1

    def _wait_for_news(self) -> list[_Worker]:
        """Workers with something to read or past their deadline."""
        busy = [w for w in self._workers if not w.idle]
        patience = max(0.0, min(w.deadline for w in busy) - time.monotonic())
        readable = set(select.select([w.reader for w in busy], [], [], patience)[0])
        now = time.monotonic()
        return [w for w in busy if w.reader in readable or now >= w.deadline]


class _Worker:
    """One child process. It is starting (`ready` false), idle, or at work on pair number `job`."""

    def __init__(self, cpu_seconds: float, memory_bytes: int) -> None:
        script = Path(__file__).with_name("worker.py")
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(script), str(cpu_seconds), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env=_environment(),
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.writer, self.reader = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.job: int | None = None
        self.ready = False
        self.dead = False
        self.deadline = time.monotonic() + _START_SECONDS
        self._read = b""

    @property
    def idle(self) -> bool:
        return self.ready and self.job is None

    def send(self, job: int, pair: tuple[str, str], seconds: float) -> None:
        """Hand over one pair. A request is far smaller than a pipe, so this does not block."""
        self.job, self.deadline = job, time.monotonic() + seconds
        try:
            os.write(self.writer, json.dumps({"gold": pair[0], "answer": pair[1]}).encode() + b"\n")
        except BrokenPipeError:
            self.deadline = 0.0  # it has just died; the next look finds it so

    def take_word(self) -> str | None:
        """The reply to the pair at work, `undecided` if the worker died or had to be killed over it;
        None while there is no whole reply, and for the end of the start."""
        if not select.select([self.reader], [], [], 0)[0]:
            return self._give_up("no reply in time")
        chunk = os.read(self.reader, 65536)
        if not chunk:
            return self._give_up("it died")
        self._read += chunk
        if not self._read.endswith(b"\n"):
            return None
        word, self._read = str(json.loads(self._read)), b""
        if self.ready:
            self.job = None
            return word
        if word != "ready":
            raise GradingError(
                f"a math-verify worker cannot start: {word}; check that math-verify is installed"
            )
        self.ready = True
        return None

    def kill(self) -> None:
        """End and reap the process; close our ends of its pipes."""
        self.dead = True
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _give_up(self, why: str) -> str:
        self.kill()
        if not self.ready:
            raise GradingError(
                f"a math-verify worker cannot start: {why} (exit status {self.process.returncode})"
            )
        return "undecided"


def _environment() -> dict[str, str]:
    """What a worker needs of our environment: paths, no credentials; fixed hashing, one thread."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return {**kept, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
