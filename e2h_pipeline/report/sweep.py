"""The page of a sweep, from plain rows: static, loads nothing from anywhere, escapes all text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from e2h_pipeline.report.page import filled
from e2h_pipeline.report.saving import csv_text

_TEMPLATE = "sweep.html.j2"


def sweep_html(
    *, arms: Sequence[Mapping[str, Any]], members: Sequence[Mapping[str, Any]], sort: str, **told: Any
) -> str:
    """The page.

    Args:
        arms: the recipes in the order of the page: values (by axis, without seeds), numbers, seeds (behind
            the numbers), of (members), states, strict, reports (files beside the page).
        members: key, state, made, stages, error, strict, report (a file beside the page, or "").
        sort: the number or axis that the arms are sorted by, or `grid`.
        told: name and description; numbers, the names of the numbers of each arm, in order; panels, a
            figure for each axis; stopped, keys of members whose training a guard stopped, and why; pooled
            (sweeps/numbers.py); looks (page.py); stop, the rule that gives members up; told, the time of
            this state.
    """
    names: Sequence[str] = told["numbers"]
    axes = list(arms[0]["values"]) if arms else []
    number = names.index(sort) if sort in names else None
    there = [i for i in range(len(names)) if any(arm["numbers"][i] for arm in arms)]
    states = Counter(member["state"] for member in members)
    best = arms[0] if number is not None and arms and arms[0]["numbers"][number] else None
    return filled(
        _TEMPLATE,
        axes=axes,
        arms=arms,
        members=members,
        sort=sort,
        sorted_number=number,
        order=sorted(there or [0], key=lambda i: i != number),
        best=best,
        states=dict(states),
        running="running" in states,
        csv=_results_csv(arms, names, axes),
        members_csv=_rows_csv(members, ("key", "state", "made", "stages", "error")),
        comparisons_csv=_rows_csv(
            told["pooled"].comparisons, ("first", "second", "n", "seeds", "told", "each", "holm")
        ),
        **told,
    )


def _results_csv(arms: Sequence[Mapping[str, Any]], names: Sequence[str], axes: Sequence[str]) -> str:
    bounds = [column for name in names for column in (name, f"{name} low", f"{name} high")]
    rows = []
    for arm in arms:
        values = [str(arm["values"][axis]) for axis in axes]
        numbers = [list(told.numbers) if told else [] for told in arm["numbers"]]
        cells = [cell for found in numbers for cell in [*found, "", "", ""][:3]]
        rows.append([*values, arm["seeds"], *cells])
    return csv_text([*axes, "seeds", *bounds], rows)


def _rows_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    return csv_text(columns, ([row[column] for column in columns] for row in rows))
