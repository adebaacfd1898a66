"""How many processes grade at a time."""

from __future__ import annotations

import os

_MOST = 8


def worker_count(asked: int | None) -> int:
    """What was asked for; else E2H_GRADING_WORKERS, where this process is one of several; else one per core,
    at most 8."""
    given = int(os.environ.get("E2H_GRADING_WORKERS", "0"))
    return asked or given or min(_MOST, len(os.sched_getaffinity(0)))
