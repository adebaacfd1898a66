"""Reports from long work: metrics over steps, and progress with rate and time left.

The library reports to this small interface; the tracking resource turns it into Dagster log lines
and MLflow curves. On its own it logs through `logging`, at most once every few seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

_LOG = logging.getLogger("e2h")


class Reporter:
    """Base reporter: logs progress to the `e2h` logger, drops metrics. Subclass to send them."""

    def __init__(self, every_seconds: float = 5.0) -> None:
        self._every = every_seconds
        self._started: dict[str, tuple[float, int]] = {}
        self._last: dict[str, float] = {}

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """One point on each named curve. `step` counts what the stage counts (updates, shards)."""

    def message(self, text: str) -> None:
        """One line for people."""
        _LOG.info("%s", text)

    def progress(self, done: int, total: int, unit: str, reused: int = 0, tokens: int | None = None) -> None:
        """Work done so far; `done` must not fall. Prints share, rate and time left, not more often
        than `every_seconds`; with `tokens`, they also become curves.

        The clock starts at the first call; rates leave out the work before it.

        Args:
            reused: the part of `done` that an earlier run made and that was found since the first
                call; rates leave it out too.
            tokens: drawn since the first call.
        """
        now = time.monotonic()
        start, first = self._started.setdefault(unit, (now, done - reused))
        if done < total and now - self._last.get(unit, 0.0) < self._every:
            return
        self._last[unit] = now
        elapsed = max(now - start, 1e-9)
        rate = (done - reused - first) / elapsed
        left = (total - done) / rate if rate > 0 else None
        share = done / total if total else 1.0
        parts = [f"{share:.0%}", f"{rate:,.1f}/s"]
        if tokens is not None:
            parts.append(f"{tokens / elapsed:,.0f} tokens/s")
            curves = {
                "share_done": share,
                f"{unit}_per_second": rate,
                "tokens_per_second": tokens / elapsed,
                **({"seconds_left": left} if left is not None else {}),
            }
            self.metrics({f"progress/{name}": value for name, value in curves.items()}, done)
        if left is not None and done < total:
            parts.append(f"{left:,.0f} s left")
        self.message(f"{done:,}/{total:,} {unit} ({', '.join(parts)})")


class Part(Reporter):
    """Reports of one part of a job as lines of the whole; its curves are dropped."""

    def __init__(self, whole: Reporter, name: str) -> None:
        super().__init__()
        self._whole, self._name = whole, name

    def message(self, text: str) -> None:
        """One line, with the name of the part."""
        self._whole.message(f"{self._name}: {text}")
