"""Experiments side by side: their numbers, each against the first, and what differs upstream.

Two results are compared by `Experiments.difference`. Here are several, with one correction for all
comparisons that are told together (Holm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.lineage import ancestors, data_versions, trace
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.evaluation.moved import METHOD
from e2h_pipeline.evaluation.results import select
from e2h_pipeline.orchestration.experiments import Experiments, stopped_training
from e2h_pipeline.statistics.multiple import holm, p_value_of_interval

_COLUMNS = (*METHOD, "levels")
_CURVES = "curves.jsonl"


def compare(experiments: Experiments, keys: Sequence[str], everything: bool = False) -> dict[str, Any]:
    """Two or more experiments, the others against the first.

    Args:
        keys: as `Experiments.difference` takes them.
        everything: include all N and single levels.

    Returns:
        {"experiments": [{experiment, asset, data_version, easy_data_version, stopped, strict, leaks, ...}],
        "confidence": ..., "numbers": [{benchmark, policy, method, aggregation, n, levels, values: [...],
        differences: [...]}], "upstream": [{experiment, assets, roots}]}. Values and differences are in the
        order of the experiments, None where one has no such number; the first has no differences.

    Raises:
        StoreError: one has no results, or two have no stage of numbers in common.
    """
    found = [experiments.difference(keys[0], key, everything) for key in keys[1:]]
    sides = [found[0]["first"], *(one["second"] for one in found)]
    metrics = [experiments.store.open(side["asset"], side["key"]) for side in sides]
    confidence = float(metrics[0].manifest.recipe["evaluation"]["confidence"])
    for side, artifact in zip(sides, metrics, strict=True):
        node = trace(experiments.store, artifact)
        side |= {"easy_data_version": data_versions(node), "stopped": stopped_training(node)}
    return {
        "experiments": sides,
        "confidence": confidence,
        "numbers": _numbers(
            [_rows(a.path, everything) for a in metrics], [one["numbers"] for one in found], confidence
        ),
        "upstream": [
            {"experiment": one["second"]["experiment"], "assets": one["assets"], "roots": one["roots"]}
            for one in found
        ],
    }


def curve_folders(experiments: Experiments, compared: Mapping[str, Any]) -> list[tuple[Path, Path | None]]:
    """Of each compared experiment: the folder of its numbers, and of its policy where that was trained with
    curves."""
    found = []
    for side in compared["experiments"]:
        numbers = experiments.store.open(side["asset"], side["key"])
        behind = ancestors(trace(experiments.store, numbers))
        policies = [node.artifact.path for node in behind if node.asset == "rl_policy"]
        trained = next((path for path in policies if (path / _CURVES).is_file()), None)
        found.append((numbers.path, trained))
    return found


def _rows(folder: Path, everything: bool) -> list[dict[str, Any]]:
    rows = [{"recipe": "", **row} for row in read_table(folder / "metrics.parquet").to_pylist()]
    return rows if everything else select(rows)


def _numbers(
    metrics: Sequence[Sequence[Mapping[str, Any]]],
    moved: Sequence[Sequence[Mapping[str, Any]]],
    confidence: float,
) -> list[dict[str, Any]]:
    """A row for each measurement of any experiment, in the order of the first that has it."""
    values = [{_name(row): row for row in rows} for rows in metrics]
    adjusted = iter(holm([_p_value(row, confidence) for rows in moved for row in rows if row["paired"]]))
    differences = [
        {_name(row): {**row, "holm": next(adjusted) if row["paired"] else None} for row in rows}
        for rows in moved
    ]
    return [
        {
            **dict(zip(_COLUMNS, name, strict=True)),
            "values": [
                _picked(own.get(name), ("accuracy", "ci_low", "ci_high", "problems")) for own in values
            ],
            "differences": [
                _picked(own.get(name), ("difference", "ci_low", "ci_high", "paired", "holm", "problems"))
                for own in differences
            ],
        }
        for name in dict.fromkeys(name for own in values for name in own)
    ]


def _p_value(row: Mapping[str, Any], confidence: float) -> float:
    return p_value_of_interval(row["difference"], row["ci_low"], row["ci_high"], confidence)


def _name(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in _COLUMNS)


def _picked(row: Mapping[str, Any] | None, columns: Sequence[str]) -> dict[str, Any] | None:
    return {column: row[column] for column in columns} if row else None
