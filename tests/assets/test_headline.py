"""What people compare experiments by, from rows of metrics."""

from __future__ import annotations

from typing import Any

import pytest

from assets.headline import headline


def _row(
    policy: str, method: str, accuracy: float, levels: str = "hard", n: int = 1, **more: Any
) -> dict[str, Any]:
    return {
        "benchmark": "B",
        "policy": policy,
        "method": method,
        "evaluator": "prm" if more else "",
        "aggregation": more.get("aggregation", ""),
        "n": n,
        "levels": levels,
        "accuracy": accuracy,
    }


def test_it_has_greedy_answers_and_the_largest_vote_with_the_gap_recovered() -> None:
    rows = [
        _row("base", "greedy", 0.2),
        _row("sft", "greedy", 0.4),
        _row("rl", "greedy", 0.6),
        _row("rl", "greedy", 0.9, "easy"),
        _row("sft", "majority", 0.45, n=4),
        _row("sft", "majority", 0.5, n=16),
        _row("sft", "weighted-vote", 0.55, n=16, aggregation="product"),
        _row("sft", "weighted-vote", 0.1, n=16, aggregation="last"),
        _row("sft", "pass", 0.8, n=16),
    ]
    found = headline(rows, [_row("rl", "greedy", 0.8), _row("base", "greedy", 0.3)])
    assert found == {
        "hard/base greedy": 0.2,
        "hard/sft greedy": 0.4,
        "hard/rl greedy": 0.6,
        "hard/rl greedy PGR": pytest.approx(0.5),
        "easy/rl greedy": 0.9,
        "hard/sft majority": 0.5,
        "hard/sft weighted-vote": 0.55,
        "hard/sft pass": 0.8,
    }
