"""Worker processes for untrusted text, which the parent can always kill.

Why own processes and not a pool from the standard library: there a timed-out task keeps its worker
(verl, AReaL), a signal handler cannot interrupt one long multiplication, and signals do not work off
the main thread. Here one pair is one request on a pipe. A pair may take `cpu_seconds` of its worker's
CPU time, counted by the kernel, so that a busy machine does not change verdicts. The clock decides
nothing: the parent waits for a worker that computes, however slowly, and for one that starts slowly.
It kills a worker only if that has used no CPU time at all for `hang_seconds`. While there is plenty of
work a second pair waits in the pipe of each worker, so that no worker waits for the parent.

What a worker computes is a *task*: a module that the worker loads by its file and the parent never
imports (`e2h_pipeline.grading.tasks`). Callers name it by its exact module name, which code versions
take for an import. Only graders that use a task name it, so an edit of a task re-makes nothing that
other graders have graded.

JSON lines only, no pickle. A worker whose parent is gone leaves by itself.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from e2h_pipeline.grading.worker_count import worker_count

WORKER = "e2h_pipeline.grading.worker"
"""The script of the child processes. Code versions take this name for an import of it."""
CPU_SECONDS = 3.0
MEMORY_BYTES = 1 << 30
HANG_SECONDS = 600.0
"""Without any CPU time, while this process looks on: a worker that is stopped or waits forever."""
_LOOK_SECONDS = 5.0  # between two looks at the CPU time of a silent worker
_MAX_REQUEST_BYTES = 30_000  # less than a pipe holds, so that writing does not block
_KEPT_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "HOME", "TMPDIR")

Reply = tuple[str, float]
"""`equal`, `different` or `undecided`, and the milliseconds of CPU time that the worker took."""


class GradingError(RuntimeError):
    """The grading workers cannot run at all (not: a text cannot be graded)."""


class WorkerPool:
    """A few workers, started on first use; a context manager that leaves none behind.

    Every worker can do every task; it imports what a task needs when that is first asked for.

    Args:
        workers: how many; one per core, at most 8, where None.
        cpu_seconds: CPU time a pair may take before it is undecided.
        memory_bytes: memory of a worker.
        hang_seconds: how long a worker may be silent without using CPU time.
    """

    def __init__(
        self,
        workers: int | None = None,
        cpu_seconds: float = CPU_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        self.size = worker_count(workers)
        self.cpu_seconds = cpu_seconds
        self.memory_bytes = memory_bytes
        self.hang_seconds = hang_seconds
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

    def compare(self, pairs: Sequence[tuple[str, str]], task: str) -> list[str]:
        """`equal`, `different` or `undecided` for each (gold, answer), in order; see `compare_timed`."""
        return [word for word, _ in self.compare_timed(pairs, task)]

    def compare_timed(self, pairs: Sequence[tuple[str, str]], task: str) -> list[Reply]:
        """A word and the time it took for each (gold, answer), in order.

        Args:
            task: module name of what compares; see `worker` for what the module must have.

        Raises:
            GradingError: a worker cannot start, or there is no such task.
        """
        with self._lock:
            try:
                return self._compare(pairs, task)
            except BaseException:  # a reply left in a pipe would answer the next question
                self.close()
                raise

    def _compare(self, pairs: Sequence[tuple[str, str]], task: str) -> list[Reply]:
        requests = [_request(pair) for pair in pairs]
        too_long = [i for i, request in enumerate(requests) if len(request) > _MAX_REQUEST_BYTES]
        replies: dict[int, Reply] = dict.fromkeys(too_long, ("undecided", 0.0))
        waiting = deque(i for i in range(len(pairs)) if i not in replies)
        while len(replies) < len(pairs):
            self._hand_out(waiting, requests, task)
            for worker in self._wait_for_news():
                replies.update(worker.take_replies())
                if worker.dead:
                    waiting.extendleft(reversed(worker.jobs))  # it never began those
                    self._workers.remove(worker)
        return [replies[i] for i in range(len(pairs))]

    def _hand_out(self, waiting: deque[int], requests: Sequence[bytes], task: str) -> None:
        """Keep every worker at work; start workers while there are more pairs than those that start."""
        for worker in [w for w in self._workers if w.idle]:
            if worker.process.poll() is not None:
                worker.kill()
                self._workers.remove(worker)
            elif waiting and worker.task != task:
                worker.prepare(task)
        for depth in (1, 2):
            for worker in self._workers:
                if not waiting or (depth == 2 and not _may_wait(waiting, requests, self.size)):
                    break
                if worker.ready and len(worker.jobs) < depth:
                    job = waiting.popleft()
                    worker.send(job, requests[job])
        starting = sum(not w.ready for w in self._workers)
        while starting < len(waiting) and len(self._workers) < self.size:
            worker = _Worker(self.cpu_seconds, self.memory_bytes, self.hang_seconds)
            self._workers.append(worker)
            worker.prepare(task)
            starting += 1

    def _wait_for_news(self) -> list[_Worker]:
        """Workers with something to read, or that hang."""
        busy = [w for w in self._workers if not w.idle]
        patience = min(_LOOK_SECONDS, self.hang_seconds / 4)
        readable = set(select.select([w.reader for w in busy], [], [], patience)[0])
        return [w for w in busy if w.reader in readable or w.hangs()]


class _Worker:
    """One child process. It gets ready for a `task`, is idle, or is at work on the first of `jobs`."""

    def __init__(self, cpu_seconds: float, memory_bytes: int, hang_seconds: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", _file_of(WORKER), str(cpu_seconds), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env=_environment(),
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.writer, self.reader = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.task: str | None = None
        self.ready = False
        self.dead = False
        self.jobs: deque[int] = deque()
        self._cpu_seconds, self._hang_seconds = cpu_seconds, hang_seconds
        self._silent, self._looked = 0.0, time.monotonic()
        self._ticks: int | None = -1
        self._read = b""

    @property
    def idle(self) -> bool:
        return self.ready and not self.jobs

    def prepare(self, task: str) -> None:
        """Have it import what the task needs, outside any pair's time."""
        self.task, self.ready = task, False
        self._seen()
        self._write(json.dumps({"task": _file_of(task)}).encode() + b"\n")

    def send(self, job: int, request: bytes) -> None:
        """Hand over one pair."""
        self.jobs.append(job)
        self._seen()
        self._write(request)

    def hangs(self) -> bool:
        """Whether it has said nothing and used no CPU time for too long, or has died.

        A look counts no more seconds than there are between looks, so that time in which this process
        was stopped, with its workers, does not count.
        """
        ticks, now = _cpu_ticks(self.process.pid), time.monotonic()
        if ticks != self._ticks:
            self._seen()
        self._silent += min(now - self._looked, _LOOK_SECONDS)
        self._looked, self._ticks = now, ticks
        return ticks is None or self._silent >= self._hang_seconds

    def _seen(self) -> None:
        self._silent, self._looked = 0.0, time.monotonic()

    def take_replies(self) -> list[tuple[int, Reply]]:
        """The replies that have come in. The first job is `undecided` if the worker died or had to be
        killed over it; those behind it stay in `jobs`."""
        if not select.select([self.reader], [], [], 0)[0]:
            return self._give_up("it hangs")
        chunk = os.read(self.reader, 65536)
        if not chunk:
            return self._give_up("it died")
        *lines, self._read = (self._read + chunk).split(b"\n")
        replies = []
        for line in lines:
            if self.ready:
                word, ms = json.loads(line)
                replies.append((self.jobs.popleft(), (str(word), float(ms))))
                self._seen()
            else:
                self._take_start(json.loads(line))
        return replies

    def kill(self) -> None:
        """End and reap the process; close our ends of its pipes."""
        self.dead = True
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _write(self, line: bytes) -> None:
        with suppress(BrokenPipeError):  # it has just died: its pipe reads as ended at the next look
            os.write(self.writer, line)

    def _take_start(self, word: str) -> None:
        if word != "ready":
            raise GradingError(f"a worker for {self.task} cannot start: {word}; check that it is installed")
        self.ready = True

    def _give_up(self, why: str) -> list[tuple[int, Reply]]:
        self.kill()
        if not self.ready:
            raise GradingError(
                f"a worker for {self.task} cannot start: {why} (exit status {self.process.returncode})"
            )
        return [(self.jobs.popleft(), ("undecided", 1000 * self._cpu_seconds))]


def _cpu_ticks(pid: int) -> int | None:
    """CPU time of a process in clock ticks; None if it has ended."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[11]) + int(fields[12])


def _file_of(module: str) -> str:
    """Where a module lies. Its packages are imported, the module itself is not.

    Raises:
        GradingError: there is no such module.
    """
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # its package is not there
        spec = None
    if spec is None or spec.origin is None:
        raise GradingError(
            f"no module {module} for grading workers; check that its package is installed whole"
        )
    return spec.origin


def _may_wait(waiting: deque[int], requests: Sequence[bytes], workers: int) -> bool:
    """Whether the next pair may lie in a pipe: not the last ones, which go where there is time, and
    nothing that could fill the pipe of a busy worker."""
    return len(waiting) > workers and len(requests[waiting[0]]) <= select.PIPE_BUF


def _request(pair: tuple[str, str]) -> bytes:
    text = json.dumps({"gold": pair[0], "answer": pair[1]}, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def _environment() -> dict[str, str]:
    """What a worker needs of our environment: paths, no credentials; fixed hashing, one thread."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return {**kept, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
