"""Lineage and cost as the page shows them.

Artifacts come below those that they were made from; above them are the ways from the easy data to the
numbers. Addresses of servers on the own machine hold for as long as these run, so a page has the place on
the server alone; `with_links` adds the address that is in use.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape, unescape
from typing import Any

from e2h_pipeline.artifacts.lineage import EASY_DATA
from e2h_pipeline.report.saving import csv_text

RESULTS = ("benchmark_metrics", "rerank_metrics")
EVALUATOR_RESULT = "evaluator_generalization"  # of an experiment without a policy
_TO_THE_MINUTE = len("2026-11-21T22:56")
_LOCAL = re.compile(
    r"^https?://(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?/(?=#)"
)  # of artifacts before 2026-12
_SHOWN = 10  # characters of a hash; the whole one is in the element's title


@dataclass(frozen=True)
class LineageRow:
    """One artifact.

    Attributes:
        run, run_page: id of the Dagster run, and the place of its page on Dagster's server.
        mlflow: address of the run's page on a server of its own, or empty.
        mlflow_page: place of that page on the MLflow server of the own machine, or empty.
        share: its time as a part of the longest stage's, for the bar.
        easy: whether the easy data fed it.
    """

    asset: str
    inputs: str
    data_version: str
    data_version_full: str
    code_version: str
    code_version_full: str
    made: str
    run: str
    run_page: str
    mlflow: str
    mlflow_page: str
    seconds: str
    share: float
    easy: bool


@dataclass(frozen=True)
class LineageSection:
    """Artifacts, total time, ways from the easy data to results as (asset, data version), and all as CSV."""

    rows: list[LineageRow]
    total: str
    paths: list[list[tuple[str, str]]]
    csv: str


def lineage_section(lineage: Sequence[Mapping[str, Any]]) -> LineageSection:
    """Order and format lineage rows.

    Args:
        lineage: a mapping for each artifact: asset, data_version, code_version, created, run_id,
            tracking_url, wall_seconds, and inputs: asset names, or a mapping with asset names as keys.
            Any asset names will do, those of earlier versions too.
    """
    artifacts = {str(row["asset"]): row for row in lineage}
    inputs = {name: [str(i) for i in row.get("inputs") or ()] for name, row in artifacts.items()}
    seconds = {name: float(row.get("wall_seconds") or 0.0) for name, row in artifacts.items()}
    fed = _fed_by(EASY_DATA, inputs)
    longest = max(seconds.values(), default=0.0) or 1.0
    rows = [
        _row(artifacts[name], inputs[name], seconds[name] / longest, name in fed)
        for name in made_order(inputs)
    ]
    versions = {row.asset: row.data_version for row in rows}
    trained = {name: reads for name, reads in inputs.items() if not artifacts[name].get("not_trained")}
    paths = [[(name, versions[name]) for name in path] for path in easy_paths(trained)]
    return LineageSection(rows, duration(sum(seconds.values())), paths, _csv(artifacts, rows))


def _row(artifact: Mapping[str, Any], inputs: Sequence[str], share: float, easy: bool) -> LineageRow:
    run, address = str(artifact.get("run_id") or ""), str(artifact.get("tracking_url") or "")
    place = _LOCAL.sub("", address)
    return LineageRow(
        asset=str(artifact["asset"]),
        inputs=", ".join(inputs),
        data_version=_short(artifact.get("data_version")),
        data_version_full=str(artifact.get("data_version") or ""),
        code_version=_short(artifact.get("code_version")),
        code_version_full=str(artifact.get("code_version") or ""),
        made=str(artifact.get("created") or "")[:_TO_THE_MINUTE].replace("T", " "),
        run=run,
        run_page=f"/runs/{run}",
        mlflow=_web_address(place),
        mlflow_page=place if place.startswith("#/") else "",
        seconds=_note(artifact) or duration(float(artifact.get("wall_seconds") or 0.0)),
        share=share,
        easy=easy,
    )


def _csv(artifacts: Mapping[str, Mapping[str, Any]], rows: Sequence[LineageRow]) -> str:
    header = ("asset", "made from", "data version", "code version", "made", "Dagster run", "seconds")
    lines = (
        (
            row.asset,
            row.inputs,
            row.data_version_full,
            row.code_version_full,
            artifacts[row.asset].get("created") or "",
            row.run,
            artifacts[row.asset].get("wall_seconds") or 0.0,
        )
        for row in rows
    )
    return csv_text(header, lines)


def with_links(page: str, links: Mapping[str, Callable[[str], str | None]]) -> str:
    """A finished page whose runs are linked to the servers that run now.

    Args:
        links: for `dagster` and `mlflow`, the address of a place on that server; None where it does not run.
    """

    def linked(found: re.Match[str]) -> str:
        link = links.get(found[1], lambda _: None)(unescape(found[2]))
        return f'<a href="{escape(link)}">' if link and _web_address(link) else found[0]

    return re.sub(r'<a data-(dagster|mlflow)="([^"]*)">', linked, page)


def made_order(inputs: Mapping[str, Sequence[str]]) -> list[str]:
    """Assets, each after its inputs; alphabetical among assets of one depth."""
    depth: dict[str, int] = {}

    def measure(name: str) -> int:
        if name not in depth:
            depth[name] = 0
            depth[name] = 1 + max((measure(i) for i in inputs[name] if i in inputs), default=0)
        return depth[name]

    return sorted(inputs, key=lambda name: (measure(name), name))


def easy_paths(inputs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """For each direct reader of the easy data, the shortest way through it to a result."""
    readers = [name for name in made_order(inputs) if EASY_DATA in inputs[name]]
    users: dict[str, list[str]] = {name: [] for name in inputs}
    for name in sorted(inputs):
        for source in inputs[name]:
            users.setdefault(source, []).append(name)
    results = set(RESULTS) & set(inputs) or {EVALUATOR_RESULT}
    # An audit that reads easy problems is not fed by them: it takes their levels.
    ways = (_shortest(reader, users, {reader}, results) for reader in readers if reader != EVALUATOR_RESULT)
    return [[EASY_DATA, *way] for way in ways if way and EASY_DATA in inputs]


def _shortest(start: str, users: Mapping[str, Sequence[str]], seen: set[str], results: set[str]) -> list[str]:
    """The shortest way from an asset to a result; empty where none leads there."""
    waiting = deque([[start]])
    while waiting:
        way = waiting.popleft()
        if way[-1] in results:
            return way
        for user in users.get(way[-1], ()):
            if user not in seen:
                seen.add(user)
                waiting.append([*way, user])
    return []


def _fed_by(source: str, inputs: Mapping[str, Iterable[str]]) -> set[str]:
    """The assets that were made from a source, itself included."""
    fed = {source} & set(inputs)
    for name in made_order({k: list(v) for k, v in inputs.items()}):
        if fed & set(inputs[name]):
            fed.add(name)
    return fed


def _note(artifact: Mapping[str, Any]) -> str:
    """Earlier versions had an asset for each method, with a note where the recipe named another."""
    return "not trained" if artifact.get("not_trained") else ""


def _web_address(url: Any) -> str:
    """An address that a page may link; other schemes could run something when clicked."""
    return str(url) if str(url or "").startswith(("http://", "https://")) else ""


def _short(version: Any) -> str:
    """The first characters of a version's hash, without a prefix like `sha256:`."""
    return str(version or "").rpartition(":")[2][:_SHOWN]


def duration(seconds: float) -> str:
    """Seconds as people read them: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
