"""The state of each member of a sweep, from the store and Dagster's records."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import dagster as dg

from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.artifacts.request import Artifact
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.planning import Plan, latest_runs, plans, running_keys
from e2h_pipeline.orchestration.records import failure_cause
from e2h_pipeline.orchestration.standing import Standing, failed_checks, input_leaks, was_strict
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.sweeps.selection import selected_stages
from e2h_pipeline.sweeps.spec import Member, Sweep, read_members
from resources.engine import EngineResource
from resources.store import DagsterLedger

MemberState = Literal["made", "running", "failed", "stale", "missing"]


@dataclass(frozen=True)
class MemberStatus:
    """The state of a member.

    Attributes:
        stages, made: number of selected stages, and of those that match recipe, code and inputs.
        run_id: its latest run, if any.
        error: why that run failed, or what the supervision firewall found, if the member is
            "failed".
        standing: a member with a leak is never "made".
        artifacts: what the store has for its recipe, code and inputs, by stage.
    """

    member: Member
    state: MemberState
    stages: int
    made: int
    run_id: str = ""
    error: str = ""
    standing: Standing = field(default_factory=Standing)
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)


def sweep_status(instance: dg.DagsterInstance, store: ArtifactStore, sweep: Sweep) -> list[MemberStatus]:
    """Every member of a sweep, in its order."""
    read = read_members(sweep, recipe_folders(store.home))
    found, recipes = [member for member, _ in read], {member.key: recipe for member, recipe in read}
    engine, stages = EngineResource.from_environment(), selected_stages(sweep.select)
    planned = plans(instance, store, list(recipes), engine, stages, recipes)
    running = running_keys(instance)
    runs = latest_runs(instance, list(recipes))
    standings = _standings(instance, planned, recipes)
    return [
        _status(instance, member, plan, running, standing, runs.get(member.key))
        for member, plan, standing in zip(found, planned, standings, strict=True)
    ]


def _standings(
    instance: dg.DagsterInstance, planned: Sequence[Plan], recipes: Mapping[str, Recipe]
) -> list[Standing]:
    """Of each member, from its plan: its artifacts are read already. Members share most of them, and
    are made in few ways, so each artifact and each way is judged once."""
    failed = failed_checks(DagsterLedger(instance), [plan.key for plan in planned])
    leaks: dict[Hashable, list[str]] = {}
    strict: dict[str, bool] = {}
    found = []
    for plan in planned:
        made = {stage.name: stage.artifact.manifest for stage in plan.stages if stage.artifact is not None}
        inputs = {name: tuple(manifest.inputs) for name, manifest in made.items()}
        way = tuple(inputs.items())
        if way not in leaks:
            leaks[way] = input_leaks(inputs)
        for manifest in made.values():
            if manifest.key not in strict:
                strict[manifest.key] = was_strict(None, [manifest.recipe])
        all_strict = recipes[plan.key].strict and all(strict[manifest.key] for manifest in made.values())
        found.append(Standing(all_strict, (*leaks[way], *failed.get(plan.key, []))))
    return found


def _status(
    instance: dg.DagsterInstance,
    member: Member,
    plan: Plan,
    running: set[str],
    standing: Standing,
    last: dg.DagsterRun | None,
) -> MemberStatus:
    made = sum(stage.state == "made" for stage in plan.stages)
    run_id = last.run_id if last else ""
    state: MemberState = plan.state
    error = ""
    if plan.key in running:
        state = "running"
    elif not plan.done and last and last.status == dg.DagsterRunStatus.FAILURE:
        state, error = "failed", _why(instance, last.run_id)
    elif standing.leaks:
        state, error = "failed", f"supervision firewall: {standing.leaks[0]}"
    return MemberStatus(member, state, len(plan.stages), made, run_id, error, standing, plan.artifacts)


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
        **status.standing.as_row(),
    }
