"""Progress: rates count work done now, not work found done."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from e2h_pipeline.artifacts import reporter as module
from e2h_pipeline.artifacts.reporter import Reporter


class Told(Reporter):
    def __init__(self, every_seconds: float = 0.0) -> None:
        super().__init__(every_seconds)
        self.lines: list[str] = []
        self.points: list[tuple[int, dict[str, float]]] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.points.append((step, dict(values)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only the test moves."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_share_rates_and_time_left(clock: list[float]) -> None:
    told = Told()
    told.progress(0, 400, "samples", tokens=0)
    clock[0] += 2
    told.progress(100, 400, "samples", tokens=1000)
    assert told.lines[1] == "100/400 samples (25%, 50.0/s, 500 tokens/s, 6 s left)"
    assert told.points[1] == (
        100,
        {
            "progress/share_done": 0.25,
            "progress/samples_per_second": 50,
            "progress/tokens_per_second": 500,
            "progress/seconds_left": 6,
        },
    )


def test_what_was_there_counts_into_no_rate(clock: list[float]) -> None:
    told = Told()
    told.progress(0, 400, "samples", tokens=0)
    told.progress(200, 400, "samples", reused=200, tokens=0)
    assert told.lines[-1] == "200/400 samples (50%, 0.0/s, 0 tokens/s)"
    clock[0] += 4
    told.progress(300, 400, "samples", reused=200, tokens=800)
    assert told.lines[-1] == "300/400 samples (75%, 25.0/s, 200 tokens/s, 4 s left)"
    clock[0] += 4
    told.progress(400, 400, "samples", reused=200, tokens=1600)
    assert told.lines[-1] == "400/400 samples (100%, 25.0/s, 200 tokens/s)"


def test_the_clock_starts_at_the_first_call(clock: list[float]) -> None:
    told = Told()
    told.progress(10, 30, "updates")
    clock[0] += 5
    told.progress(20, 30, "updates")
    assert told.lines == ["10/30 updates (33%, 0.0/s)", "20/30 updates (67%, 2.0/s, 5 s left)"]
    assert told.points == []  # stages that train have curves of their own


def test_lines_come_not_more_often_than_asked_but_the_last_always(clock: list[float]) -> None:
    told = Told(every_seconds=5)
    for done in range(11):
        told.progress(done, 10, "parts")
        clock[0] += 1
    assert [re.match(r"\d+", line)[0] for line in told.lines] == ["0", "5", "10"]  # type: ignore[index]
