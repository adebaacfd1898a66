"""The page of a sweep: every member, its state, and its headline numbers. The page is static; `e2h
sweep` rewrites it, and so does the daemon for sweeps that it launched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg

from e2h_pipeline.artifacts.manifest import ManifestError
from e2h_pipeline.artifacts.request import StoreError
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import TableError
from e2h_pipeline.evaluation.results import select
from e2h_pipeline.orchestration.experiments import REPORT_STAGE, Experiments, report_page
from e2h_pipeline.report.sweep import sweep_html
from e2h_pipeline.sweeps.spec import Sweep
from e2h_pipeline.sweeps.status import MemberStatus

# Columns of a member's headline number on hard levels: its name, policy and method.
_HEADLINES = (
    ("SFT greedy", "sft", "greedy"),
    ("majority", "sft", "majority"),
    ("weighted vote", "sft", "weighted-vote"),
    ("best-of-N", "sft", "best-of-n"),
    ("RL greedy", "rl", "greedy"),
)


def write_page(
    instance: dg.DagsterInstance, store: ArtifactStore, sweep: Sweep, rows: Sequence[MemberStatus]
) -> Path:
    """Write the page to E2H_HOME/reports and say where."""
    experiments = Experiments(instance, store)
    shown = [_member(experiments, row) for row in rows]
    page = store.home / "reports" / f"sweep-{sweep.name}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    temporary = page.with_suffix(f".{os.getpid()}.tmp")  # a command and the daemon may write at the same time
    names = [name for name, *_ in _HEADLINES]
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    temporary.write_text(sweep_html(sweep.name, sweep.description, names, shown, now), encoding="utf-8")
    temporary.replace(page)
    return page


def _member(experiments: Experiments, row: MemberStatus) -> dict[str, Any]:
    return {
        "key": row.member.key,
        "values": dict(row.member.values),
        "state": row.state,
        "made": row.made,
        "stages": row.stages,
        "error": row.error,
        "strict": row.standing.strict,
        "numbers": _headlines(experiments, row),
        "report": _report(experiments, row),
    }


def _report(experiments: Experiments, row: MemberStatus) -> str:
    """Relative link from the page to the member's report; empty if missing or outdated."""
    try:
        page = report_page(experiments.artifact(REPORT_STAGE, row.member.key).path)
    except (StoreError, ManifestError):
        return ""
    return os.path.relpath(page, experiments.store.home / "reports") if row.state == "made" else ""


def _headlines(experiments: Experiments, row: MemberStatus) -> list[tuple[str, str] | None]:
    """Accuracy on hard levels with interval, for the largest N and the recipe's first aggregation.

    None for a member that is not made, because its last numbers may be of another recipe, and for
    unreadable results, which `e2h results` and `e2h verify` report."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for result in select(_results(experiments, row), levels=("hard",)):
        interval = f"[{100 * result['ci_low']:.1f}, {100 * result['ci_high']:.1f}]"
        mark = ", training stopped by a guard" if result.get("stopped") else ""
        told = (f"{100 * result['accuracy']:.1f}", interval + mark)
        found.setdefault((result["policy"], result["method"]), told)
    return [found.get((policy, method)) for _, policy, method in _HEADLINES]


def _results(experiments: Experiments, row: MemberStatus) -> list[dict[str, Any]]:
    try:
        if row.state != "made" or experiments.metrics_artifact(row.member.key) is None:
            return []
        return experiments.results(row.member.key)
    except (StoreError, ManifestError, TableError):
        return []
