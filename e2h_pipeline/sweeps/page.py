"""The page of a sweep: every member, its state, and its headline numbers. The page is static; `e2h
sweep` rewrites it, and so does the daemon for sweeps that it launched."""

from __future__ import annotations

import json
import os
from collections import Counter
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
from e2h_pipeline.sweeps.arms import NUMBERS, ArmRow, arm_rows, axis_panels, sorted_by
from e2h_pipeline.sweeps.numbers import (
    HEADLINES,
    Open,
    Told,
    labels_told,
    member_headlines,
    metrics_of,
    pooled,
)
from e2h_pipeline.sweeps.spec import Sweep
from e2h_pipeline.sweeps.status import MemberStatus


def page_file(store: ArtifactStore, sweep: Sweep) -> Path:
    """Where the page of a sweep is written."""
    return store.home / "reports" / f"sweep-{sweep.name}.html"


def write_page(store: ArtifactStore, sweep: Sweep, rows: Sequence[MemberStatus], sort: str = "") -> Path:
    """Write the page to E2H_HOME/reports and say where.

    Args:
        sort: what its recipes are sorted by, as in `arms.sorted_by`.

    Raises:
        SweepError: nothing can be sorted so.
    """
    page = page_file(store, sweep)
    folder = page.parent
    folder.mkdir(parents=True, exist_ok=True)
    # Numbers of members that are not made may be of another recipe.
    metrics = {
        row.member.key: found
        for row in rows
        if row.state == "made" and (found := metrics_of(row.artifacts)) is not None
    }
    bought = {row.member.key: bought_of(a.manifest for a in row.artifacts.values()) for row in rows}
    open_ = cache(store.open)
    over_seeds = pooled(open_, metrics, bought)
    told = {
        row.member.key: [
            *_headlines(open_, metrics.get(row.member.key), row),
            labels_told(bought[row.member.key]),
        ]
        for row in rows
    }
    arms = arm_rows(rows, told, over_seeds)
    sort, arms_in_order = sorted_by(arms, sort)
    members = [_member(store, row) for row in rows]
    reports = {member["key"]: member["report"] for member in members}
    text = sweep_html(
        name=sweep.name,
        description=sweep.description,
        numbers=NUMBERS,
        arms=[_arm(arm, reports) for arm in arms_in_order],
        members=members,
        sort=sort,
        panels=axis_panels(arms),
        stopped=[(row.member.key, why) for row in rows for why in _stops(row)],
        pooled=over_seeds,
        looks=_looks(folder / f"sweep-{sweep.name}.looks.json", metrics),
        stop=sweep.stop.rule,
        told=_now(),
    )
    _replace(page, text)
    return page


def _headlines(open_: Open, metrics: Artifact | None, row: MemberStatus) -> list[Told | None]:
    return member_headlines(open_, metrics, stopped_by_guard(row)) if metrics else [None] * len(HEADLINES)


def _arm(arm: ArmRow, reports: Mapping[str, str]) -> dict[str, Any]:
    return {
        "values": arm.values,
        "numbers": arm.numbers,
        "seeds": arm.seeds,
        "of": len(arm.members),
        "states": dict(Counter(row.state for row in arm.members)),
        "strict": all(row.standing.strict for row in arm.members),
        "reports": [reports[row.member.key] for row in arm.members if reports[row.member.key]],
    }


def _member(store: ArtifactStore, row: MemberStatus) -> dict[str, Any]:
    return {
        "key": row.member.key,
        "state": row.state,
        "made": row.made,
        "stages": row.stages,
        "error": row.error,
        "strict": row.standing.strict,
        "report": _report(store, row),
    }


def stopped_by_guard(row: MemberStatus) -> bool:
    """Whether a guard stopped the training of the member's policy."""
    return bool(_stops(row))


def _stops(row: MemberStatus) -> list[str]:
    """Why a guard stopped the training of the member's policy; empty where none did."""
    policy = row.artifacts.get("rl_policy")
    return stop_findings(policy.manifest.summary) if policy is not None else []


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
