"""How long work tells people where it is: metrics over steps, and progress with rate and time left.

The library reports to this small interface; the tracking resource turns it into Dagster log lines
and MLflow curves. On its own it logs through `logging`, at most once every few seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

_LOG = logging.getLogger("e2h")


class Reporter:
    """Base reporter: progress lines to the `e2h` logger, metrics dropped. Subclass to send them on."""

    def __init__(self, every_seconds: float = 5.0) -> None:
        self._every = every_seconds
        self._started: dict[str, tuple[float, int]] = {}
        self._last: dict[str, float] = {}

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """One point on each named curve. `step` counts what the stage counts (updates, shards)."""

    def message(self, text: str) -> None:
        """One line for people."""
        _LOG.info("%s", text)

    def progress(self, done: int, total: int, unit: str) -> None:
        """Work done so far; `done` must not fall. Prints rate and time left, not more often than `every_seconds`."""
        now = time.monotonic()
        start, first = self._started.setdefault(unit, (now, done))
        if done < total and now - self._last.get(unit, 0.0) < self._every:
            return
        self._last[unit] = now
        rate = (done - first) / (now - start) if now > start else 0.0
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        self.message(f"{done:,}/{total:,} {unit} ({rate:,.1f}/s{left})")
