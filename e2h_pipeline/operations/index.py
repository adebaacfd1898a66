"""The page of all experiments of a home: newest first, with headline numbers, verdict and report.

Manifests, tables and Dagster's records are read once, however many experiments share them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.lineage import Node, ancestors, data_versions, trace
from e2h_pipeline.artifacts.manifest import ManifestError
from e2h_pipeline.artifacts.request import Artifact, StoreError
from e2h_pipeline.orchestration.experiments import Experiments, report_page, stopped_training
from e2h_pipeline.orchestration.standing import (
    METRIC_STAGES,
    Standing,
    failed_checks,
    manifest_leaks,
    was_strict,
)
from e2h_pipeline.report.index import index_html
from e2h_pipeline.stages.words import RECIPE_ASSET, REPORT_STAGE
from e2h_pipeline.sweeps.numbers import HEADLINES, Open, Told, member_headlines
from resources.ledger import Ledger, is_recorded

_VERSION_LENGTH = 12


@dataclass(frozen=True)
class IndexRow:
    """An experiment.

    Attributes:
        made: when its numbers (its recipe, where it has none) were made.
        benchmark: empty without numbers.
        numbers: in the order of `HEADLINES`.
        easy: version of its easy data.
        report: the page, or None.
        notes: what a reader must know besides.
    """

    key: str
    made: str
    benchmark: str
    numbers: tuple[Told | None, ...]
    standing: Standing
    easy: str
    report: Path | None
    notes: tuple[str, ...] = ()


def index_rows(experiments: Experiments) -> list[IndexRow]:
    """All experiments, newest first."""
    keys = experiments.ledger.experiments()
    open_ = cache(experiments.store.open)
    assets = (RECIPE_ASSET, *METRIC_STAGES, REPORT_STAGE)
    made = {asset: _latest(experiments.ledger, open_, asset, keys) for asset in assets}
    metrics = {
        key: next((made[stage][key] for stage in METRIC_STAGES if key in made[stage]), None) for key in keys
    }
    nodes = _traced(experiments, metrics)
    failed = failed_checks(experiments.ledger, keys)
    rows = []
    for key in keys:
        recipe, node, numbers = made[RECIPE_ASSET].get(key), nodes[key], metrics[key]
        newest = numbers or recipe
        if newest is not None:
            stopped = bool(node and stopped_training(node))
            told = member_headlines(open_, numbers, stopped) if numbers else [None] * len(HEADLINES)
            rows.append(
                IndexRow(
                    key=key,
                    made=newest.manifest.created,
                    benchmark=_benchmark(numbers),
                    numbers=tuple(told),
                    standing=_standing(recipe, node, failed.get(key, [])),
                    easy=", ".join(version[:_VERSION_LENGTH] for version in data_versions(node))
                    if node
                    else "",
                    report=_report(made[REPORT_STAGE].get(key)),
                    notes=("lineage broken",) if numbers and node is None else (),
                )
            )
    return sorted(rows, key=lambda row: row.made, reverse=True)


def write_index(experiments: Experiments, told: str) -> Path:
    """Write the page to E2H_HOME/reports/index.html and say where.

    Args:
        told: the time of the page.
    """
    folder = experiments.store.home / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "key": row.key,
            "made": row.made,
            "benchmark": row.benchmark,
            "numbers": row.numbers,
            "notes": [*([row.standing.note] if row.standing.note else []), *row.notes],
            "easy": row.easy,
            "report": os.path.relpath(row.report, folder) if row.report else "",
        }
        for row in index_rows(experiments)
    ]
    others = sorted([*folder.glob("sweep-*.html"), *folder.glob("compare-*.html")])
    page = folder / "index.html"
    text = index_html(
        rows,
        headlines=[name for name, *_ in HEADLINES],
        others=[file.name for file in others],
        home=str(experiments.store.home),
        told=told,
    )
    page.write_text(text, encoding="utf-8")
    return page


def _latest(ledger: Ledger, open_: Open, asset: str, keys: Sequence[str]) -> dict[str, Artifact]:
    """The latest artifact of each experiment; what is gone, damaged or not the one that was recorded is left
    out: `e2h results` and `e2h verify` say so."""
    found = {}
    for key in keys:
        recorded = ledger.latest(asset, key)
        try:
            artifact = open_(asset, recorded.key) if recorded and recorded.key and recorded.run else None
        except (StoreError, ManifestError):
            continue
        if recorded and artifact and is_recorded(ledger, recorded, artifact):
            found[key] = artifact
    return found


def _traced(experiments: Experiments, metrics: Mapping[str, Artifact | None]) -> dict[str, Node | None]:
    """What is behind the numbers of each experiment; None where that cannot be told any more."""
    seen: dict[str, Node] = {}
    found: dict[str, Node | None] = {}
    for key, artifact in metrics.items():
        try:
            found[key] = trace(experiments.store, artifact, seen) if artifact else None
        except StoreError:  # something is gone or damaged; `e2h lineage` and `e2h verify` say what
            found[key] = None
    return found


def _standing(recipe: Artifact | None, node: Node | None, failed: list[str]) -> Standing:
    behind = [made.artifact.manifest.recipe for made in ancestors(node)] if node else []
    leaks = [*(manifest_leaks([node]) if node else []), *failed]
    made_with: Mapping[str, Any] | None = recipe.manifest.recipe if recipe else None
    return Standing(was_strict(made_with, behind), tuple(leaks))


def _benchmark(numbers: Artifact | None) -> str:
    return str(numbers.manifest.summary.get("benchmark") or "") if numbers else ""


def _report(artifact: Artifact | None) -> Path | None:
    try:
        return report_page(artifact.path) if artifact else None
    except StoreError:
        return None
