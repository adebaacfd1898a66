"""The process of the tests that are code themselves, as of HumanEval and MBPP: asserts about a function.

The function here only passes arguments on to the program, which runs in another process and sends
back plain data. The program never sees these asserts, and cannot change what they say. One process
runs the tests of many programs, each in names of its own: tests come with the problems, and are no
model's.
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import socket
import sys
from functools import lru_cache
from types import CodeType
from typing import Any, NoReturn

import values  # type: ignore[import-not-found]  # beside this file, which runs as a plain script

_LONGEST_RESULT = 1 << 22
_SHOWN = 300  # characters


class ProgramGone(BaseException):
    """The program ended before it answered: no test may catch that."""


class ProgramError(Exception):
    """The program raised."""


class Candidate:
    """A function that asks the program, through two pipes."""

    def __init__(self, results: int, calls: int) -> None:
        self._results, self._calls = os.fdopen(results, "r"), os.fdopen(calls, "w")
        self.calls = 0
        self.last = ""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """What the program returns for these arguments."""
        self.calls += 1
        line = values.to_json([list(arguments), named])
        self.last = ", ".join([*map(_shown, arguments), *(f"{k}={_shown(v)}" for k, v in named.items())])
        try:
            self._calls.write(line + "\n")
            self._calls.flush()
        except OSError:
            self._gone()
        reply = self._results.readline(_LONGEST_RESULT)
        if not reply.endswith("\n"):
            self._gone()
        try:
            error, value = values.reply(reply)
        except ValueError:
            self._gone()
        if error:
            raise ProgramError(error)
        return value

    def close(self) -> None:
        """The program sees the end of its calls."""
        for file in (self._calls, self._results):
            try:
                file.close()
            except OSError:
                continue

    def _gone(self) -> NoReturn:
        raise ProgramGone


def serve(channel: socket.socket, cpu_seconds: float) -> None:
    """Run tests until the other end is closed. Each message is a JSON object, with the handles of the tests
    and of both pipes. What is slower than `cpu_seconds` ends this process."""
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(), io.StringIO(), io.StringIO()
    while True:
        message, handles, _, _ = socket.recv_fds(channel, 1 << 10, 8)
        if not message:
            return
        tests, results, calls = handles
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # default action of SIGPROF: the process ends
        candidate = Candidate(results, calls)
        found = run(_read(tests), candidate)
        candidate.close()
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.close(tests)
        os.write(channel.fileno(), json.dumps(found).encode())


def run(tests: dict[str, str], candidate: Candidate) -> dict[str, Any]:
    """What the tests say: {verdict, calls, arguments, detail}."""
    verdict, detail = "passed", ""
    random.seed(0)
    try:
        names: dict[str, Any] = {"__name__": "tests", "__builtins__": __builtins__}
        exec(_compiled(tests["setup"]), names)  # noqa: S102
        names[tests["entry_point"]] = names["candidate"] = candidate
        exec(_compiled(tests["code"]), names)  # noqa: S102
    except ProgramGone:
        verdict = "gone"
    except ProgramError as error:
        verdict, detail = "error", str(error)
    except AssertionError as error:
        verdict, detail = "failed", str(error)
    except BaseException as error:  # noqa: BLE001 - of a result of the wrong type, as a rule
        verdict, detail = "failed", f"{type(error).__name__}: {error}"
    found = {"verdict": verdict, "calls": candidate.calls, "arguments": candidate.last[:_SHOWN]}
    return {**found, "detail": detail[:_SHOWN]}


@lru_cache(maxsize=16)
def _compiled(code: str) -> CodeType:
    """Many programs in a row have the same tests."""
    return compile(code, "<tests>", "exec")


def _read(handle: int) -> Any:
    return json.loads(os.pread(handle, os.fstat(handle).st_size, 0))


def _shown(value: Any) -> str:
    return repr(value)[:_SHOWN]
