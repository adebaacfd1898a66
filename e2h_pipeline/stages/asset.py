"""`@stage`: turns a body of a few lines into a Dagster asset over the content-addressed store.

A step first resolves its inputs to immutable artifacts: the latest materialization of each in the
same partition. The key is made from them, the slice of the recipe, the code version and the
fingerprint of outside files. The store has that key, or the body runs. Either way Dagster gets the
content hash as data version, so that a change stops where content is equal.
"""

# No `from __future__ import annotations`: Dagster wants the real type of `context`.

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from e2h_pipeline.artifacts.checkout import commit
from e2h_pipeline.artifacts.code_version import code_of
from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.lineage import EASY_DATA, Node, ancestors, as_rows, trace
from e2h_pipeline.artifacts.reads import Reads, State, data_places, hub_data, require_unchanged, state_of
from e2h_pipeline.artifacts.request import Artifact, Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.recipe import Recipe, RecipeError, RecipeSlice, one_spelling
from e2h_pipeline.recipe.describe import resolved
from e2h_pipeline.stages.findings import GOLD, manifest_findings, reachable, roles
from e2h_pipeline.stages.metadata import describe
from e2h_pipeline.stages.model_card import Made, write_model_card
from e2h_pipeline.stages.spec import (
    CPU_POOL,
    EXPERIMENTS,
    GPU_POOL,
    OWNERS,
    RECIPE_ASSET,
    RECIPE_TAG,
    SEED_TAG,
    STAGES,
    Condition,
    Part,
    Stage,
    Where,
    always,
    load_recipe,
    narrow,
    never,
    nothing,
    outside_data,
    request_of,
    seed_of,
    tags_of,
)
from resources.compute import BODIES, ComputeResource, StageBody, StageCall
from resources.engine import EngineResource
from resources.slots import WANTED
from resources.store import StoreResource, input_artifact
from resources.tracking import COMMIT_TAG, ExperimentInfo, StageInfo, StageRun, TrackingResource

_PARAM_LENGTH = 500  # MLflow takes at most 6,000 characters


class FirewallError(RuntimeError):
    """A stage that trains or selects would see hidden answers; nothing was computed."""


@dataclass(frozen=True)
class _Step:
    """One step of one run: a stage with everything resolved."""

    stage: Stage
    recipe: Recipe
    slice: RecipeSlice
    inputs: Mapping[str, Artifact]
    request: Request
    engine: str
    outside: State
    lineage: list[dict[str, Any]]


def stage(
    *,
    group: str,
    reads: Iterable[str] = (),
    recipe: Iterable[Part] = (),
    methods: Iterable[str | Where] = (),
    uses_if: Mapping[str, Condition] | None = None,
    reads_if: Mapping[str, Condition] | None = None,
    samples: bool | Condition = False,
    audit: bool = False,
    declassifies: bool = False,
    gpu: bool = False,
    distributed: bool | Condition = False,
    grows: str = "",
    external: Callable[[RecipeSlice], Any] | None = None,
    outside: Callable[[RecipeSlice], Sequence[Path]] = nothing,
    fetches: bool = False,
    watches: Iterable[str] = (),
    wanted: Condition = always,
    kinds: Iterable[str] = (),
    files: Iterable[Path] = (),
    name: str | None = None,
) -> Callable[[StageBody], dg.AssetsDefinition]:
    """Make an asset of a body `(StageJob) -> summary`. The body's docstring is the description.

    Args:
        recipe: `Stage.sections`: all that may shape the result.
        samples, distributed: a condition, or True for every recipe.
        gpu: take a slot of the GPU pool for each card, so that two such stages never share one.
        kinds, name: icons in the UI; name of the asset, by default the body's.
        others: attributes of `Stage`, which describes them.
    """

    def decorate(body: StageBody) -> dg.AssetsDefinition:
        spec = Stage(
            name=name or body.__name__,
            module=body.__module__,
            reads=tuple(reads),
            sections=tuple(recipe),
            audit=audit,
            code=code_of(body),
            files=tuple(files),
            declassifies=declassifies,
            methods=tuple(methods),
            uses_if=dict(uses_if or {}),
            reads_if=dict(reads_if or {}),
            samples=_condition(samples),
            external=external,
            outside=outside,
            fetches=fetches,
            distributed=_condition(distributed),
            grows=grows,
            gpu=gpu,
            watches=tuple(watches),
            wanted=wanted,
        )
        _register(spec, body)
        return _asset(spec, group, frozenset(kinds), body.__doc__ or "", _code_reference(body))

    return decorate


def _condition(wanted: bool | Condition) -> Condition:
    if callable(wanted):
        return wanted
    return always if wanted else never


def _register(spec: Stage, body: StageBody) -> None:
    STAGES[spec.name], BODIES[spec.name] = spec, _guarded(spec, body)
    if spec.gpu:  # before a step has read its recipe: a stage that some recipes distribute counts as such
        several = spec.distributed is not never
        WANTED[spec.name] = lambda: ComputeResource.from_environment().cards(several)


def _guarded(spec: Stage, body: StageBody) -> StageBody:
    """The body for every process: it runs the code of the key and may use only declared methods."""

    def run(job: StageJob) -> dict[str, Any]:
        with spec.running(job):
            return body(job)

    return run


def _asset(
    spec: Stage, group: str, kinds: frozenset[str], description: str, reference: dict[str, Any]
) -> dg.AssetsDefinition:
    @dg.asset(
        name=spec.name,
        deps=[*spec.upstream, *spec.watches],
        partitions_def=EXPERIMENTS,
        group_name=group,
        kinds=set(kinds),
        owners=OWNERS,
        tags={
            "e2h/supervision": "audit" if spec.audit else "easy-only",
            "e2h/device": "gpu" if spec.gpu else "cpu",
        },
        pool=GPU_POOL if spec.gpu else CPU_POOL,
        code_version=spec.version_of_all(),
        description=_description(spec, description),
        metadata=reference,
    )
    def materialize(
        context: dg.AssetExecutionContext,
        store: StoreResource,
        compute: ComputeResource,
        tracking: TrackingResource,
        engine: EngineResource,
    ) -> dg.MaterializeResult:
        with cause_first():
            _tag_run(context, tags_of(context.partition_key))
            step = _resolve(spec, context.instance, store, context.partition_key, engine)
            _tag_run(context, {RECIPE_TAG: step.recipe.name, SEED_TAG: str(step.recipe.seed)})
            info = StageInfo(
                experiment=experiment_info(context.partition_key, step.recipe),
                asset=spec.name,
                key=step.request.key,
                dagster_run_id=context.run_id,
                recipe=step.request.recipe,
                inputs=step.inputs,
                strict=step.recipe.strict,
                easy_data=sorted({row["data_version"] for row in step.lineage if row["asset"] == EASY_DATA}),
            )
            opened = store.open()
            with tracking.stage_run(store.home_folder, info, context.log) as run:
                artifact, reused = opened.obtain(
                    step.request, lambda draft: _compute(step, draft, opened, compute, run, context.run_id)
                )
                if not reused:
                    run.finish(artifact)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artifact.data_version),
            metadata=describe(opened, artifact, reused=reused),
        )

    return materialize


@contextmanager
def cause_first() -> Iterator[None]:
    """An error that says its cause and its mend is what people see first; its traceback follows.

    Errors of other types are mistakes in the code: there the traceback is what tells."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        said = str(error) or type(error).__name__
        raise dg.Failure(said, {"error": type(error).__name__}, allow_retries=False) from error


def experiment_info(key: str, recipe: Recipe) -> ExperimentInfo:
    """What MLflow's parent run of an experiment says: what its recipe sets, and what code ran."""
    tags = {"e2h.recipe": recipe.name, "e2h.seed": str(recipe.seed), "e2h.strict": str(recipe.strict).lower()}
    params = {line.name: str(line.value)[:_PARAM_LENGTH] for line in resolved(recipe) if line.changed}
    return ExperimentInfo(
        key, recipe.digest(), params, {**tags, **({COMMIT_TAG: commit()} if commit() else {})}
    )


def _tag_run(context: dg.AssetExecutionContext, tags: Mapping[str, str]) -> None:
    """Tags to filter runs by in the UI, for any launcher. (A sweep tags its own runs.)"""
    if not tags.items() <= context.run.tags.items():
        context.instance.add_run_tags(context.run_id, dict(tags))


def _code_reference(body: StageBody) -> dict[str, Any]:
    """Source location of the body, which the UI links."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # otherwise shown to every user
        place = dg.LocalFileCodeReference(
            file_path=inspect.getsourcefile(body) or body.__module__,
            line_number=body.__code__.co_firstlineno,
            label=body.__module__,
        )
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[place])}


def _description(spec: Stage, text: str) -> str:
    sections = (
        "all sections" if spec.name == RECIPE_ASSET else ", ".join(f"`{part}`" for part in spec.sections)
    )
    return f"{inspect.cleandoc(text)}\n\nVersion = hash of the content. Recipe: {sections}."


def _resolve(
    spec: Stage,
    instance: dg.DagsterInstance,
    resource: StoreResource,
    experiment: str,
    engine: EngineResource,
) -> _Step:
    """Inputs, recipe and key of a step, read first, so that later changes are left out."""
    store = resource.open()
    recipe = _recipe(spec, instance, store, experiment)
    view = narrow(recipe, spec.sections)
    inputs = {name: input_artifact(instance, store, name, experiment) for name in spec.inputs(view)}
    outside = state_of(spec.outside(view))  # before the fingerprint, so that it covers the hashing too
    request = request_of(spec, view, inputs, engine, experiment)
    nodes = [trace(store, artifact) for artifact in inputs.values()]
    _require_no_leak(spec, nodes)
    return _Step(spec, recipe, view, inputs, request, engine.name, outside, as_rows(*nodes))


def _require_no_leak(spec: Stage, nodes: Iterable[Node]) -> None:
    """The supervision firewall at a stage's door: nothing that trains or selects is even started on
    hidden answers, whatever part of the graph was asked for.

    Raises:
        FirewallError: the stage, or an input of it, reads gold answers or an audit of them.
    """
    if spec.audit or spec.declassifies:
        return
    audit, split = roles(STAGES)
    kept = {name: set(stage.upstream) - (audit if name in split else set()) for name, stage in STAGES.items()}
    if leaks := sorted(reachable(kept, spec.name) & {GOLD, *audit}):
        raise FirewallError(
            f"supervision firewall: {spec.name} reads {', '.join(leaks)}, directly or through other stages, and only "
            "evaluation may; take it out of `reads`, or declare an audit if the stage neither trains nor selects"
        )
    if findings := manifest_findings((made for node in nodes for made in ancestors(node)), audit, split):
        raise FirewallError(
            f"supervision firewall: {findings[0]}, and {spec.name} would be made from it; materialize its asset again"
        )


def _recipe(spec: Stage, instance: dg.DagsterInstance, store: ArtifactStore, experiment: str) -> Recipe:
    """The materialized recipe; the `recipe` stage itself parses the partition key.

    Raises:
        RecipeError: it cannot be read, or the key has another spelling that every command would use.
    """
    if spec.name == RECIPE_ASSET:
        folders = recipe_folders(store.home)
        recipe = Recipe.from_key(experiment, folders)
        if (spelled := one_spelling(experiment, folders)) != experiment:
            instance.add_dynamic_partitions(str(EXPERIMENTS.name), [spelled])
            raise RecipeError(
                f"'{experiment}' is spelled '{spelled}' (fields in order, numbers without needless digits): materialize "
                "that partition, it was added, and delete this one"
            )
        return recipe
    artifact = input_artifact(instance, store, RECIPE_ASSET, experiment)
    return load_recipe(artifact)


def _compute(
    step: _Step, draft: Draft, store: ArtifactStore, compute: ComputeResource, run: StageRun, run_id: str
) -> None:
    """Run the body into a draft."""
    draft.run_id, draft.tracking_url = run_id, run.open()
    job = StageJob(
        recipe=step.slice,
        inputs=step.inputs,
        work=Work(
            out=draft.out,
            folder=draft.work,
            recipe_seed=seed_of(step.slice),
            reporter=run.reporter,
            engine=step.engine,
        ),
        experiment=step.request.experiment,
        lineage=step.lineage,
        code_version=step.request.code_version,
        reads=_reads(step, draft, store),
    )
    recipe = {**step.recipe.model_dump(mode="json"), **step.slice.as_dict()}
    spec = step.stage
    distributed = spec.distributed(step.slice)
    call = StageCall(
        spec.name, spec.module, job, recipe, draft.lock_fd, distributed=distributed, gpu=spec.gpu
    )
    outcome = compute.run(call)
    require_unchanged(spec.name, step.outside, spec.outside(step.slice))
    draft.summary, draft.device = outcome.summary, outcome.device
    made = Made(
        spec.name, step.request.key, step.request.code_version, step.recipe, step.lineage, outcome.summary
    )
    write_model_card(draft.out, made)


def _reads(step: _Step, draft: Draft, store: ArtifactStore) -> Reads:
    """All that the body may open. Closed are the home, and the outside data of every stage."""
    spec, inputs = step.stage, (artifact.path for artifact in step.inputs.values())
    fetched = hub_data() if spec.fetches else []
    return Reads.of(
        spec.name,
        open=[*inputs, draft.out, draft.work, *spec.outside(step.slice), *fetched],
        closed=[store.home, *data_places(), *outside_data(step.recipe)],
    )
