"""Asset checks: the split is disjoint, no gold answer reaches training, pools are complete, numbers
are possible.

The logic is in `e2h_pipeline/stages/findings.py`; here it is attached to assets. A failed blocking
check stops downstream stages of the same run, and holds back automation (`on_change`).

The checks of the supervision firewall (`FIREWALL`) sit on everything that trains or selects, and on
all numbers. A stage's own door (`e2h_pipeline/stages/asset.py`) refuses declared leaks before it
runs; these checks look at content too, and their failures mark every number of the experiment
(`e2h_pipeline/orchestration/standing.py`).
"""

# No `from __future__ import annotations`: Dagster wants the real type of `context`.

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from assets.headline import headline
from e2h_pipeline.artifacts.lineage import ancestors, data_versions, trace
from e2h_pipeline.artifacts.request import Artifact
from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.recipe.keys import ceiling_key
from e2h_pipeline.registry import DOMAINS
from e2h_pipeline.stages.asset import experiment_info
from e2h_pipeline.stages.findings import (
    column_findings,
    constant_findings,
    graph_findings,
    manifest_findings,
    metric_findings,
    pool_findings,
    roles,
    split_findings,
    stop_findings,
    training_findings,
)
from e2h_pipeline.stages.spec import EXPERIMENTS, RECIPE_ASSET, STAGES, load_recipe
from e2h_pipeline.supervision.step_labels import hard_sources
from resources.engine import EngineResource
from resources.store import StoreResource, input_artifact, latest_artifact
from resources.tracking import EASY_DATA_TAG, TrackingResource

_PARTITIONS = ("easy_problems", "hard_questions", "benchmark_questions", "gold_answers")
_QUESTIONS = _PARTITIONS[:3]
_TRAINING_ROWS = ("easy_solutions", "easy_step_labels", "easy_outcome_labels")
_TRAINS_OR_SELECTS = (
    "sft_policy",
    "easy_evaluator",
    "rl_policy",
    "benchmark_samples",
    "rerank_scores",
    "searched_samples",
)
_NUMBERS = (
    "rerank_metrics",
    "evaluator_generalization",
    "early_stop_metrics",
    "rl_audit",
    "benchmark_metrics",
    "search_metrics",
)


class Experiment:
    """One experiment as a check sees it."""

    def __init__(self, context: dg.AssetCheckExecutionContext, store: StoreResource) -> None:
        self._instance, self.store = context.instance, store.open()
        self.key = context.op_execution_context.partition_key

    def artifact(self, asset: str) -> Artifact:
        """The artifact of an asset; it must exist."""
        return input_artifact(self._instance, self.store, asset, self.key)

    def existing(self, assets: "tuple[str, ...] | list[str]") -> dict[str, Artifact]:
        """Asset name -> artifact, for the assets that have been made."""
        found = {name: latest_artifact(self._instance, self.store, name, self.key) for name in assets}
        return {name: artifact for name, artifact in found.items() if artifact is not None}

    def recipe(self) -> Recipe:
        """The materialized recipe."""
        return load_recipe(self.artifact(RECIPE_ASSET))

    def ceiling_rows(self, recipe: Recipe, asset: str) -> list[dict[str, Any]]:
        """The same table of the ceiling of this recipe, with the same overrides; none where there is none
        yet."""
        if not recipe.evaluation.ceiling:
            return []
        key = ceiling_key(self.key, recipe.evaluation.ceiling)
        found = latest_artifact(self._instance, self.store, asset, key)
        return _metrics(found) if found else []


class Firewall(Experiment):
    """An experiment as a check of the supervision firewall sees it."""

    def __init__(
        self, context: dg.AssetCheckExecutionContext, store: StoreResource, tracking: TrackingResource
    ) -> None:
        super().__init__(context, store)
        self._context, self._tracking = context, tracking
        (self._check,) = context.op_execution_context.selected_asset_check_keys

    def result(self, findings: list[str], **metadata: Any) -> dg.AssetCheckResult:
        """The result of the check. A failure marks the experiment's runs in MLflow, and the next
        success takes the mark away."""
        if findings or self._failed_before():
            verdict = {f"e2h.firewall.{self._check.to_user_string()}": findings[0] if findings else "passed"}
            self._tracking.mark(self.store.home, self.key, verdict, self._context.log)
        return _result(findings, **metadata)

    def _failed_before(self) -> bool:
        status = AssetCheckExecutionRecordStatus
        records = self._instance.event_log_storage.get_asset_check_execution_history(
            self._check,
            limit=1,
            status={status.FAILED, status.SUCCEEDED},
            partition_filter=PartitionKeyFilter(key=self.key),
        )
        return bool(records) and records[0].status == status.FAILED


def _result(findings: list[str], **metadata: Any) -> dg.AssetCheckResult:
    listed = "\n".join(f"- {finding}" for finding in findings) or "nothing"
    more = f" (and {len(findings) - 1} more findings)" if len(findings) > 1 else ""
    return dg.AssetCheckResult(
        passed=not findings,
        description=findings[0] + more if findings else None,  # shown on the page; Markdown needs a click
        metadata={"findings": dg.MetadataValue.md(listed), **metadata},
    )


@dg.asset_check(
    asset="easy_problems",
    additional_deps=["hard_questions", "benchmark_questions", "gold_answers"],
    partitions_def=EXPERIMENTS,
    blocking=True,
)
def split_integrity(
    context: dg.AssetCheckExecutionContext, store: StoreResource, tracking: TrackingResource
) -> dg.AssetCheckResult:
    """Easy, hard and benchmark problems are disjoint by id and by text and have the right levels,
    and every hard and benchmark question has its gold answer."""
    seen = Firewall(context, store, tracking)
    parts = seen.existing(_PARTITIONS)
    findings = split_findings(
        {name: artifact.path for name, artifact in parts.items()}, seen.recipe().problems.easy_levels
    )
    counts = {name: read_table(a.path / TABLE, ["problem_id"]).num_rows for name, a in parts.items()}
    return seen.result(findings, **counts)


def _training_check(asset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name="rows_of_easy_problems",
        additional_deps=list(_QUESTIONS),
        partitions_def=EXPERIMENTS,
        blocking=True,
        description="Every row that trains is of an easy problem, by id and by text, and none is the same as a "
        "hard or benchmark question or a rewording of one.",
    )
    def check(
        context: dg.AssetCheckExecutionContext, store: StoreResource, tracking: TrackingResource
    ) -> dg.AssetCheckResult:
        seen = Firewall(context, store, tracking)
        parts = seen.existing((asset, *_QUESTIONS))
        recipe = seen.recipe()
        unlevelled = DOMAINS.load(recipe.problems.source).unlevelled_easy
        hard = hard_sources(recipe.labels) if asset == "easy_step_labels" else frozenset()
        folders = {name: found.path for name, found in parts.items()}
        findings = training_findings(asset, folders, unlevelled, hard_sources=hard)
        return seen.result(findings, hard_questions="labelled by a model" if hard else "none")

    return check


_training_checks = tuple(map(_training_check, _TRAINING_ROWS))
(
    solutions_of_easy_problems,
    step_labels_of_easy_problems,
    outcome_labels_of_easy_problems,
) = _training_checks


def _column_check(asset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name="no_answers",
        additional_deps=["gold_answers"],
        partitions_def=EXPERIMENTS,
        blocking=True,
        description="No column holds hidden answers, by its name or by its content.",
    )
    def check(
        context: dg.AssetCheckExecutionContext, store: StoreResource, tracking: TrackingResource
    ) -> dg.AssetCheckResult:
        seen = Firewall(context, store, tracking)
        if asset == "hard_questions" and seen.recipe().problems.hard_answers:
            return seen.result(
                [], compared="no: problems.hard_answers shows them, and the recipe is not strict"
            )
        made = seen.existing((asset, "gold_answers"))
        gold = made.get("gold_answers")
        findings = column_findings({asset: made[asset].path}, gold.path if gold else None)
        return seen.result(
            findings, compared="by name and content" if gold else "by name: no gold_answers yet"
        )

    return check


_column_checks = tuple(map(_column_check, _QUESTIONS[1:]))
hard_questions_without_answers, benchmark_questions_without_answers = _column_checks


def _firewall(asset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name="supervision_firewall",
        partitions_def=EXPERIMENTS,
        blocking=True,
        description="Nothing that trains or selects depends on gold answers, in the asset graph or in any manifest "
        "behind this artifact; the supervised levels are told.",
    )
    def check(
        context: dg.AssetCheckExecutionContext, store: StoreResource, tracking: TrackingResource
    ) -> dg.AssetCheckResult:
        seen = Firewall(context, store, tracking)
        audit, split = roles(STAGES)
        recipe, made = seen.recipe(), ancestors(trace(seen.store, seen.artifact(asset)))
        findings = [
            *graph_findings(_upstream(context), audit, split),
            *manifest_findings(made, audit, split),
        ]
        note = "strict" if recipe.strict else "not strict: a ceiling or a control, which saw hard answers"
        if not recipe.reward.easy_only:
            note = "not strict: its evaluator was trained by others, on data that nobody here knows"
        levels = ", ".join(map(str, recipe.problems.easy_levels))
        return seen.result(findings, supervision=note, supervised_levels=levels, artifacts=len(made))

    return check


_firewall_checks = tuple(map(_firewall, (*_TRAINS_OR_SELECTS, *_NUMBERS)))
(
    sft_policy_firewall,
    easy_evaluator_firewall,
    rl_policy_firewall,
    benchmark_samples_firewall,
    rerank_scores_firewall,
    searched_samples_firewall,
    rerank_metrics_firewall,
    evaluator_generalization_firewall,
    early_stop_metrics_firewall,
    rl_audit_firewall,
    supervision_firewall,
    search_metrics_firewall,
) = _firewall_checks

FIREWALL = tuple(
    key
    for check in (split_integrity, *_training_checks, *_column_checks, *_firewall_checks)
    for key in check.check_keys
)
"""Checks of the supervision firewall: where one fails, no number of the experiment counts."""


def _upstream(context: dg.AssetCheckExecutionContext) -> dict[str, set[str]]:
    """Dagster's asset graph, reduced to stages."""
    graph = context.op_execution_context.job_def.asset_layer.asset_graph
    return {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }


@dg.asset_check(asset="rl_policy", partitions_def=EXPERIMENTS)
def training_not_stopped(context: dg.AssetCheckExecutionContext, store: StoreResource) -> dg.AssetCheckResult:
    """No guard (`rl.guards`) stopped the training.

    A warning: the last good policy is kept, and its numbers are sound. They are numbers of a shorter
    training, so results and the report say so too.
    """
    summary = Experiment(context, store).artifact("rl_policy").manifest.summary
    counts = {name: summary[name] for name in ("updates", "best_update") if name in summary}
    return _result(stop_findings(summary), **counts)._replace(severity=dg.AssetCheckSeverity.WARN)


@dg.asset_check(asset="base_model", partitions_def=EXPERIMENTS)
def base_model_as_shipped(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """A base model trained from scratch with the shipped model's settings equals the shipped model,
    or has the same loss."""
    from e2h_pipeline.training.from_nothing import compare_with_shipped

    seen = Experiment(context, store)
    recipe = seen.recipe()
    if not recipe.base.train:
        return _result([], compared="no: not trained here")
    found = compare_with_shipped(seen.artifact("base_model").path, recipe.base, recipe.problems)
    if found is None:
        return _result([], compared="no: trained with other settings")
    return _result([] if found["alike"] else ["its loss differs from the shipped model's"], **found)


@dg.asset_check(asset="base_model", partitions_def=EXPERIMENTS, blocking=True)
def base_model_fits(
    context: dg.AssetCheckExecutionContext, store: StoreResource, engine: EngineResource
) -> dg.AssetCheckResult:
    """The engine can draw samples of the recipe's length from the base model, and training can use
    its attention and positions."""
    from e2h_pipeline.stages.model_fit import model_findings

    seen = Experiment(context, store)
    findings, rl = model_findings(seen.artifact("base_model").path, seen.recipe(), engine.name)
    return _result(findings, reinforcement_learning=rl or "fits")


def _pool_check(
    asset: str, questions: str, folders: Callable[[Recipe, Mapping[str, Any]], dict[str, int]]
) -> dg.AssetChecksDefinition:
    """A completeness check of a sample pool; `folders`: folder -> samples per question, from the recipe
    and the pool's summary."""

    @dg.asset_check(
        asset=asset,
        name="sample_pool_complete",
        partitions_def=EXPERIMENTS,
        blocking=True,
        description="Every question has every sample, once.",
    )
    def check(context: dg.AssetCheckExecutionContext, store: StoreResource) -> dg.AssetCheckResult:
        seen = Experiment(context, store)
        asked = read_table(seen.artifact(questions).path / TABLE, ["problem_id"])["problem_id"].to_pylist()
        made = seen.artifact(asset)
        wanted = folders(seen.recipe(), made.manifest.summary)
        findings = [
            f"{folder}: {finding}"
            for folder, samples in wanted.items()
            for finding in pool_findings(made.path / folder, asked, samples)
        ]
        return _result(findings, questions=len(asked), **{f"samples_{name}": n for name, n in wanted.items()})

    return check


easy_samples_complete = _pool_check(
    "easy_samples", "easy_problems", lambda recipe, _: {"data": recipe.easy_samples.samples}
)
benchmark_samples_complete = _pool_check(
    "benchmark_samples",
    "benchmark_questions",
    lambda recipe, made: {"data": recipe.sampling.samples if recipe.samples.drawn else made["per_question"]},
)
base_answers_complete, sft_answers_complete, rl_answers_complete = (
    _pool_check(
        f"{policy}_answers",
        "benchmark_questions",
        lambda recipe, _: {"greedy": 1, "sampled": recipe.evaluation.samples},
    )
    for policy in ("base", "sft", "rl")
)


@dg.asset_check(asset="rerank_scores", partitions_def=EXPERIMENTS, blocking=True)
def evaluator_not_constant(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """The evaluator gives different scores to different steps."""
    return _result(constant_findings(Experiment(context, store).artifact("rerank_scores").path / "data"))


def _metrics(artifact: Artifact) -> list[dict[str, Any]]:
    """A table of metrics."""
    return list(read_table(artifact.path / "metrics.parquet").to_pylist())


def _metrics_check(asset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name="metrics_sane",
        partitions_def=EXPERIMENTS,
        description="Accuracies in [0, 1], ordered intervals, nothing above pass@N, equal methods at N=1.",
    )
    def check(
        context: dg.AssetCheckExecutionContext, store: StoreResource, tracking: TrackingResource
    ) -> dg.AssetCheckResult:
        seen = Experiment(context, store)
        artifact, recipe = seen.artifact(asset), seen.recipe()
        rows = _metrics(artifact)
        findings = metric_findings(rows, recipe.rerank.draws)
        if not findings:
            node = trace(seen.store, artifact)
            tags = {EASY_DATA_TAG: ", ".join(data_versions(node))}
            seconds = sum(before.artifact.manifest.wall_seconds for before in ancestors(node))
            numbers = {**headline(rows, seen.ceiling_rows(recipe, asset)), "wall_seconds": seconds}
            info = experiment_info(seen.key, recipe)
            tracking.tell(seen.store.home, info, numbers, tags, context.log)
        return _result(findings, rows=len(rows))

    return check


rerank_metrics_sane = _metrics_check("rerank_metrics")
benchmark_metrics_sane = _metrics_check("benchmark_metrics")
