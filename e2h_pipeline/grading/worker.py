r"""The process that runs math-verify on untrusted text. Started by `pool.py`, never imported by it.

It imports nothing of this package, so it runs as a plain script with a clean import path. Requests
and replies are JSON lines: `{"gold": ..., "answer": ...}` in, one verdict word out. Three things keep
it harmless: the parent kills it when a pair takes too long, the kernel kills it when a pair takes
too much CPU time (also inside one long C-level multiplication, where no Python handler would run),
and its memory is limited. It leaves when its input closes or its parent is gone.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import signal
import sys
from functools import lru_cache
from typing import Any, TextIO

_POLL_SECONDS = 5.0


def main() -> None:
    """Serve pairs until the parent goes away. Arguments: CPU seconds per pair, bytes of memory."""
    cpu_seconds, memory_bytes, parent = float(sys.argv[1]), int(sys.argv[2]), os.getppid()
    replies = _claim_stdout()
    _limit(memory_bytes)
    try:
        warm = _compare("\\frac{1}{2}", "0.5")  # compiles the grammars, outside any pair's time
    except Exception as error:  # noqa: BLE001 - whatever is broken, the parent has to hear of it
        _reply(replies, f"broken {type(error).__name__}: {error}")
        return
    _reply(replies, "ready" if warm == "equal" else f"broken 1/2 and 0.5 are {warm}")
    while (line := _next_line(parent)) is not None:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # default action of SIGPROF: the process ends
        verdict = _compare(request["gold"], request["answer"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        _reply(replies, verdict)


def _compare(gold: str, answer: str) -> str:
    """equal, different, or undecided where memory or recursion depth ran out."""
    from math_verify import verify

    try:
        equal = verify(_parse(gold), _parse(answer), timeout_seconds=None, raise_on_error=True)
    except (MemoryError, RecursionError):
        return "undecided"
    except ImportError:
        raise
    except Exception:  # noqa: BLE001 - the library raises nearly anything on text that is no mathematics
        return "different"
    return "equal" if equal else "different"


@lru_cache(maxsize=1024)
def _parse(text: str) -> list[Any]:
    r"""Parse an answer as the content of a box, as LaTeX first and as a plain expression second.

    Boxing beats `$...$` and bare text on 230 hand-labelled pairs: as many right answers accepted
    (157 of 188) as any other way of the three and fewer wrong ones (6 of 42).
    """
    from math_verify import parse

    return parse("\\boxed{" + text.strip().strip("$") + "}", parsing_timeout=None, raise_on_error=True)


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


def _next_line(parent: int) -> bytes | None:
    """The next request; None when the input is closed or the parent has died."""
    while not select.select([0], [], [], _POLL_SECONDS)[0]:
        if os.getppid() != parent:
            return None
    return sys.stdin.buffer.readline() or None


def _reply(replies: TextIO, word: str) -> None:
    replies.write(json.dumps(word) + "\n")
    replies.flush()


if __name__ == "__main__":
    main()
