"""The paper's reranking curves on MATH500, to lay under ours.

Numbers of other benchmarks do not compare with them.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from e2h_pipeline.report.plots import Series

BENCHMARK = "MATH500"
LABEL = "faint: the paper, Llemma-7b and its 7b PRM (figures 4 to 14)"
COLOR = "#9fc8e2"
"""Of the legend; that of the weighted vote."""

_FILE = Path(__file__).parent / "data" / "published_rerank_curves.csv"
_SETTING = {"sft_data": "prm800k", "generator": "7b"}
_COLUMNS = {"all": "accuracy_all", "hard": "accuracy_hard"}
# The paper's method -> a faint tone of our colour.
_METHODS = {"majority": "#c5c9cf", "weighted": COLOR, "best_of_n": "#efbf9d"}


def published_curves(benchmark: str, levels: str, most: int) -> list[Series]:
    """Majority, weighted vote and best-of-N of the paper up to N = `most`.

    There are curves of MATH500 alone, for hard levels and for all.
    """
    if benchmark != BENCHMARK or levels not in _COLUMNS:
        return []
    found = []
    for method, color in _METHODS.items():
        rows = [row for row in _rows() if row["method"] == method and int(row["n"]) <= most]
        values = [float(row[_COLUMNS[levels]]) for row in rows]
        found.append(Series(LABEL, color, [int(row["n"]) for row in rows], values, marker="", dash="--"))
    return [series for series in found if series.x]


@cache
def _rows() -> tuple[dict[str, str], ...]:
    """The rows of the paper's main setting; the majority vote has no reward model."""
    lines = [line for line in _FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return tuple(
        row
        for row in csv.DictReader(lines)
        if all(row[name] == value for name, value in _SETTING.items())
        and (row["method"] == "majority" or (row["evaluator"], row["reward_model_size"]) == ("prm", "7b"))
    )
