"""The process that runs a task on untrusted text. `worker_pool` starts it and never imports it.

It imports nothing of this package but the task's own file, so it runs as a plain script with a clean
import path. Requests and replies are JSON lines. `{"task": file}` is answered by `"ready"`; after that
each `{"gold": ..., "answer": ...}` is answered by a verdict word and milliseconds of CPU time. Three things keep
it harmless: the kernel kills it when a pair takes too much CPU time (also inside one long C-level
multiplication, where no Python handler would run), its memory is limited, and the parent kills it when
it hangs. It leaves when its input closes or its parent is gone.

A task is a file with `compare(gold, answer) -> str` and `WARM_UP`, a pair that is equal: comparing it
imports and compiles what the task needs, outside any pair's time. Only the parent says which file.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

Compare = Callable[[str, str], str]

_POLL_SECONDS = 5.0
_START_CPU_SECONDS = 300.0  # for the imports of a task


def main() -> None:
    """Serve pairs until the parent goes away. Arguments: CPU seconds per pair, bytes of memory."""
    cpu_seconds, memory_bytes, parent = float(sys.argv[1]), int(sys.argv[2]), os.getppid()
    replies = _claim_stdout()
    _limit(memory_bytes)
    tasks: dict[str, Compare] = {}
    compare: Compare | None = None
    for line in _lines(parent):
        request = json.loads(line)
        if "task" in request:
            file = request["task"]
            word = "ready" if file in tasks else _prepare(file, tasks)
            compare = tasks.get(file)
            _reply(replies, word)
        elif compare is not None:
            start = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # default action of SIGPROF: the process ends
            verdict = compare(request["gold"], request["answer"])
            signal.setitimer(signal.ITIMER_PROF, 0)
            _reply(replies, [verdict, 1000 * (time.process_time() - start)])


def _prepare(file: str, tasks: dict[str, Compare]) -> str:
    """Load a task and compare its warm-up pair; `ready`, or what is broken."""
    signal.setitimer(signal.ITIMER_PROF, _START_CPU_SECONDS)
    try:
        spec = importlib.util.spec_from_file_location(Path(file).stem, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        verdict = module.compare(*module.WARM_UP)
    except Exception as error:  # noqa: BLE001 - whatever is broken, the parent has to hear of it
        return f"broken {type(error).__name__}: {error}"
    signal.setitimer(signal.ITIMER_PROF, 0)
    if verdict != "equal":
        return f"broken {module.WARM_UP} are {verdict}"
    tasks[file] = module.compare
    return "ready"


def _claim_stdout() -> TextIO:
    """Keep the reply pipe for ourselves: whatever a library prints goes nowhere."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    logging.disable(logging.CRITICAL)
    return replies


def _limit(memory_bytes: int) -> None:
    """No more memory than given, no files written, no core dumps."""
    for what, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value))
    sys.dont_write_bytecode = True


def _lines(parent: int) -> Iterator[bytes]:
    """Requests, until the input is closed or the parent has died."""
    rest = b""
    while chunk := _chunk(parent):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _chunk(parent: int) -> bytes:
    while not select.select([0], [], [], _POLL_SECONDS)[0]:
        if os.getppid() != parent:
            return b""
    return os.read(0, 65536)


def _reply(replies: TextIO, value: Any) -> None:
    replies.write(json.dumps(value) + "\n")
    replies.flush()


if __name__ == "__main__":
    main()
