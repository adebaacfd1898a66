"""The side of a program: runs it, on a standard input or call by call.

All that comes out of this process is what a program says. Whoever started it compares.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import sys
from contextlib import suppress
from typing import Any

import values  # type: ignore[import-not-found]  # beside this file, which runs as a plain script

INPUT, OUTPUT, NOTE = 0, 1, 3
"""Handles: standard input, or the calls; standard output, or their results; and why it ended."""
_FILE = "<program>"
_SHOWN = 300  # characters


def warm_up() -> None:
    """Compile and run a little, so that each process need not prepare Python's compiler for itself."""
    names: dict[str, Any] = {"__name__": "warm"}
    text = "import math\ndef f(a, b=(1, 2.5)):\n    return [x for x in b if x > a]\n"
    exec(compile(text, _FILE, "exec"), names)  # noqa: S102
    values.from_json(values.to_json([names["f"](1), {"a": (1,)}]))


def run(source: str, entry_point: str | None) -> int:
    """Run a program and return its exit status.

    Args:
        entry_point: of each line of INPUT, the arguments of a call to it. None: the program reads and
            writes by itself.
    """
    sys.argv = ["program.py"]
    sys.setrecursionlimit(10_000)
    try:
        if entry_point is None:
            _alone(source)
        else:
            _called(source, entry_point)
        return 0
    except SystemExit as ended:
        return _status(ended)
    except BaseException as error:  # noqa: BLE001 - a program may raise anything
        _note(error)
        return 1


class _Nowhere(io.TextIOBase):
    """Takes all that is written, and keeps nothing."""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def _alone(source: str) -> None:
    sys.stdin = io.TextIOWrapper(io.FileIO(INPUT, closefd=False), encoding="utf-8", errors="replace")
    sys.stdout = io.TextIOWrapper(io.FileIO(OUTPUT, "w", closefd=False), encoding="utf-8", errors="replace")
    sys.stderr = _Nowhere()
    try:
        exec(compile(source, _FILE, "exec"), {"__name__": "__main__", "__builtins__": __builtins__})  # noqa: S102
        if "threading" in sys.modules:  # as at the end of any program: its threads are waited for
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
    finally:
        sys.stdout.flush()


def _called(source: str, entry_point: str) -> None:
    calls, results = os.fdopen(INPUT, "rb", closefd=False), os.fdopen(OUTPUT, "wb", 0, closefd=False)
    sys.stdin = io.StringIO()
    sys.stdout = sys.stderr = _Nowhere()
    names: dict[str, Any] = {"__name__": "program", "__builtins__": __builtins__}
    exec(compile(source, _FILE, "exec"), names)  # noqa: S102
    function = names.get(entry_point)
    if function is None and "Solution" in names:  # as programs for LeetCode are written
        function = getattr(names["Solution"](), entry_point, None)
    if function is None:
        raise NameError(f"no function {entry_point}")
    for line in calls:
        arguments, named = values.from_json(line)
        try:
            reply = f'{{"value": {values.to_json(function(*arguments, **named))}}}\n'
        except Exception as error:  # noqa: BLE001 - a call may raise anything; the next may not
            reply = json.dumps({"error": _told(error)}) + "\n"
        results.write(reply.encode())


def _status(ended: SystemExit) -> int:
    if ended.code is None:
        return 0
    return ended.code & 0xFF if isinstance(ended.code, int) else 1


def _note(error: BaseException) -> None:
    with suppress(OSError):  # it may have closed the handle
        os.write(NOTE, _told(error).encode("utf-8", "replace"))


def _told(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a program's own __str__
        text = ""
    return f"{type(error).__name__}: {text}"[:_SHOWN]
