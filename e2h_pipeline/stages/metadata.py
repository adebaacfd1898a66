"""Metadata of materializations for the Dagster UI."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from e2h_pipeline.artifacts.lineage import as_rows, data_versions, trace
from e2h_pipeline.artifacts.request import Artifact
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.report.levels import levels_in
from e2h_pipeline.stages.pictures import Panel, PictureCurve, bar_picture, curve_picture, training_panels
from resources.links import mlflow_link
from resources.store import ARTIFACT_KEY, SEAL
from resources.tracking import served_pages

_PREVIEW_ROWS = 5
_CELL_LENGTH = 160
_LARGEST_PLOT = 100_000  # bytes; plots are stored in Dagster's event log
_VERSION_LENGTH = 12
_MOST_NESTED = 24
_MAIN_TABLES = ("data", "metrics")
_RECIPE = "recipe.json"


def describe(store: ArtifactStore, artifact: Artifact, *, reused: bool) -> dict[str, Any]:
    """Metadata of a materialization: place, content, lineage and cost of the artifact.

    Args:
        reused: the artifact was already in the store.
    """
    manifest = artifact.manifest
    metadata: dict[str, Any] = {
        **_pages(store.home, artifact),
        **_lineage(store, artifact),
        **_headline(manifest.summary),
        "data_version": artifact.data_version,
        ARTIFACT_KEY: artifact.key,
        SEAL: manifest.seal,
        "path": dg.MetadataValue.path(str(artifact.path)),
        "reused": reused,
        "wall_seconds": manifest.wall_seconds,
        "peak_memory_gib": round(manifest.peak_memory_bytes / 2**30, 3),
        **({} if manifest.tokens is None else {"tokens": manifest.tokens}),
        **_table(artifact),
        **_pictures(store, artifact),
    }
    if manifest.summary:  # last, because it can be long
        metadata["summary"] = dg.MetadataValue.json(manifest.summary)
    return metadata


def _pages(home: Path, artifact: Artifact) -> dict[str, Any]:
    """Links to MLflow's run and to HTML pages of the artifact.

    MLflow serves the report of an experiment. Browsers open no local files from Dagster's page, so
    the path of every page is shown for copying. Without a served MLflow, so is the run's place in it.
    """
    pages: dict[str, Any] = {}
    for page in sorted(artifact.path.rglob("*.html")):
        pages[f"{page.stem}_file"] = dg.MetadataValue.path(str(page))
    for page in served_pages(artifact):
        if link := mlflow_link(home, artifact.manifest.tracking_url, page.name):
            pages[page.stem] = dg.MetadataValue.url(link)
    if link := mlflow_link(home, artifact.manifest.tracking_url):
        pages["mlflow"] = dg.MetadataValue.url(link)
    elif artifact.manifest.tracking_url:
        pages["mlflow"] = artifact.manifest.tracking_url
    return pages


def _lineage(store: ArtifactStore, artifact: Artifact) -> dict[str, Any]:
    """A table of everything behind the artifact, and its easy data versions."""
    node = trace(store, artifact)
    rows = [
        f"| {row['asset']} | {row['data_version'][:_VERSION_LENGTH]} | {row['code_version']} "
        f"| {row['experiment']} | {row['created']} |"
        for row in as_rows(node)
    ]
    table = "\n".join(["| asset | data version | code | made by | made at |", "|---|---|---|---|---|", *rows])
    metadata: dict[str, Any] = {"lineage": dg.MetadataValue.md(table)}
    easy = data_versions(node)
    if easy:
        metadata["easy_data_version"] = ", ".join(easy)
    return metadata


def _table(artifact: Artifact) -> dict[str, Any]:
    """Number of rows in total and by level, and the first few rows of the artifact's main table.

    An artifact without a table shows its settings or its summary instead.
    """
    folder = artifact.path
    tables = sorted(folder.rglob("*.parquet"), key=lambda path: (path.stem not in _MAIN_TABLES, path))
    first = next(iter(tables), None)
    if first is None:
        return (
            _settings(folder / _RECIPE)
            if (folder / _RECIPE).is_file()
            else _figures(artifact.manifest.summary)
        )
    import pyarrow.parquet as pq

    place = first.parent if first.name.startswith("part-") else first
    with pq.ParquetFile(first) as file:
        names = file.schema_arrow.names
        batch = next(file.iter_batches(batch_size=_PREVIEW_ROWS), None)
    counted = read_table(place, ["level"] if "level" in names else names[:1])
    metadata: dict[str, Any] = {"dagster/row_count": counted.num_rows}
    if "level" in names:
        metadata["rows_by_level"] = dg.MetadataValue.md(_by_level(counted.column("level").to_pylist()))
    if batch is not None and batch.num_rows:
        records = [{name: _cell(value) for name, value in row.items()} for row in batch.to_pylist()]
        metadata["preview"] = dg.MetadataValue.table([dg.TableRecord(record) for record in records])
    return metadata


def _by_level(levels: list[int | None]) -> str:
    """Rows by level, as a table and as bars; unknown levels come last."""
    found = Counter(level or 0 for level in levels)
    known = {str(level): found[level] for level in sorted(found) if level}
    counts = {**known, **({"none": found[0]} if found[0] else {})}
    rows = [f"| {level} | {count:,} |" for level, count in counts.items()]
    return "\n".join(["| level | rows |", "|---|---|", *rows, "", bar_picture({"rows by level": counts})])


def _figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary as a table, and bars of its counts by level."""
    records = [
        dg.TableRecord({"name": name, "value": _cell(value)}) for name, value in _flat(summary).items()
    ]
    metadata: dict[str, Any] = {"figures": dg.MetadataValue.table(records)} if records else {}
    counted = {
        name.replace("_", " "): {level: values[level] for level in sorted(values, key=int)}
        for name, values in summary.items()
        if isinstance(values, Mapping) and values and all(level.isdecimal() for level in values)
    }
    return {**metadata, **({"by_level": dg.MetadataValue.md(bar_picture(counted))} if counted else {})}


def _cell(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= _CELL_LENGTH else text[: _CELL_LENGTH - 1] + "…"


def _settings(path: Path) -> dict[str, Any]:
    """Recipe fields with values other than their defaults."""
    values = _flat(json.loads(path.read_bytes()))
    defaults = _flat(Recipe(name="").model_dump(mode="json"))
    records = [
        dg.TableRecord({"field": name, "value": _cell(value), "default": _cell(defaults.get(name))})
        for name, value in values.items()
        if value != defaults.get(name)
    ]
    return {"not_at_default": dg.MetadataValue.table(records)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(
            _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
        )
    return flat


def _pictures(store: ArtifactStore, artifact: Artifact) -> dict[str, Any]:
    """Pictures drawn by the stage, and small panels of its curves, if any."""
    pictures: dict[str, str] = {}
    for path in sorted(artifact.path.rglob("*.png")):
        pictures[path.stem] = (
            f"![{path.stem}](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})"
        )
    pictures["curves"] = _curves(_main_result(store, artifact).path)
    return {
        name: dg.MetadataValue.md(text)
        for name, text in pictures.items()
        if text and len(text) <= _LARGEST_PLOT
    }


def _main_result(store: ArtifactStore, artifact: Artifact) -> Artifact:
    """The artifact that provides the curves; for the report, the metrics behind its headline."""
    headline = artifact.manifest.inputs.get("benchmark_metrics")
    found = store.find("benchmark_metrics", headline.key) if headline else None
    return found or artifact


def _curves(folder: Path) -> str:
    """Curves of a training, of an audit, or of accuracy over N; empty without any."""
    if (folder / "curves.jsonl").is_file():
        from e2h_pipeline.report.rl_view import read_curves

        panels = training_panels(read_curves(folder / "curves.jsonl"))
        return curve_picture(panels, "update") if panels else ""
    if (folder / "curves.parquet").is_file():
        return curve_picture(_audit_panels(read_table(folder / "curves.parquet").to_pylist()), "update")
    if (folder / "differences.parquet").is_file():
        panels = _accuracy_panels(read_table(folder / "metrics.parquet").to_pylist())
        return curve_picture(panels, "samples per problem, N", doubling=True) if panels else ""
    return ""


def _audit_panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Gold accuracy, evaluator's score and their difference, by level during training."""
    levels = levels_in(row["levels"] for row in rows)
    titles = {
        "gold_accuracy": "gold accuracy by level, %",
        "evaluator_score": "evaluator's score by level, %",
        "gap": "score minus accuracy by level, %",
    }
    return [
        Panel(
            title,
            [_audit_curve([row for row in rows if row["levels"] == level], measure) for level in levels],
        )
        for measure, title in titles.items()
    ]


def _audit_curve(rows: Sequence[Mapping[str, Any]], measure: str) -> PictureCurve:
    x = [(row["first_update"] + row["last_update"]) / 2 for row in rows]
    return PictureCurve(f"level {rows[0]['levels']}", x, [100 * row[measure] for row in rows])


def _accuracy_panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Accuracy of the headline methods over N with intervals, on easy, hard and all levels."""
    from e2h_pipeline.report.results import Results

    results = Results(rows)
    panels = []
    for levels in results.pooled:
        curves = []
        for method, aggregation in results.methods():
            points = results.over_n(results.rerank_policy, method, aggregation, levels)
            y, low, high = (
                [100 * point[name] for point in points] for name in ("accuracy", "ci_low", "ci_high")
            )
            curves += [PictureCurve(method, [point["n"] for point in points], y, low, high)] if points else []
        panels += [Panel(f"accuracy on {levels} levels, %", curves)] if curves else []
    return panels


def _headline(summary: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of the summary, which the UI plots over time; only the first few nested ones."""
    one_below = {
        f"{name}/{inner}": number
        for name, values in summary.items()
        if isinstance(values, Mapping)
        for inner, number in values.items()
    }
    return {
        f"summary/{name}": value
        for name, value in [*summary.items(), *list(one_below.items())[:_MOST_NESTED]]
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
