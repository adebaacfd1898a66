"""The numbers of a sweep's page: each member's headlines, and its arms pooled over their seeds.

Members that differ in seeds alone are an arm. Arms are compared with the first one of the grid,
paired by seed and problem, and every comparison is marked among all of the page (Holm).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from e2h_pipeline.artifacts.manifest import ManifestError
from e2h_pipeline.artifacts.request import Artifact, StoreError
from e2h_pipeline.artifacts.tables import TableError, read_table
from e2h_pipeline.evaluation.pooling import (
    Arm,
    arm_differences,
    pool_arm,
    pooled_rows,
    untold,
    with_holm,
)
from e2h_pipeline.orchestration.experiments import bootstrap_of, mean_bought, seeds_of
from e2h_pipeline.orchestration.standing import METRIC_STAGES
from e2h_pipeline.report.labels_view import KINDS
from e2h_pipeline.reranking.aggregate import PREFERRED, by_preference
from e2h_pipeline.statistics.multiple import CLEAR

if TYPE_CHECKING:
    import pyarrow as pa

# Columns of headline numbers on hard levels: name, policy and method.
HEADLINES = (
    ("SFT greedy", "sft", "greedy"),
    ("majority", "sft", "majority"),
    ("weighted vote", "sft", "weighted-vote"),
    ("best-of-N", "sft", "best-of-n"),
    ("RL greedy", "rl", "greedy"),
)
LABELS = "labels bought"
"""The column behind them."""
_GROUP = "hard"
_METHOD = ("policy", "method", "aggregation", "n")

Row = Mapping[str, Any]
Open = Callable[[str, str], Artifact]
"""`ArtifactStore.open`, or the same with a memory: the numbers of a member are asked for twice."""


class Told(NamedTuple):
    """An estimate as the page tells it.

    Attributes:
        value: the estimate.
        beside: its interval, or what else stands beside it.
        numbers: the estimate, and the bounds of its interval where it has one.
        each: the seeds' own values, of an estimate over seeds.
    """

    value: str
    beside: str
    numbers: tuple[float, ...] = ()
    each: str = ""


@dataclass(frozen=True)
class Pooled:
    """What the page says over seeds.

    Attributes:
        arms: name, number of seeds and headlines of each arm with two seeds or more.
        comparisons: one for each arm, headline, and what it tells.
        notes: why arms are not pooled or not compared.
    """

    arms: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]
    notes: list[str]


def metrics_of(artifacts: Mapping[str, Artifact]) -> Artifact | None:
    """The most complete table of numbers among a member's artifacts."""
    return next((artifacts[stage] for stage in METRIC_STAGES if stage in artifacts), None)


def member_headlines(open_: Open, metrics: Artifact, stopped: bool) -> list[Told | None]:
    """Accuracy on hard levels with its interval over problems; None for each if it cannot be read.

    `e2h results` and `e2h verify` report what is unreadable.

    Args:
        open_: opens an artifact that is whole.
        stopped: a guard stopped the training of the policy; this stands beside its numbers.
    """
    try:
        folder = open_(metrics.asset, metrics.key).path
        rows = read_table(folder / "metrics.parquet").to_pylist()
    except (StoreError, ManifestError, TableError):
        return [None] * len(HEADLINES)
    return [
        told._replace(beside=f"{told.beside}, training stopped by a guard")
        if told and stopped and policy == "rl"
        else told
        for told, (_, policy, _) in zip(_headlines(rows), HEADLINES, strict=True)
    ]


def labels_told(bought: Mapping[str, Mapping[str, float]]) -> Told | None:
    """Step labels bought, or outcomes where there are no such; and all, with their sources.

    Args:
        bought: by asset and source, as of `artifacts.lineage.labels_bought`.
    """
    if not bought:
        return None
    order = [*KINDS, *sorted(bought.keys() - KINDS)]
    found = [(asset, bought[asset]) for asset in order if asset in bought]
    each = (
        f"{round(count):,} {KINDS.get(asset, asset)} ({source})"
        for asset, own in found
        for source, count in own.items()
    )
    total = sum(found[0][1].values())
    return Told(f"{round(total):,}", ", ".join(each), (total,))


def pooled(
    open_: Open,
    metrics: Mapping[str, Artifact],
    bought: Mapping[str, Mapping[str, Mapping[str, int]]] | None = None,
) -> Pooled:
    """The arms of a sweep, from the tables of its made members by key, in the order of the grid.

    Args:
        bought: labels bought of each member, by key.
    """
    arms: list[tuple[Arm, Row]] = []
    costs: dict[str, Told | None] = {}
    left_out: list[str] = []
    for name, keys in seeds_of(metrics).items():
        options = metrics[next(iter(keys.values()))].manifest.recipe["evaluation"]
        costs[name] = labels_told(mean_bought([(bought or {}).get(key, {}) for key in keys.values()]))
        tables = {seed: _values(open_, metrics[key], options["easy_levels"]) for seed, key in keys.items()}
        values = {seed: table for seed, table in tables.items() if table is not None}
        try:
            arms += [(pool_arm(name, values), options)] if values else []
        except ValueError as error:  # seeds of different benchmarks or problems
            left_out.append(f"{name} is not pooled: {error}")
    shown = [
        {
            "name": arm.name,
            "seeds": len(arm.seeds),
            "numbers": [*_headlines(_rows(arm, options)), costs[arm.name]],
        }
        for arm, options in arms
        if len(arm.seeds) > 1
    ]
    found = with_holm(
        row
        for arm, options in arms[1:]
        for row in arm_differences(arm, arms[0][0], options["easy_levels"], bootstrap_of(options))
        if row["levels"] == _GROUP
    )
    most = max((len(arm.seeds) for arm, _ in arms if len(arm.seeds) > 1), default=0)
    notes = left_out + ([untold(most)] if most and not found and untold(most) else [])
    return Pooled(shown, [_comparison(row) for row in found], notes)


def _rows(arm: Arm, options: Row) -> list[dict[str, Any]]:
    return pooled_rows(arm, options["easy_levels"], bootstrap_of(options))


def _values(open_: Open, metrics: Artifact, easy_levels: Sequence[int]) -> pa.Table | None:
    """Values on hard levels of the methods behind the headlines."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        table = read_table(open_(metrics.asset, metrics.key).path / "values.parquet")
    except (StoreError, ManifestError, TableError):
        return None
    hard = pc.invert(pc.is_in(table["level"], pa.array(easy_levels, table.schema.field("level").type)))
    table = table.filter(pc.fill_null(hard, False))  # a problem without a level is not hard
    methods = table.select(_METHOD).group_by(_METHOD).aggregate([]).to_pylist()
    wanted = pa.Table.from_pylist(list(_chosen(methods).values())).select(_METHOD)
    wanted = wanted.cast(table.select(_METHOD).schema)
    return table.join(wanted, list(_METHOD), join_type="inner") if len(wanted) else None


def _chosen(rows: Iterable[Row]) -> dict[str, Row]:
    """Headline -> its row: the largest N, and the aggregation that the report shows first."""
    found: dict[str, Row] = {}
    rows = list(rows)
    for name, policy, method in HEADLINES:
        own = [row for row in rows if (row["policy"], row["method"]) == (policy, method)]
        there = {row["aggregation"] for row in own}
        order = by_preference(method, there) if method in PREFERRED else sorted(there)
        if own:
            found[name] = min(own, key=lambda row: (order.index(row["aggregation"]), -row["n"]))
    return found


def _headlines(rows: Iterable[Row]) -> list[Told | None]:
    chosen = _chosen(row for row in rows if row["levels"] == _GROUP)
    return [_told(chosen[name]) if name in chosen else None for name, *_ in HEADLINES]


def _told(row: Row) -> Told:
    """Accuracy in percent."""
    value, low, high = (100 * row[name] for name in ("accuracy", "ci_low", "ci_high"))
    each = " / ".join(f"{100 * value:.1f}" for value in row.get("by_seed", {}).values())
    return Told(f"{value:.1f}", f"[{low:.1f}, {high:.1f}]", (value, low, high), each)


def _comparison(row: Row) -> dict[str, Any]:
    value, low, high = (f"{100 * row[name]:+.1f}" for name in ("difference", "ci_low", "ci_high"))
    return {
        "first": row["first"],
        "second": row["second"],
        "n": row["n"],
        "seeds": row["seeds"],
        "told": f"{value} [{low}, {high}]",
        "each": " / ".join(f"{100 * v:+.1f}" for v in row["by_seed"].values()),
        "holm": f"{row['holm']:.3f}",
        "marked": row["holm"] < CLEAR,
    }
