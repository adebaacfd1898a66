"""Runs generated programs against tests, and says what came of each.

A program is hostile until shown otherwise. It runs behind walls (`walls`), and all that it can send is data:
what it writes, or what its function returns. The comparison is made here, or for tests that are
code in a process of its own, so a program that patches `assert`, ends early, answers every `==` with True
or writes verdicts of its own does not pass: it never holds the expected results, nor a handle on the verdict.

Each lane has a zygote for programs and, if some tests are code, a process for tests. Lanes are threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

from e2h_pipeline.grading.code.behaviour import Probe, canonical
from e2h_pipeline.grading.code.box import Box, BoxGone, Ended, Limits, memory_file, open_box
from e2h_pipeline.grading.code.inside import values
from e2h_pipeline.grading.code.inside.zygote import PROGRAMS, TESTS
from e2h_pipeline.grading.code.suites import (
    Asserts,
    CallCases,
    StdinCases,
    SuiteError,
    from_text,
    same_output,
    same_value,
)
from e2h_pipeline.grading.worker_count import worker_count

PASSED, FAILED, ERROR, TIMEOUT, MEMORY, UNDECIDED = (
    "passed",
    "failed",
    "error",
    "timeout",
    "memory",
    "undecided",
)
_REMEMBERED = 1 << 17
_NOTE_BYTES = 4096
_SHOWN = 300  # characters
_TRIES = 2
_T = TypeVar("_T")


@dataclass(frozen=True)
class TestResult:
    """What the tests say of a program.

    Attributes:
        word: passed, failed, error, timeout, memory or undecided.
        case: the first case that did not pass, from 1; None where all did, or none began.
        detail: what went wrong, for people.
    """

    __test__ = False  # no class of pytest's

    word: str
    case: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        place = "" if self.case is None else f" at case {self.case}"
        return f"{self.word}{place}" + (f": {self.detail}" if self.detail else "")


class Sandbox:
    """A few lanes, each made on first use; a context manager that leaves no process behind.

    Args:
        lanes: how many; one per core, at most 8, where None.
    """

    def __init__(self, lanes: int | None = None, limits: Limits | None = None) -> None:
        self.size = worker_count(lanes)
        self.limits = limits or Limits()
        self._free: SimpleQueue[_Lane] = SimpleQueue()
        self._lanes: list[_Lane] = []
        self._memory: dict[bytes, TestResult] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all zygotes. The sandbox can be used again afterwards."""
        while self._lanes:
            self._lanes.pop().close()
        self._free = SimpleQueue()

    def cpu_seconds(self) -> float:
        """CPU time of all programs and zygotes so far, of boxes that run."""
        return sum(box.cpu_seconds() for lane in self._lanes for box in lane.boxes())

    def check(self, jobs: Sequence[tuple[str, str]]) -> list[TestResult]:
        """The result of each (program, tests as of `suites.to_text`), in order. Each distinct job runs once,
        and not at all if an earlier call had it.

        Raises:
            SandboxError: this host has no walls.
        """
        with self._lock:
            named = [_digest(job) for job in jobs]
            new = {name: job for name, job in zip(named, jobs, strict=True) if name not in self._memory}
            known = {name: self._memory[name] for name in named if name in self._memory}
            known |= dict(zip(new, self._run(list(new.values())), strict=True))
            for name in new:
                self._memory[name] = known[name]
            while len(self._memory) > _REMEMBERED:
                del self._memory[next(iter(self._memory))]
            return [known[name] for name in named]

    def watch(self, jobs: Sequence[tuple[str, Probe]]) -> list[tuple[str | None, ...]]:
        """What each program does on each input of its probe: its output or result as text, None where it fails.

        Raises:
            SandboxError: this host has no walls.
        """
        with self._lock:
            return self._in_lanes(_Lane.watch, jobs)

    def _run(self, jobs: Sequence[tuple[str, str]]) -> list[TestResult]:
        return self._in_lanes(_Lane.test, jobs)

    def _in_lanes(self, do: Callable[..., _T], jobs: Sequence[tuple[Any, ...]]) -> list[_T]:
        """A method of a lane for each job, in order."""
        if not jobs:
            return []
        for _ in range(min(self.size, len(jobs)) - len(self._lanes)):
            self._lanes.append(_Lane(self.limits))
            self._free.put(self._lanes[-1])
        with ThreadPoolExecutor(len(self._lanes)) as threads:
            return list(threads.map(lambda job: self._one(do, job), jobs))

    def _one(self, do: Callable[..., _T], job: tuple[Any, ...]) -> _T:
        lane = self._free.get()
        try:
            return do(lane, *job)
        finally:
            self._free.put(lane)


class _Lane:
    """Tests one program at a time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._boxes: dict[str, Box] = {}

    def close(self) -> None:
        """End its zygotes."""
        while self._boxes:
            self._boxes.popitem()[1].close()

    def boxes(self) -> list[Box]:
        """Those that run."""
        return list(self._boxes.values())

    def test(self, program: str, tests: str) -> TestResult:
        """Run one program; again in new boxes if a zygote was killed from outside."""
        try:
            suite = from_text(tests)
        except SuiteError as error:
            return TestResult(UNDECIDED, detail=str(error))
        for _ in range(_TRIES):
            try:
                if isinstance(suite, StdinCases):
                    return self._stdin(program, suite)
                return (
                    self._calls(program, suite)
                    if isinstance(suite, CallCases)
                    else self._asserts(program, suite)
                )
            except BoxGone:
                self.close()
        return TestResult(UNDECIDED, detail="the sandbox was killed from outside, twice")

    def watch(self, program: str, probe: Probe) -> tuple[str | None, ...]:
        """What a program does on each input; None where it fails."""
        for _ in range(_TRIES):
            try:
                if probe.entry_point is not None:
                    return self._results(program, probe.entry_point, probe.inputs)
                return tuple(self._written(program, given) for given in probe.inputs)
            except BoxGone:
                self.close()
        return (None,) * len(probe.inputs)

    def _written(self, program: str, given: str) -> str | None:
        ended, written, note = self._captured(program, given, None)
        return (
            None
            if _bad_end(ended, note)
            else "\n".join(line.strip() for line in written.strip().splitlines())
        )

    def _results(self, program: str, entry_point: str, inputs: Sequence[str]) -> tuple[str | None, ...]:
        given = "".join(values.to_json([json.loads(arguments), {}]) + "\n" for arguments in inputs)
        replies = self._captured(program, given, entry_point)[1].split("\n")[:-1]
        found = [_result(reply) for reply in replies[: len(inputs)]]
        return (*found, *[None] * (len(inputs) - len(found)))

    def _box(self, role: str) -> Box:
        if role not in self._boxes:
            self._boxes[role] = open_box(role, self._limits)
        return self._boxes[role]

    def _stdin(self, program: str, suite: StdinCases) -> TestResult:
        for number, (given, wanted) in enumerate(suite.cases, start=1):
            ended, written, note = self._captured(program, given, None)
            if bad := _bad_end(ended, note):
                return TestResult(bad[0], number, bad[1])
            if not same_output(written, wanted):
                return TestResult(FAILED, number, f"wrote {_short(written)}, not {_short(wanted)}")
        return TestResult(PASSED) if suite.cases else TestResult(UNDECIDED, detail="no case")

    def _calls(self, program: str, suite: CallCases) -> TestResult:
        if not suite.cases:
            return TestResult(UNDECIDED, detail="no case")
        given = "".join(values.to_json([arguments, {}]) + "\n" for arguments, _ in suite.cases)
        ended, written, note = self._captured(program, given, suite.entry_point)
        replies = written.split("\n")
        for number, (arguments, wanted) in enumerate(suite.cases, start=1):
            if number > len(replies) - 1:  # the last is what follows the last line
                word, detail = _bad_end(ended, note) or (ERROR, "ended before its last call")
                return TestResult(word, number, detail)
            try:
                error, value = values.reply(replies[number - 1])
            except ValueError:
                error, value = "wrote what is no result", None
            if error:
                return TestResult(MEMORY if error.startswith("MemoryError") else ERROR, number, error)
            if not same_value(value, wanted):
                call = f"{suite.entry_point}({', '.join(map(repr, arguments))})"
                return TestResult(FAILED, number, f"{_short(call)} is {_short(value)}, not {_short(wanted)}")
        return TestResult(PASSED)

    def _captured(self, program: str, given: str, entry_point: str | None) -> tuple[Ended, str, str]:
        """Run a program with an input: its end, its output and its note."""
        box = self._box(PROGRAMS)
        with _Handles() as handles:
            given_to = handles.add(memory_file(given))
            output, to_output = handles.pipe()
            note, to_note = handles.pipe()
            box.begin(program, (given_to, to_output, to_note), entry_point)
            handles.close(to_output, to_note)
            return _read(box, output, note, self._limits.output_bytes)

    def _asserts(self, program: str, suite: Asserts) -> TestResult:
        box, tests = self._box(PROGRAMS), self._box(TESTS)
        told = {"entry_point": suite.entry_point, "setup": suite.setup, "code": suite.code}
        with _Handles() as handles:
            calls, to_calls = handles.pipe()
            results, to_results = handles.pipe()
            note, to_note = handles.pipe()
            box.begin(program, (calls, to_results, to_note), suite.entry_point)
            handles.close(calls, to_results, to_note)
            try:
                tests.begin(json.dumps(told), (results, to_calls))
                handles.close(results, to_calls)
                found = tests.receive()
            except BoxGone:  # slower than its limit, as with a huge result
                self._boxes.pop(TESTS).close()
                found = {"verdict": "none"}
            if found["verdict"] != "gone":
                box.kill()
            handles.close(results, to_calls)
            return _judged(found, box.end(), _all(note))


def _judged(found: dict[str, Any], program: Ended, note: str) -> TestResult:
    """What test code says of a program."""
    word, calls = found["verdict"], int(found.get("calls") or 0)
    if word == "none":
        return TestResult(UNDECIDED, detail="the tests themselves took too much time or memory")
    if word == "passed":
        return TestResult(PASSED) if calls else TestResult(UNDECIDED, detail="the tests call nothing")
    if word == "gone":
        bad = _bad_end(program, note) or (ERROR, "it ended while it was asked")
        return TestResult(bad[0], calls or None, bad[1])
    detail = (
        f"with {found['arguments']}: {found['detail']}" if found["detail"] else f"with {found['arguments']}"
    )
    if word == "error" and found["detail"].startswith("MemoryError"):
        word = MEMORY
    return TestResult(word, calls or None, detail[:_SHOWN])


def _result(reply: str) -> str | None:
    """The result of a call as text; None where it failed."""
    try:
        error, value = values.reply(reply)
        return None if error else canonical(value)
    except (ValueError, RecursionError):
        return None


def _bad_end(ended: Ended, note: str) -> tuple[str, str] | None:
    """Word and detail of an end that is no clean exit."""
    if ended.killed in ("cpu", "idle", "wall"):
        return TIMEOUT, {"cpu": "its CPU time", "idle": "it waits", "wall": "its time"}[ended.killed]
    if ended.killed == "files":
        return ERROR, "wrote too much into files"
    if ended.killed:
        return ERROR, "wrote too much"
    if note.startswith("MemoryError"):
        return MEMORY, note
    if os.WIFSIGNALED(ended.status):
        number = os.WTERMSIG(ended.status)
        if number in (signal.SIGXCPU, signal.SIGKILL) and ended.cpu > 1:
            return TIMEOUT, "its CPU time"
        return ERROR, f"ended by {signal.Signals(number).name}"
    if status := os.WEXITSTATUS(ended.status):
        return ERROR, note or f"exit status {status}"
    return None


def _read(box: Box, output: int, note: int, most: int) -> tuple[Ended, str, str]:
    """Both pipes of a process to their ends. One that writes more than `most` bytes is killed."""
    parts: dict[int, list[bytes]] = {output: [], note: []}
    left = {output: most, note: _NOTE_BYTES}
    waiting = [output, note]
    while waiting:
        for pipe in select.select(waiting, [], [])[0]:
            chunk = os.read(pipe, 1 << 16)
            left[pipe] -= len(chunk)
            if not chunk:
                waiting.remove(pipe)
            elif left[pipe] < 0:
                if parts[pipe]:
                    box.kill()
                parts[pipe] = []
            else:
                parts[pipe].append(chunk)
    ended = box.end()
    written, said = (b"".join(parts[pipe]).decode("utf-8", "replace") for pipe in (output, note))
    return ended, written, said


def _all(pipe: int) -> str:
    """A short text to the end of its pipe."""
    parts: list[bytes] = []
    while chunk := os.read(pipe, _NOTE_BYTES):
        if len(parts) < 8:
            parts.append(chunk)
    return b"".join(parts).decode("utf-8", "replace")


class _Handles:
    """Handles that are closed at the end of a block, if not before."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def __enter__(self) -> _Handles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(*self._open)

    def add(self, handle: int) -> int:
        self._open.add(handle)
        return handle

    def pipe(self) -> tuple[int, int]:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        return self.add(reading), self.add(writing)

    def close(self, *handles: int) -> None:
        for handle in handles:
            if handle in self._open:
                self._open.discard(handle)
                os.close(handle)


def _digest(job: tuple[str, str]) -> bytes:
    hashed = hashlib.sha256()
    for text in job:
        data = text.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8) + data)
    return hashed.digest()


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN // 3 else text[: _SHOWN // 3] + "…"
