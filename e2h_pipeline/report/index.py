"""The page over all experiments of a home, from plain rows; a table for each benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from e2h_pipeline.report.page import filled
from e2h_pipeline.report.saving import csv_text

_TEMPLATE = "index.html.j2"
_TO_THE_MINUTE = len("2026-11-21T22:56")


def index_html(rows: Sequence[Mapping[str, Any]], *, headlines: Sequence[str], **told: Any) -> str:
    """The page.

    Args:
        rows: newest first: key, made, benchmark (empty: no numbers), numbers in the order of `headlines`,
            notes, easy (data version), report (a file beside the page, or "").
        headlines: names of the numbers, accuracies on hard levels.
        told: home; others, names of more pages beside it; told, the time of the page.
    """
    shown = [{**row, "made": row["made"][:_TO_THE_MINUTE].replace("T", " ")} for row in rows]
    tables = []
    for benchmark in dict.fromkeys(row["benchmark"] for row in shown if row["benchmark"]):
        own = [row for row in shown if row["benchmark"] == benchmark]
        there = [i for i in range(len(headlines)) if any(row["numbers"][i] for row in own)]
        tables.append({"name": benchmark, "rows": own, "there": there, "csv": _csv(own, headlines, there)})
    return filled(
        _TEMPLATE,
        tables=tables,
        unmeasured=[row for row in shown if not row["benchmark"]],
        count=len(shown),
        headlines=headlines,
        **told,
    )


def _csv(rows: Sequence[Mapping[str, Any]], headlines: Sequence[str], there: Sequence[int]) -> str:
    bounds = [name for i in there for name in (headlines[i], f"{headlines[i]} low", f"{headlines[i]} high")]
    lines = []
    for row in rows:
        found = [list(row["numbers"][i].numbers) if row["numbers"][i] else [] for i in there]
        cells = [cell for numbers in found for cell in [*numbers, "", "", ""][:3]]
        lines.append([row["key"], row["made"], row["easy"], "; ".join(row["notes"]), *cells])
    return csv_text(["experiment", "made", "easy data", "notes", *bounds], lines)
