"""From metrics rows to what the page shows: which numbers, in which order, under which names.

A view never mixes benchmarks: `benchmark_sections` makes one section per benchmark and every table
title carries its name. Aggregations shown first are the paper's choice (product for the weighted
vote, minimum for best-of-N), fixed before any result, not the best on these problems.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from e2h_pipeline.report.plots import Series, accuracy_panel, level_bars
from e2h_pipeline.report.published import LABEL as PUBLISHED
from e2h_pipeline.report.published import published_curves
from e2h_pipeline.reranking.aggregate import PREFERRED, by_preference

Row = Mapping[str, Any]

POOLED = ("easy", "hard", "all")
LEVELS = ("1", "2", "3", "4", "5")
_SHORT = 24
_READABLE = 40  # accuracies that all lie above this get an axis that does not start at zero
_POLICIES = ("base", "sft", "rl")
POLICY_NAMES = {"base": "Base model", "sft": "SFT on easy problems", "rl": "RL with the easy evaluator"}
_METHOD_NAMES = {
    "greedy": "greedy",
    "majority": "majority vote",
    "weighted-vote": "weighted vote",
    "best-of-n": "best-of-N",
    "pass": "pass@N (bound)",
}
COLORS = {
    "majority": "#5f6875",
    "weighted-vote": "#0072b2",
    "best-of-n": "#d55e00",
    "pass": "#a7aeb9",
    "base": "#a7aeb9",
    "sft": "#56b4e9",
    "rl": "#009e73",
}
_MARKERS = {"majority": "o", "weighted-vote": "s", "best-of-n": "^", "pass": ""}


@dataclass(frozen=True)
class Cell:
    """An estimate with its interval, ready to print. `clear`: a difference whose interval leaves out 0, or an accuracy
    that differs so from what it is compared with."""

    value: str
    interval: str
    clear: bool = False
    problems: int | None = None


@dataclass(frozen=True)
class TableRow:
    """A labelled row; `cells` are in the order of the table's columns, None where there is no number."""

    label: str
    note: str
    cells: tuple[Cell | None, ...]
    strong: bool = False


@dataclass(frozen=True)
class Legend:
    """A colour and what it stands for."""

    color: str
    label: str


@dataclass(frozen=True)
class BenchmarkSection:
    """Everything the page says about one benchmark."""

    name: str
    grader: str
    problems: dict[str, int]
    pooled: tuple[str, ...]
    levels: tuple[str, ...]
    tiles: list[tuple[str, Cell]]
    tiles_on: str
    policies: list[TableRow]
    reranking: list[TableRow]
    aggregations: list[TableRow]
    differences: list[TableRow]
    rerank_policy: str
    rerank_note: str
    n: int
    curves: list[str]
    curve_legend: list[Legend]
    bars: list[tuple[str, list[Legend]]]


class Results:
    """Metrics rows of one benchmark, found by name."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self._found = {self._name(row): row for row in self.rows}
        there = {row["levels"] for row in self.rows}
        self.pooled = tuple(group for group in POOLED if group in there)
        self.levels = tuple(level for level in LEVELS if level in there)
        scored = [row for row in self.rows if row["method"] in PREFERRED]
        reranked = scored or [row for row in self.rows if row["method"] == "majority" and row["n"] > 1]
        self.n = max((row["n"] for row in reranked), default=0)
        self.rerank_policy = reranked[0]["policy"] if reranked else ""
        self.policies = sorted({r["policy"] for r in self.rows}, key=_policy_order)

    @staticmethod
    def _name(row: Row) -> tuple[Any, ...]:
        return row["policy"], row["method"], row["aggregation"], row["n"], row["levels"]

    def get(self, policy: str, method: str, aggregation: str, n: int, levels: str) -> Row | None:
        """One row, or None."""
        return self._found.get((policy, method, aggregation, n, levels))

    def cells(
        self, policy: str, method: str, aggregation: str, n: int, groups: Sequence[str] | None = None
    ) -> tuple[Cell | None, ...]:
        """Accuracy by level group as cells; the pooled groups that are there where none are named."""
        rows = [self.get(policy, method, aggregation, n, levels) for levels in groups or self.pooled]
        return tuple(accuracy_cell(row) if row else None for row in rows)

    def over_n(self, policy: str, method: str, aggregation: str, levels: str) -> list[Row]:
        """A method's rows at every N, smallest first."""
        wanted = (policy, method, aggregation, levels)
        rows = [r for r in self.rows if (r["policy"], r["method"], r["aggregation"], r["levels"]) == wanted]
        return sorted(rows, key=lambda row: row["n"])

    def aggregations(self, method: str) -> list[str]:
        """The aggregations a method was run with, the paper's choice first."""
        there = {row["aggregation"] for row in self.rows if row["method"] == method}
        return by_preference(method, there)

    def common_n(self) -> int:
        """The largest N at which every policy has a majority vote; 0 where there is none."""
        counts = [
            {r["n"] for r in self.rows if r["policy"] == p and r["method"] == "majority"}
            for p in self.policies
        ]
        return max(set.intersection(*counts), default=0) if counts else 0

    def methods(self) -> list[tuple[str, str]]:
        """(method, aggregation) of the headline reranking rows."""
        chosen = [(m, self.aggregations(m)[0]) for m in PREFERRED if self.aggregations(m)]
        return [("majority", ""), *chosen, ("pass", "")] if self.n else []


def benchmark_sections(metrics: Sequence[Row], differences: Sequence[Row]) -> list[BenchmarkSection]:
    """One section per benchmark."""
    names = sorted({row["benchmark"] for row in metrics})
    return [
        _section(
            name,
            Results(row for row in metrics if row["benchmark"] == name),
            [row for row in differences if row["benchmark"] == name],
        )
        for name in names
    ]


def _section(name: str, results: Results, differences: Sequence[Row]) -> BenchmarkSection:
    clear = _clear(differences)
    return BenchmarkSection(
        name=name,
        grader=", ".join(sorted({row["grader"] for row in results.rows})),
        problems={row["levels"]: row["problems"] for row in results.rows},
        pooled=results.pooled,
        levels=results.levels,
        tiles=_tiles(results, differences),
        tiles_on=_group_title(results, _tile_group(results)),
        policies=_policy_rows(results, clear),
        reranking=_rerank_rows(results, clear),
        aggregations=_aggregation_rows(results),
        differences=difference_rows(differences, results.pooled),
        rerank_policy=results.rerank_policy,
        rerank_note=_rerank_note(results),
        n=results.n,
        curves=_curves(results, name),
        curve_legend=[
            Legend(COLORS[method], method_name(method, aggregation))
            for method, aggregation in results.methods()
        ]
        + ([Legend("#9fc8e2", PUBLISHED)] if published_curves(name, "all", results.n) else []),
        bars=_bars(results, name),
    )


def _tiles(results: Results, differences: Sequence[Row]) -> list[tuple[str, Cell]]:
    """The comparisons the experiment is about, on hard levels (on all problems where levels are unknown)."""
    wanted = []
    for method in PREFERRED:
        for aggregation in results.aggregations(method)[:1]:
            label = f"{method_name(method, aggregation)} over majority, N = {results.n}"
            wanted.append((label, f"{method} {aggregation}", "majority", results.n))
    wanted.append(("RL over SFT, greedy", "rl greedy", "sft greedy", 1))
    group = _tile_group(results)
    found = {(r["first"], r["second"], r["n"]): r for r in differences if r["levels"] == group}
    return [
        (label, difference_cell(found[first, second, n]))
        for label, first, second, n in wanted
        if (first, second, n) in found
    ]


def _tile_group(results: Results) -> str:
    return "hard" if "hard" in results.pooled else "all"


def _group_title(results: Results, group: str) -> str:
    return f"{group.capitalize()} {'levels' if results.levels else 'problems'}"


def _rerank_note(results: Results) -> str:
    """How the shown scores were made of step scores."""
    shown = {aggregation for _, aggregation in results.methods() if aggregation}
    if not shown:
        return ""
    if shown <= {"product", "min"}:
        return (
            "Aggregations shown here are the paper's, fixed beforehand: product of step scores for the"
            " weighted vote, minimum for best-of-N."
        )
    return "Scores are used as they were given: the highest for best-of-N, as weights for the vote."


def _clear(differences: Sequence[Row]) -> set[tuple[str, str, int, str]]:
    """Comparisons whose interval leaves out 0: (first, second, n, levels)."""
    return {
        (row["first"], row["second"], row["n"], row["levels"])
        for row in differences
        if difference_cell(row).clear
    }


def _marked(
    results: Results,
    cells: Sequence[Cell | None],
    clear: set[tuple[str, str, int, str]],
    first: str,
    second: str,
    n: int,
) -> tuple[Cell | None, ...]:
    """A row's cells, those clear that differ from the same cell of what the row is compared with."""
    return tuple(
        replace(cell, clear=(first, second, n, levels) in clear) if cell else None
        for cell, levels in zip(cells, results.pooled, strict=True)
    )


def _policy_rows(results: Results, clear: set[tuple[str, str, int, str]]) -> list[TableRow]:
    """Every policy greedy, then voted at the N all of them have, next to the policy before it; none without greedy
    answers."""
    if not any(row["method"] == "greedy" for row in results.rows):
        return []
    n = results.common_n()
    before = dict(zip(results.policies[1:], results.policies, strict=False))
    return [
        TableRow(
            name,
            note,
            _marked(
                results,
                results.cells(policy, method, "", count),
                clear,
                f"{policy} {method}",
                f"{before.get(policy)} {method}",
                count,
            ),
        )
        for policy in results.policies
        for method, count, name, note in (
            ("greedy", 1, POLICY_NAMES.get(policy, policy), "greedy"),
            ("majority", n, "", f"majority of {n}"),
        )
        if (method == "greedy" or count > 1) and results.get(policy, method, "", count, "all")
    ]


def _rerank_rows(results: Results, clear: set[tuple[str, str, int, str]]) -> list[TableRow]:
    one = results.cells(results.rerank_policy, "pass", "", 1)
    mean = [TableRow("One sample", "mean", one)] if any(one) and results.n else []
    return mean + [
        TableRow(
            _headed(_METHOD_NAMES[method]),
            aggregation,
            _marked(
                results,
                results.cells(results.rerank_policy, method, aggregation, results.n),
                clear,
                f"{method} {aggregation}",
                "majority",
                results.n,
            ),
            strong=method in PREFERRED,
        )
        for method, aggregation in results.methods()
    ]


def _aggregation_rows(results: Results) -> list[TableRow]:
    if not results.n or not (results.levels or any(map(results.aggregations, PREFERRED))):
        return []
    return [
        TableRow(
            _headed(_METHOD_NAMES[method]),
            name,
            results.cells(results.rerank_policy, method, name, results.n, results.levels + results.pooled),
        )
        for method, name in [("majority", ""), *((m, a) for m in PREFERRED for a in results.aggregations(m))]
    ]


def difference_rows(differences: Sequence[Row], groups: Sequence[str] = POOLED) -> list[TableRow]:
    """Each comparison at its largest N, by pooled level group, in the order of the table."""
    largest: dict[tuple[str, str], int] = {}
    for row in differences:
        pair = (row["first"], row["second"])
        largest[pair] = max(largest.get(pair, 0), row["n"])
    found = {(r["first"], r["second"], r["n"], r["levels"]): r for r in differences}
    return [
        TableRow(
            f"{first} − {second}",
            f"N = {n}" if n > 1 else "",
            tuple(
                difference_cell(found[first, second, n, levels])
                if (first, second, n, levels) in found
                else None
                for levels in groups
            ),
        )
        for (first, second), n in largest.items()
    ]


def accuracy_cell(row: Row) -> Cell:
    """Accuracy and interval in percent."""
    low, high = 100 * row["ci_low"], 100 * row["ci_high"]
    return Cell(f"{100 * row['accuracy']:.1f}", f"{low:.1f}–{high:.1f}", problems=row["problems"])


def difference_cell(row: Row) -> Cell:
    """A difference and its interval in points."""
    low, high = 100 * row["ci_low"], 100 * row["ci_high"]
    interval = f"{_signed(low)} to {_signed(high)}"
    return Cell(_signed(100 * row["difference"]), interval, low > 0 or high < 0, row["problems"])


def _signed(points: float) -> str:
    rounded = round(points, 1) + 0.0
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def _curves(results: Results, benchmark: str) -> list[str]:
    """One panel of accuracy over N per pooled group, on one scale."""
    lines = {
        levels: published_curves(benchmark, levels, results.n)  # below ours
        + [
            line
            for method, aggregation in results.methods()
            if (line := _curve(results, method, aggregation, levels)).x
        ]
        for levels in results.pooled
    }
    shown = [high for series in lines.values() for line in series for high in (*line.high, *line.y)]
    top = min(102.0, 5 * (max(shown, default=100) // 5 + 1))
    least = min(
        (low for series in lines.values() for line in series for low in (*line.low, *line.y)), default=0
    )
    bottom = 10 * ((least - 5) // 10) if least > _READABLE else 0
    return [
        accuracy_panel(f"{_short(benchmark)} · {_group_title(results, k)}", series, bottom, top)
        for k, series in lines.items()
        if series
    ]


def _curve(results: Results, method: str, aggregation: str, levels: str) -> Series:
    rows = results.over_n(results.rerank_policy, method, aggregation, levels)
    bound = method == "pass"
    return Series(
        method_name(method, aggregation),
        COLORS[method],
        [row["n"] for row in rows],
        [100 * row["accuracy"] for row in rows],
        () if bound else [100 * row["ci_low"] for row in rows],
        () if bound else [100 * row["ci_high"] for row in rows],
        _MARKERS[method],
        ":" if bound else "-",
    )


def _bars(results: Results, benchmark: str) -> list[tuple[str, list[Legend]]]:
    """Accuracy by level: reranking methods at the largest N, and the policies' greedy answers."""
    reranking = [
        (
            method_name(method, aggregation),
            COLORS[method],
            results.rerank_policy,
            method,
            aggregation,
            results.n,
        )
        for method, aggregation in results.methods()
        if method != "pass"
    ]
    greedy = [
        (POLICY_NAMES.get(policy, policy), COLORS.get(policy, "#cc79a7"), policy, "greedy", "", 1)
        for policy in results.policies
    ]
    charts = [
        (f"{_short(benchmark)} · reranking, N = {results.n}", reranking),
        (f"{_short(benchmark)} · policies, greedy", greedy),
    ]
    return [
        (
            level_bars(title, [f"level {i}" for i in LEVELS], series),
            [Legend(s.color, s.label) for s in series],
        )
        for title, names in charts
        if (series := [s for name in names if (s := _bar_series(results, *name)).x])
    ]


def _bar_series(
    results: Results, label: str, color: str, policy: str, method: str, aggregation: str, n: int
) -> Series:
    found = [(i, results.get(policy, method, aggregation, n, level)) for i, level in enumerate(LEVELS)]
    there = [(i, row) for i, row in found if row is not None]
    return Series(
        label,
        color,
        [i for i, _ in there],
        [100 * row["accuracy"] for _, row in there],
        [100 * row["ci_low"] for _, row in there],
        [100 * row["ci_high"] for _, row in there],
    )


def _headed(name: str) -> str:
    """A name as the head of a row: best-of-N as Best-of-N."""
    return name[:1].upper() + name[1:]


def _short(name: str) -> str:
    """A name that leaves room in a figure's title."""
    return name if len(name) <= _SHORT else name[: _SHORT - 1] + "…"


def method_name(method: str, aggregation: str) -> str:
    """A method's name for people."""
    return f"{_METHOD_NAMES[method]} ({aggregation})" if aggregation else _METHOD_NAMES[method]


def _policy_order(policy: str) -> tuple[int, str]:
    return (_POLICIES.index(policy) if policy in _POLICIES else len(_POLICIES), policy)
