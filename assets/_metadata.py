"""What people see in the Dagster UI beside a materialization."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from e2h_pipeline.artifacts.lineage import as_rows, data_versions, trace
from e2h_pipeline.artifacts.store import Artifact, ArtifactStore
from e2h_pipeline.artifacts.tables import read_table
from resources.store import ARTIFACT_KEY

_PREVIEW_ROWS = 5
_CELL_LENGTH = 160
_LARGEST_PLOT = 100_000  # bytes; plots are stored in Dagster's event log
_VERSION_LENGTH = 12
_MOST_CURVES = 4
_MOST_NESTED = 24
_MAIN_TABLES = ("data", "metrics")
# What an SVG element of the page needs to be a picture by itself.
_SVG_ALONE = (
    'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="396" height="279"'
)


def describe(store: ArtifactStore, artifact: Artifact, *, reused: bool) -> dict[str, Any]:
    """Metadata of one materialization: where it lies, what is in it, what fed it, what it cost."""
    manifest = artifact.manifest
    metadata: dict[str, Any] = {
        **_pages(artifact),
        **_lineage(store, artifact),
        **_headline(manifest.summary),
        "data_version": artifact.data_version,
        ARTIFACT_KEY: artifact.key,
        "path": dg.MetadataValue.path(str(artifact.path)),
        "reused": reused,
        "wall_seconds": manifest.wall_seconds,
        "peak_memory_gib": round(manifest.peak_memory_bytes / 2**30, 3),
        **({} if manifest.tokens is None else {"tokens": manifest.tokens}),
        **_table(artifact.path),
        **_plots(artifact.path),
        **_curves(artifact.path),
    }
    if manifest.summary:  # last, because it can be long
        metadata["summary"] = dg.MetadataValue.json(manifest.summary)
    return metadata


def _pages(artifact: Artifact) -> dict[str, Any]:
    """Where to read on: MLflow's run, and the report of a whole experiment (a browser opens no file from here, so its
    path is there to copy)."""
    pages: dict[str, Any] = {}
    for page in sorted(artifact.path.rglob("*.html")):
        pages[page.stem] = dg.MetadataValue.path(str(page))
    if artifact.manifest.tracking_url:
        pages["mlflow"] = dg.MetadataValue.url(artifact.manifest.tracking_url)
    return pages


def _lineage(store: ArtifactStore, artifact: Artifact) -> dict[str, Any]:
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


def _table(folder: Path) -> dict[str, Any]:
    """Rows, rows per level, and the first few rows of the artifact's table, or of its main one, if it has any."""
    tables = sorted(folder.rglob("*.parquet"), key=lambda path: (path.stem not in _MAIN_TABLES, path))
    first = next(iter(tables), None)
    if first is None:
        return {}
    import pyarrow.parquet as pq

    place = first.parent if first.name.startswith("part-") else first
    with pq.ParquetFile(first) as file:
        names = file.schema_arrow.names
        batch = next(file.iter_batches(batch_size=_PREVIEW_ROWS), None)
    counted = read_table(place, ["level"] if "level" in names else names[:1])
    metadata: dict[str, Any] = {"dagster/row_count": counted.num_rows}
    if "level" in names:
        metadata["rows_by_level"] = dg.MetadataValue.md(_level_table(counted.column("level").to_pylist()))
    if batch is not None and batch.num_rows:
        records = [{name: _cell(value) for name, value in row.items()} for row in batch.to_pylist()]
        metadata["preview"] = dg.MetadataValue.table([dg.TableRecord(record) for record in records])
    return metadata


def _level_table(levels: list[int]) -> str:
    rows = [f"| {level} | {levels.count(level):,} |" for level in sorted(set(levels))]
    return "\n".join(["| level | rows |", "|---|---|", *rows])


def _cell(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= _CELL_LENGTH else text[: _CELL_LENGTH - 1] + "…"


def _plots(folder: Path) -> dict[str, Any]:
    plots = {}
    for path in sorted(folder.rglob("*.png")):
        if path.stat().st_size <= _LARGEST_PLOT:
            data = base64.b64encode(path.read_bytes()).decode()
            plots[path.stem] = dg.MetadataValue.md(f"![{path.stem}](data:image/png;base64,{data})")
    return plots


def _curves(folder: Path) -> dict[str, Any]:
    """The report's curves of what has any: training over updates, accuracy over N."""
    figures: list[str] = []
    if (folder / "curves.jsonl").is_file():
        from e2h_pipeline.report.rl_view import training_panels

        figures = [svg for svg, _ in training_panels(folder)[:_MOST_CURVES]]
    elif (folder / "differences.parquet").is_file():
        from e2h_pipeline.report.view import benchmark_sections

        tables = (read_table(folder / f"{name}.parquet").to_pylist() for name in ("metrics", "differences"))
        figures = [svg for section in benchmark_sections(*tables) for svg in section.curves]
    alone = [svg.replace("<svg", f"<svg {_SVG_ALONE}", 1) for svg in figures]
    images = [f"![](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})" for svg in alone]
    text = " ".join(images)
    return {"curves": dg.MetadataValue.md(text)} if images and len(text) <= _LARGEST_PLOT else {}


def _headline(summary: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of the summary as numbers, so that the UI plots them over time; nested ones as far as there is room."""
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
