"""One message about a sweep that has ended: how many members were made, and their headline numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.sweeps.numbers import HEADLINES, Told, member_headlines, metrics_of, pooled
from e2h_pipeline.sweeps.page import page_file, stopped_by_guard
from e2h_pipeline.sweeps.spec import Sweep
from e2h_pipeline.sweeps.status import MemberStatus

_MOST = 20  # lines of numbers, and of failures; the page has all


def summary(store: ArtifactStore, sweep: Sweep, rows: Sequence[MemberStatus]) -> str:
    """What people are told, on several lines. Numbers are accuracies on hard levels in percent, with 95%
    intervals; of arms with several seeds over these, else of each member."""
    counts = Counter(row.state for row in rows)
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    failed = [f"{row.member.key} failed: {row.error}" for row in rows if row.state == "failed"]
    numbers = _numbers(store, rows)
    head = f"e2h: sweep {sweep.name} has ended: {states} of {len(rows)} members"
    heading = ["accuracy on hard levels, %:"] if numbers else []
    page = f"page: {page_file(store, sweep)}"
    return "\n".join([head, *_some(failed), *heading, *_some(numbers), page])


def _numbers(store: ArtifactStore, rows: Sequence[MemberStatus]) -> list[str]:
    open_ = cache(store.open)
    made = {row.member.key: row for row in rows if row.state == "made"}
    metrics = {key: found for key, row in made.items() if (found := metrics_of(row.artifacts)) is not None}
    arms = pooled(open_, metrics).arms
    if arms:
        return [_line(f"{arm['name']} ({arm['seeds']} seeds)", arm["numbers"]) for arm in arms]
    return [
        _line(key, member_headlines(open_, found, stopped_by_guard(made[key])))
        for key, found in metrics.items()
    ]


def _line(name: str, numbers: Sequence[Told | None]) -> str:
    told = (
        f"{headline} {number.value} {number.beside} {number.each}".strip()
        for (headline, *_), number in zip(HEADLINES, numbers, strict=False)  # an arm also has what it cost
        if number is not None
    )
    return f"{name}: {'; '.join(told) or 'no numbers'}"


def _some(lines: Sequence[str]) -> list[str]:
    more = [f"... and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
    return [*lines[:_MOST], *more]
