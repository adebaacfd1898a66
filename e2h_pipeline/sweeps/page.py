"""The page of a sweep: every member, its state, and its headline numbers. The page is static; `e2h
sweep` rewrites it, and so does the daemon for sweeps that it launched."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.artifacts.lineage import bought_of
from e2h_pipeline.artifacts.request import Artifact, StoreError
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.experiments import report_page
from e2h_pipeline.orchestration.planning import REPORT_STAGE
from e2h_pipeline.report.sweep import sweep_html
from e2h_pipeline.stages.findings import stop_findings
from e2h_pipeline.sweeps.numbers import (
    HEADLINES,
    LABELS,
    Open,
    labels_told,
    member_headlines,
    metrics_of,
    pooled,
)
from e2h_pipeline.sweeps.spec import Sweep
from e2h_pipeline.sweeps.status import MemberStatus


def write_page(store: ArtifactStore, sweep: Sweep, rows: Sequence[MemberStatus]) -> Path:
    """Write the page to E2H_HOME/reports and say where."""
    folder = store.home / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    # Numbers of members that are not made may be of another recipe.
    metrics = {
        row.member.key: found
        for row in rows
        if row.state == "made" and (found := metrics_of(row.artifacts)) is not None
    }
    bought = {row.member.key: bought_of(a.manifest for a in row.artifacts.values()) for row in rows}
    page, open_ = folder / f"sweep-{sweep.name}.html", cache(store.open)
    text = sweep_html(
        name=sweep.name,
        description=sweep.description,
        numbers=[*(name for name, *_ in HEADLINES), LABELS],
        members=[
            _member(store, open_, row, metrics.get(row.member.key), bought[row.member.key]) for row in rows
        ],
        pooled=pooled(open_, metrics, bought),
        looks=_looks(folder / f"sweep-{sweep.name}.looks.json", metrics),
        stop=sweep.stop.rule,
        told=_now(),
    )
    _replace(page, text)
    return page


def _member(
    store: ArtifactStore,
    open_: Open,
    row: MemberStatus,
    metrics: Artifact | None,
    bought: Mapping[str, Mapping[str, int]],
) -> dict[str, Any]:
    headlines = (
        member_headlines(open_, metrics, stopped_by_guard(row)) if metrics else [None] * len(HEADLINES)
    )
    return {
        "key": row.member.key,
        "values": dict(row.member.values),
        "state": row.state,
        "made": row.made,
        "stages": row.stages,
        "error": row.error,
        "strict": row.standing.strict,
        "numbers": [*headlines, labels_told(bought)],
        "report": _report(store, row),
    }


def stopped_by_guard(row: MemberStatus) -> bool:
    """Whether a guard stopped the training of the member's policy."""
    policy = row.artifacts.get("rl_policy")
    return policy is not None and bool(stop_findings(policy.manifest.summary))


def _report(store: ArtifactStore, row: MemberStatus) -> str:
    """Relative link from the page to the member's report; empty if missing or outdated."""
    artifact = row.artifacts.get(REPORT_STAGE) if row.state == "made" else None
    if artifact is None:
        return ""
    try:
        return os.path.relpath(report_page(artifact.path), store.home / "reports")
    except StoreError:
        return ""


def _looks(file: Path, metrics: Mapping[str, Artifact]) -> dict[str, Any]:
    """How often the page has shown other numbers, and since when; noted beside the page.

    A comparison that is looked at after every new seed is clear by chance more often than its
    p-value says, so the page tells how often that was.
    """
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # the first look, or a note that somebody damaged
        before = {"looks": 0, "first": _now(), "numbers": ""}
    numbers = digest_json({key: artifact.key for key, artifact in metrics.items()})
    if not metrics or numbers == before["numbers"]:
        return dict(before)
    now = {**before, "looks": before["looks"] + 1, "numbers": numbers}
    _replace(file, json.dumps(now))
    return now


def _replace(file: Path, text: str) -> None:
    """A command and the daemon may write at the same time."""
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
