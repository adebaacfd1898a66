"""The state of each member of a sweep, from the store and Dagster's records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg

from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.planning import Plan, plans, running_keys
from e2h_pipeline.orchestration.records import failure_cause
from e2h_pipeline.sweeps.selection import selected_stages
from e2h_pipeline.sweeps.spec import Member, Sweep, members
from resources.engine import EngineResource

MemberState = Literal["made", "running", "failed", "stale", "missing"]


@dataclass(frozen=True)
class MemberStatus:
    """The state of a member.

    Attributes:
        stages, made: number of selected stages, and of those that match recipe, code and inputs.
        run_id: its latest run, if any.
        error: why that run failed, if the member is "failed".
    """

    member: Member
    state: MemberState
    stages: int
    made: int
    run_id: str = ""
    error: str = ""


def sweep_status(instance: dg.DagsterInstance, store: ArtifactStore, sweep: Sweep) -> list[MemberStatus]:
    """Every member of a sweep, in its order."""
    found = members(sweep, recipe_folders(store.home))
    engine = EngineResource.from_environment()
    planned = plans(instance, store, [m.key for m in found], engine, selected_stages(sweep.select))
    running = running_keys(instance)
    return [_status(instance, member, plan, running) for member, plan in zip(found, planned, strict=True)]


def _status(instance: dg.DagsterInstance, member: Member, plan: Plan, running: set[str]) -> MemberStatus:
    made = sum(stage.state == "made" for stage in plan.stages)
    last = next(iter(instance.get_runs(dg.RunsFilter(tags={"dagster/partition": member.key}), limit=1)), None)
    run_id = last.run_id if last else ""
    state: MemberState = plan.state
    error = ""
    if plan.key in running:
        state = "running"
    elif not plan.done and last and last.status == dg.DagsterRunStatus.FAILURE:
        state, error = "failed", _why(instance, last.run_id)
    return MemberStatus(member, state, len(plan.stages), made, run_id, error)


def _why(instance: dg.DagsterInstance, run_id: str) -> str:
    """The first failed step of a run and its error."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        if event is not None:
            return f"{event.step_key}: {failure_cause(event)}"
    return "see the run's log"


def as_row(status: MemberStatus) -> Mapping[str, Any]:
    """A member's status as plain data."""
    return {
        "key": status.member.key,
        **{f"axis.{name}": value for name, value in status.member.values.items()},
        "state": status.state,
        "stages": status.stages,
        "made": status.made,
        "run_id": status.run_id,
        "error": status.error,
    }
