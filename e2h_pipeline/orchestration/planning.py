"""Made, missing and stale stages of an experiment, by the store and Dagster's records, with no run.

A stage's key is known once its inputs exist. So a plan follows the graph down to the first missing
artifact; the keys below it are unknown until it is made.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

import dagster as dg

import assets
from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.artifacts.request import Artifact, Request, StoreError
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.recorded import recorded_artifacts
from e2h_pipeline.orchestration.requests import Read, Requests
from e2h_pipeline.recipe import Recipe, RecipeError
from e2h_pipeline.stages.spec import EXPERIMENTS, RECIPE_ASSET, STAGES, Stage, narrow, needed_by
from e2h_pipeline.stages.words import REPORT_STAGE
from resources.engine import EngineResource

State = Literal["made", "stale", "missing"]

UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
_PARTITION_TAG = "dagster/partition"
_SIMPLE_SELECTION = re.compile(r"(\+?)([a-z][a-z0-9_]*)(\+?)")
_QUERIED = 500  # records, or partitions, of one query


@dataclass(frozen=True)
class PlannedStage:
    """A stage of an experiment.

    Attributes:
        state: "made" if Dagster's latest record matches recipe, code and inputs; "stale" if it
            differs; "missing" without a record.
        request: its request to the store; None while an input is missing.
        artifact: the store's answer; it may come from another experiment, and is then reused at
            once.
    """

    name: str
    state: State
    request: Request | None
    artifact: Artifact | None


@dataclass(frozen=True)
class Plan:
    """The selected stages of an experiment, upstream first; `artifacts` has those of all stages."""

    key: str
    stages: tuple[PlannedStage, ...]
    artifacts: Mapping[str, Artifact]

    @property
    def done(self) -> bool:
        """Nothing is left to do."""
        return all(stage.state == "made" for stage in self.stages)

    @property
    def state(self) -> State:
        """The worst state of its stages; "stale" only if every stage was made once."""
        states = {stage.state for stage in self.stages}
        return "missing" if "missing" in states else "stale" if "stale" in states else "made"

    @property
    def next_request(self) -> Request | None:
        """The first request to compute; None if there is none, or none is known yet."""
        return next((s.request for s in self.stages if s.request is not None and s.artifact is None), None)


def plans(
    instance: dg.DagsterInstance,
    store: ArtifactStore,
    keys: Sequence[str],
    engine: EngineResource,
    selected: Selection | None = None,
    parsed: Mapping[str, Recipe] | None = None,
) -> list[Plan]:
    """The plans of some experiments.

    Args:
        keys: recipe keys.
        selected: only these stages count; all of the recipe's scope where None.
        parsed: recipes that the caller has parsed already, by key.

    Raises:
        RecipeError: a key names no recipe.
        StoreError: a manifest cannot be read.
    """
    recorded = _recorded(instance, keys, stage_order())
    requests, peek = Requests(engine), cache(store.peek)  # experiments of a sweep share most artifacts
    known, folders = parsed or {}, recipe_folders(store.home)
    recipes = (known[key] if key in known else Recipe.from_key(key, folders) for key in keys)
    return [
        _plan(key, Read(recipe), requests, selected, recorded[key], peek)
        for key, recipe in zip(keys, recipes, strict=True)
    ]


def changed_recipes(instance: dg.DagsterInstance, store: ArtifactStore, keys: Sequence[str]) -> list[str]:
    """Those of some experiments whose materialized recipe differs from its files.

    Unreadable recipes are left out; `watch_files` and `e2h verify` report them."""
    recorded = _recorded(instance, keys, [RECIPE_ASSET])
    found = []
    for key in keys:
        last = recorded[key].get(RECIPE_ASSET)
        try:
            artifact = store.peek(RECIPE_ASSET, last) if last else None
            recipe = Recipe.from_key(key, recipe_folders(store.home))
        except (RecipeError, StoreError):
            continue
        now = narrow(recipe, STAGES[RECIPE_ASSET].sections).as_dict()
        if artifact and digest_json(artifact.manifest.recipe) != digest_json(now):
            found.append(key)
    return found


def made_of_other_data(
    instance: dg.DagsterInstance, store: ArtifactStore, keys: Sequence[str], engine: EngineResource
) -> dict[str, list[str]]:
    """Experiment -> its stages that were made of other outside data than there is now. Experiments and
    data that cannot be read are left out, and so is who samples: another engine is not other data."""
    readers = [name for name in stage_order() if STAGES[name].watches]
    recorded, requests = _recorded(instance, keys, readers), Requests(engine)
    found: dict[str, list[str]] = {}
    for key in keys:
        with suppress(RecipeError, StoreError):
            read = Read(Recipe.from_key(key, recipe_folders(store.home)))
            made = {name: store.peek(name, last) for name, last in recorded[key].items()}
            found[key] = [
                name
                for name, artifact in made.items()
                if artifact and requests.differs(STAGES[name], read, artifact.manifest.external)
            ]
    return {key: names for key, names in found.items() if names}


def plan_by_store(store: ArtifactStore, key: str, engine: EngineResource) -> Plan:
    """The plan by the store alone. Dagster is not asked, so no stage counts as made."""
    recipe = Recipe.from_key(key, recipe_folders(store.home))
    return _plan(key, Read(recipe), Requests(engine), None, {}, store.peek)


def _plan(
    key: str,
    read: Read,
    requests: Requests,
    selected: Selection | None,
    recorded: Mapping[str, str],
    peek: Callable[[str, str], Artifact | None],
) -> Plan:
    found: dict[str, Artifact] = {}
    stages, counted = [], selected.of(read.recipe) if selected else stages_of(read.recipe)
    for name in stage_order():
        request = requests.of(STAGES[name], read, found)
        artifact = peek(name, request.key) if request else None
        if artifact:
            found[name] = artifact
        last = recorded.get(name)
        fresh = request is not None and artifact is not None and last == request.key
        state: State = "made" if fresh else "missing" if last is None else "stale"
        if name in counted:
            stages.append(PlannedStage(name, state, request, artifact))
    return Plan(key, tuple(stages), found)


def stages_of(recipe: Recipe) -> frozenset[str]:
    """The stages that a run of the whole experiment makes: all of a pipeline; else the report and
    what it needs."""
    every = stage_order()  # fills STAGES
    if recipe.scope != "pipeline":
        return needed_by([REPORT_STAGE], recipe)
    whole = recipe.slice(type(recipe).model_fields)
    return frozenset(name for name in every if STAGES[name].wanted(whole))


@dataclass(frozen=True)
class Selection:
    """Stages that somebody selected, for any recipe.

    Attributes:
        named: chosen whatever the recipe: named, or downstream of a named one.
        above: chosen with what they need for the recipe. `+easy_evaluator` needs no policy where
            labels are human.
    """

    named: frozenset[str]
    above: frozenset[str] = frozenset()

    def of(self, recipe: Recipe) -> frozenset[str]:
        """The chosen stages of an experiment."""
        return self.named | needed_by(self.above, recipe) if self.above else self.named


def selection(select: str) -> Selection:
    """Stages named by `a,b+` (a plus reaches up- or downstream), or by Dagster's own syntax.

    Raises:
        ValueError: the selection cannot be read, or names no stage.
    """
    simple = [_SIMPLE_SELECTION.fullmatch(part.strip()) for part in select.split(",")]
    above = {m[2] for m in simple if m and m[1]} if all(simple) else set()
    text = " or ".join(f'key:"{m[2]}"{m[3]}' for m in simple if m) if all(simple) else select
    try:
        found = dg.AssetSelection.from_string(text).resolve(stage_assets())
    except dg.DagsterError as error:
        raise ValueError(str(error).strip().splitlines()[0]) from None
    named = {key.to_user_string() for key in found} & STAGES.keys()
    if not named:
        raise ValueError(f"'{select}' names no stage; there are {', '.join(stage_order())}")
    return Selection(frozenset(named), frozenset(above & named))


@lru_cache(maxsize=1)
def stage_assets() -> tuple[dg.AssetsDefinition, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # asset checks with partitions
        found = dg.load_assets_from_package_module(assets)
    return tuple(asset for asset in found if isinstance(asset, dg.AssetsDefinition))


def running_keys(instance: dg.DagsterInstance) -> set[str]:
    """Experiments with a running or queued Dagster run."""
    runs = instance.get_runs(dg.RunsFilter(statuses=list(UNFINISHED)))
    return {run.tags[_PARTITION_TAG] for run in runs if _PARTITION_TAG in run.tags}


def latest_runs(instance: dg.DagsterInstance, keys: Sequence[str]) -> dict[str, dg.DagsterRun]:
    """Experiment -> its latest run, of those that have any."""
    found: dict[str, dg.DagsterRun] = {}
    for start in range(0, len(keys), _QUERIED):
        some = dg.RunsFilter(tags={_PARTITION_TAG: list(keys[start : start + _QUERIED])})
        for run in instance.get_runs(some):  # newest first
            found.setdefault(run.tags[_PARTITION_TAG], run)
    return found


@lru_cache(maxsize=1)
def stage_order() -> tuple[str, ...]:
    """All stages of the package `assets`, upstream first; stages of other modules are left out."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for parent in _upstream(STAGES[name]):
                visit(parent)
            order.append(name)

    for asset in stage_assets():
        for key in asset.keys:
            if key.to_user_string() in STAGES:
                visit(key.to_user_string())
    return tuple(order)


def _upstream(spec: Stage) -> Iterable[str]:
    return spec.upstream


def _recorded(
    instance: dg.DagsterInstance, keys: Sequence[str], names: Iterable[str]
) -> dict[str, dict[str, str]]:
    """Partition -> asset -> artifact key of its latest materialization by a run."""
    found: dict[str, dict[str, str]] = {key: {} for key in keys}
    for name in names:
        for partition, artifact in recorded_artifacts(instance, name, keys).items():
            found[partition][name] = artifact
    return found


def add_experiments(instance: dg.DagsterInstance, keys: Iterable[str]) -> None:
    """Make keys known to Dagster as partitions, in pieces: SQLite takes a limited number of values
    in one query."""
    found = list(keys)
    for start in range(0, len(found), _QUERIED):
        instance.add_dynamic_partitions(str(EXPERIMENTS.name), found[start : start + _QUERIED])
