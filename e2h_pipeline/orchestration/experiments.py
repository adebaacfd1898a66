"""Past experiments: their numbers, inputs, differences, manifests and reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.difference import as_row, compare
from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.artifacts.lineage import (
    EASY_DATA,
    Node,
    ancestors,
    data_versions,
    labels_bought,
    paths,
    trace,
)
from e2h_pipeline.artifacts.manifest import read_manifest
from e2h_pipeline.artifacts.request import Artifact, StoreError
from e2h_pipeline.artifacts.store import KEY_FOLDER_LENGTH, ArtifactStore
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.evaluation.human_steps import HUMAN_STEPS, pooled_step_rows
from e2h_pipeline.evaluation.moved import moved_rows, only_in
from e2h_pipeline.evaluation.pgr import gap_recovered_rows, uses_supervision
from e2h_pipeline.evaluation.pooling import (
    Arm,
    arm_differences,
    method_differences,
    pool_arm,
    pooled_rows,
    with_holm,
)
from e2h_pipeline.evaluation.results import SEARCH_COSTS, marked_stopped, result_rows, select
from e2h_pipeline.orchestration.standing import (
    METRIC_STAGES,
    Standing,
    failed_checks,
    manifest_leaks,
    outdated,
    was_strict,
)
from e2h_pipeline.recipe.keys import ceiling_key
from e2h_pipeline.stages.findings import stop_findings
from e2h_pipeline.stages.words import RECIPE_ASSET
from e2h_pipeline.statistics.bootstrap import Bootstrap
from resources.ledger import Ledger, latest_artifact
from resources.links import mlflow_link

STEPS_STAGE = "evaluator_generalization"
SEARCH_STAGE = "search_metrics"
_PGR_IDENTITY = ("benchmark", "policy", "method", "aggregation", "n", "levels")


@dataclass(frozen=True)
class Pooled:
    """Results over seeds.

    Attributes:
        rows: result rows, with `seeds` and `by_seed`.
        differences: paired ones of recipes with enough seeds, with `p_value` and `holm`.
    """

    rows: list[dict[str, Any]]
    differences: list[dict[str, Any]]


@dataclass(frozen=True)
class Experiments:
    """Experiments of one home folder, by recipe key."""

    ledger: Ledger
    store: ArtifactStore

    def artifact(self, asset: str, key: str) -> Artifact:
        """The artifact of an asset in an experiment.

        Raises:
            StoreError: it was never made, is gone, or is damaged.
        """
        artifact = latest_artifact(self.ledger, self.store, asset, key)
        if artifact is None:
            raise StoreError(f"{key} has no {asset} yet; run: e2h run {key}")
        return artifact

    def evaluator(self, key: str) -> tuple[Artifact, Artifact | None, Standing]:
        """The evaluator of an experiment, the step labels that it was trained on (those of the
        experiment where it learned from outcomes alone; None where there are none), and whether its
        numbers count.

        Raises:
            StoreError: there is no evaluator.
        """
        evaluator = self.artifact("easy_evaluator", key)
        taught = evaluator.manifest.inputs.get("easy_step_labels")
        labels = (
            self.store.find("easy_step_labels", taught.key)
            if taught
            else latest_artifact(self.ledger, self.store, "easy_step_labels", key)
        )
        return evaluator, labels, self._standing(key, [trace(self.store, evaluator)])

    def keys(self) -> list[str]:
        """Experiments that have results."""
        known = self.ledger.experiments()
        return [key for key in known if self.metrics_artifact(key) is not None]

    def metrics_artifact(self, key: str) -> Artifact | None:
        """The most complete table of numbers of an experiment."""
        found = (latest_artifact(self.ledger, self.store, stage, key) for stage in METRIC_STAGES)
        return next((artifact for artifact in found if artifact), None)

    def standing(self, key: str) -> Standing:
        """Whether an experiment's numbers count: strictness, and what the firewall found."""
        artifact = self.metrics_artifact(key)
        nodes = [trace(self.store, artifact)] if artifact else []
        return self._standing(key, nodes)

    def _standing(self, key: str, nodes: Sequence[Node]) -> Standing:
        recipe = latest_artifact(self.ledger, self.store, RECIPE_ASSET, key)
        leaks = [*manifest_leaks(nodes), *failed_checks(self.ledger, [key]).get(key, [])]
        behind = [made.artifact.manifest.recipe for node in nodes for made in ancestors(node)]
        made_with = recipe.manifest.recipe if recipe else None
        edited = outdated(key, made_with, recipe_folders(self.store.home))
        return Standing(was_strict(made_with, behind), tuple(leaks), edited)

    def results(self, key: str) -> list[dict[str, Any]]:
        """Result rows of an experiment, with PGR where its ceiling has been run. Each row says
        whether the experiment is strict, what the firewall found, and the labels it bought by asset
        and source.

        Raises:
            StoreError: it has no results yet.
        """
        artifact = self.metrics_artifact(key)
        if artifact is None and key in self.keys_with_steps():
            raise StoreError(f"{key} has no policy; its evaluator's numbers: e2h results {key} --steps")
        if artifact is None:
            raise StoreError(f"{key} has no results yet; run: e2h run {key}")
        metrics = read_table(artifact.path / "metrics.parquet").to_pylist()
        node = trace(self.store, artifact)
        rows = marked_stopped(result_rows(key, metrics, _version_of_each(node)), stopped_training(node))
        recovered = self._recovered(key, metrics)
        told = {**self._standing(key, [node]).as_row(), "labels_bought": labels_bought(node)}
        found = [{**row, **told, **recovered.get(_identity(row), {})} for row in rows]
        return found + self._searched(key)

    def _searched(self, key: str) -> list[dict[str, Any]]:
        """Result rows of searches, with what an answer costs in `tokens` and `flops`."""
        artifact = latest_artifact(self.ledger, self.store, SEARCH_STAGE, key)
        if artifact is None:
            return []
        node = trace(self.store, artifact)
        told = {**self._standing(key, [node]).as_row(), "labels_bought": labels_bought(node)}
        metrics = read_table(artifact.path / "metrics.parquet").to_pylist()
        costs = {_identity(row): {cost: row[cost] for cost in SEARCH_COSTS} for row in metrics}
        rows = result_rows(key, metrics, _version_of_each(node))
        return [{**row, **costs[_identity(row)], **told} for row in rows]

    def steps(self, key: str) -> list[dict[str, Any]]:
        """What the evaluator is worth on steps that people labelled: rows of `human_steps.parquet`,
        with the experiment's standing.

        Raises:
            StoreError: it was not judged on such steps.
        """
        artifact = self.artifact(STEPS_STAGE, key)
        file = artifact.path / HUMAN_STEPS
        if not file.is_file():
            raise StoreError(f"{key} has no steps labelled by people; name some in human_steps.sources")
        node = trace(self.store, artifact)
        told = {**self._standing(key, [node]).as_row(), "labels_bought": labels_bought(node)}
        return [{"recipe": key, **row, **told} for row in read_table(file).to_pylist()]

    def keys_with_steps(self) -> list[str]:
        """Experiments whose evaluator was judged on steps that people labelled."""
        known = self.ledger.experiments()
        found = ((key, latest_artifact(self.ledger, self.store, STEPS_STAGE, key)) for key in known)
        return [key for key, artifact in found if artifact and (artifact.path / HUMAN_STEPS).is_file()]

    def pooled_steps(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """`steps` over the seeds of each recipe among the keys, with `seeds` and `by_seed`."""
        rows: list[dict[str, Any]] = []
        for name, by_seed in seeds_of(keys).items():
            found = {seed: self.steps(key) for seed, key in by_seed.items()}
            bought = mean_bought([own[0]["labels_bought"] for own in found.values() if own])
            told = {"recipe": name, "labels_bought": bought}
            rows += [{**row, **told} for row in pooled_step_rows(found)]
        return rows

    def pooled(self, keys: Sequence[str]) -> Pooled:
        """Results over the seeds of each recipe among the keys, and the differences that may be told.

        Raises:
            StoreError: one of them has no results yet, or two are the same results.
            ValueError: seeds of a recipe that differ in benchmark, grader or problems.
        """
        rows: list[dict[str, Any]] = []
        differences: list[dict[str, Any]] = []
        arms: list[Arm] = []
        for name, by_seed in seeds_of(keys).items():
            found = self._of_seeds(by_seed)
            options = found[0].manifest.recipe["evaluation"]  # the key may be of an earlier version
            easy, bootstrap = tuple(options["easy_levels"]), bootstrap_of(options)
            tables = [read_table(artifact.path / "values.parquet") for artifact in found]
            arm = pool_arm(name, dict(zip(by_seed, tables, strict=True)))
            nodes = {key: trace(self.store, a) for key, a in zip(by_seed.values(), found, strict=True)}
            told = {
                **self._standing_of_all(nodes),
                "labels_bought": mean_bought([labels_bought(node) for node in nodes.values()]),
            }
            pooled = [{"recipe": name, **row, **told} for row in pooled_rows(arm, easy, bootstrap)]
            stops = {key: stopped_training(node) for key, node in nodes.items()}
            rows += marked_stopped(pooled, "; ".join(f"{key}: {why}" for key, why in stops.items() if why))
            differences += method_differences(arm, easy, bootstrap)
            differences += arm_differences(arm, arms[0], easy, bootstrap) if arms else []
            arms.append(arm)
        return Pooled(rows, with_holm(differences))

    def _of_seeds(self, keys: Mapping[str, str]) -> list[Artifact]:
        """The numbers of each key, which must be different ones."""
        found: dict[str, tuple[str, Artifact]] = {}
        for key in keys.values():
            artifact = self.metrics_artifact(key)
            if artifact is None:
                raise StoreError(f"{key} has no results yet; run: e2h run {key}")
            if artifact.key in found:
                raise StoreError(f"{found[artifact.key][0]} and {key} are the same results, not two seeds")
            found[artifact.key] = (key, artifact)
        return [artifact for _, artifact in found.values()]

    def _standing_of_all(self, nodes: Mapping[str, Node]) -> dict[str, Any]:
        """Of results over several experiments: a leak or an edit of one is one of all."""
        standings = {key: self._standing(key, [node]) for key, node in nodes.items()}
        leaks = [f"{key}: {leak}" for key, one in standings.items() for leak in one.leaks]
        edited = [f"{key}: {one.outdated}" for key, one in standings.items() if one.outdated]
        strict = all(one.strict for one in standings.values())
        return Standing(strict, tuple(leaks), "; ".join(edited)).as_row()

    def _recovered(
        self, key: str, metrics: Sequence[dict[str, Any]]
    ) -> dict[tuple[Any, ...], dict[str, Any]]:
        """PGR columns by row identity; empty without a ceiling or before it has been run."""
        ceiling = self._ceiling(key)
        artifact = self.metrics_artifact(ceiling) if ceiling else None
        if artifact is None:
            return {}
        full = read_table(artifact.path / "metrics.parquet").to_pylist()
        return {
            _identity(row): {"pgr": row["pgr"], "weak": row["weak"], "ceiling": row["ceiling"]}
            for row in gap_recovered_rows(metrics, full)
            if uses_supervision(row)
        }

    def _ceiling(self, key: str) -> str | None:
        """The ceiling recipe with this key's overrides: same seeds and knobs, all levels
        supervised.

        The name is read from the results: the recipe's file may have been deleted or changed since.
        """
        artifact = self.metrics_artifact(key)
        name = artifact.manifest.recipe["evaluation"]["ceiling"] if artifact else None
        return ceiling_key(key, name) if name else None

    def lineage(self, key: str) -> dict[str, Any]:
        """Trace every benchmark number of an experiment back to its easy data.

        Returns {"experiment", "strict", "leaks", "easy_data_version", "numbers": [...], "sources":
        {stage: {...}}, "artifacts": [...]}. A number names its `source`, the stage that made its samples or scores.
        A source lists every path from there to the easy data, nearest first. Artifacts are all
        inputs of the numbers, with code version, Dagster run (None where Dagster has lost it) and
        the address of the MLflow run.
        """
        artifact = self.metrics_artifact(key)
        if artifact is None:
            raise StoreError(f"{key} has no results yet; run: e2h run {key}")
        node = trace(self.store, artifact)
        sources = {stage: _source(node, stage) for stage in sorted({n.asset for n in ancestors(node)})}
        rows = select(result_rows(key, read_table(artifact.path / "metrics.parquet").to_pylist(), {}))
        reranked = _reranked(node)
        numbers = [
            _number(row, "rerank_metrics" if _identity(row) in reranked else "", sources) for row in rows
        ]
        used = {number["source"] for number in numbers}
        return {
            "experiment": key,
            **self._standing(key, [node]).as_row(),
            "easy_data_version": data_versions(node),
            "artifact": _step(node),
            "numbers": numbers,
            "sources": {stage: source for stage, source in sources.items() if stage in used},
            "artifacts": _made(self.store.home, node),
        }

    def difference(self, first: str, second: str, everything: bool = False) -> dict[str, Any]:
        """What differs upstream of two results, and by how much the numbers moved.

        Args:
            first, second: recipe keys; or KEY@PREFIX, an older result by its artifact key.
            everything: include all N and single levels.

        Returns {"first", "second", "assets": [...], "roots": [...], "numbers": [...], "only_first",
        "only_second"}; see `difference.as_row` and `moved_rows`.

        Raises:
            StoreError: one has no results, or its artifact is not in the store.
        """
        ones, others = self._results_of(first), self._results_of(second)
        stage = next((stage for stage in METRIC_STAGES if stage in ones and stage in others), None)
        if stage is None:
            raise StoreError(
                f"{first} has {', '.join(ones)} and {second} {', '.join(others)}: run both to one stage"
            )
        pair = (ones[stage], others[stage])
        nodes = [trace(self.store, artifact) for artifact in pair]
        lineages = compare(nodes[0], nodes[1])
        metrics = [
            result_rows(key, read_table(artifact.path / "metrics.parquet").to_pylist(), {})
            for key, artifact in zip((first, second), pair, strict=True)
        ]
        shown = metrics if everything else [select(rows) for rows in metrics]
        options = pair[0].manifest.recipe["evaluation"]
        bootstrap = bootstrap_of(options)
        values = [read_table(artifact.path / "values.parquet") for artifact in pair]
        told = [
            {"experiment": name, **_step(node), **self._standing(name.partition("@")[0], [node]).as_row()}
            for name, node in zip((first, second), nodes, strict=True)
        ]
        return {
            "first": told[0],
            "second": told[1],
            "assets": [as_row(asset) for asset in lineages.assets],
            "roots": [asset.asset for asset in lineages.roots],
            "numbers": moved_rows(
                shown[0], metrics[1], (values[0], values[1]), options["easy_levels"], bootstrap
            ),
            "only_first": only_in(shown[0], metrics[1]),
            "only_second": only_in(shown[1], metrics[0]),
        }

    def _results_of(self, name: str) -> dict[str, Artifact]:
        """Tables of numbers by stage: all of an experiment, or the one artifact of KEY@PREFIX."""
        key, at, prefix = name.partition("@")
        if at:
            places = [
                folder
                for stage in METRIC_STAGES
                for folder in sorted((self.store.root / stage).glob("*"))
                if prefix and folder.name.startswith(prefix[:KEY_FOLDER_LENGTH])
            ]
            if len(places) != 1:
                raise StoreError(f"{name}: {len(places)} results in the store have a key that begins so")
            artifact = self.store.open(places[0].parent.name, read_manifest(places[0]).key)
            return {artifact.asset: artifact}
        found = {stage: latest_artifact(self.ledger, self.store, stage, key) for stage in METRIC_STAGES}
        made = {stage: artifact for stage, artifact in found.items() if artifact is not None}
        if not made:
            raise StoreError(f"{key} has no results yet; run: e2h run {key}")
        return made


def seeds_of(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Recipe without its seeds -> name of the seeds -> key. Seed fields are those named `seed`."""
    found: dict[str, dict[str, str]] = {}
    for key in keys:
        name, *parts = key.split("/")
        seeds = [part for part in parts if is_seed(part.partition("=")[0])]
        rest = [part for part in parts if part not in seeds]
        found.setdefault("/".join([name, *rest]), {})["/".join(seeds) or "seed of the recipe"] = key
    return found


def is_seed(field: str) -> bool:
    """Whether a field of a recipe is a seed."""
    return field.split(".")[-1] == "seed"


def mean_bought(bought: Sequence[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, float]]:
    """Labels bought by asset and source, as means over seeds."""
    totals: dict[str, dict[str, float]] = {}
    for asset, source, count in (
        (asset, source, count)
        for one in bought
        for asset, by_source in one.items()
        for source, count in by_source.items()
    ):
        own = totals.setdefault(asset, {})
        own[source] = own.get(source, 0) + count / len(bought)
    return totals


def bootstrap_of(evaluation: Mapping[str, Any]) -> Bootstrap:
    """How a recipe makes its intervals."""
    return Bootstrap(evaluation["bootstrap"], evaluation["confidence"], seed=0)


def tree(experiments: Experiments, key: str) -> Node:
    """The tree of artifacts behind an experiment's numbers."""
    artifact = experiments.metrics_artifact(key)
    if artifact is None:
        raise StoreError(f"{key} has no results yet; run: e2h run {key}")
    return trace(experiments.store, artifact)


def _made(home: Path, node: Node) -> list[dict[str, Any]]:
    """The experiment, time and runs that made each artifact behind a node."""
    return [
        {
            "asset": artifact.asset,
            "key": artifact.key,
            "data_version": artifact.data_version,
            "code_version": artifact.manifest.code_version,
            "experiment": artifact.manifest.experiment,
            "created": artifact.manifest.created,
            "dagster_run": artifact.manifest.run_id,
            "mlflow": mlflow_link(home, artifact.manifest.tracking_url) or artifact.manifest.tracking_url,
            "path": str(artifact.path),
        }
        for artifact in (ancestor.artifact for ancestor in ancestors(node))
    ]


def report_page(folder: Path) -> Path:
    """The page in a report artifact.

    Raises:
        StoreError: there is none.
    """
    pages = sorted(folder.rglob("*.html"))
    if not pages:
        raise StoreError(f"{folder}: no HTML page in the report")
    return pages[0]


def _number(row: dict[str, Any], source: str, sources: dict[str, Any]) -> dict[str, Any]:
    """A result row with its source: the scored pool, or the policy's own answers."""
    source = source or f"{row['policy']}_answers"
    kept = {name: value for name, value in row.items() if name != "data_versions"}
    return {**kept, "source": source, "easy_data_version": sources[source]["easy_data_version"]}


def _reranked(node: Node) -> set[tuple[Any, ...]]:
    """Identities of the numbers that `benchmark_metrics` copies from `rerank_metrics`."""
    found = next(n for n in ancestors(node) if n.asset == "rerank_metrics")
    return {_identity(row) for row in read_table(found.artifact.path / "metrics.parquet").to_pylist()}


def _source(node: Node, stage: str) -> dict[str, Any]:
    found = next(n for n in ancestors(node) if n.asset == stage)
    ways = sorted(paths(found, EASY_DATA), key=len)
    return {
        **_step(found),
        "easy_data_version": data_versions(found),
        "paths": [[_step(step) for step in way] for way in ways],
    }


def _step(node: Node) -> dict[str, str]:
    return {"asset": node.asset, "data_version": node.artifact.data_version, "key": node.artifact.key}


def stopped_training(node: Node) -> str:
    """Why a guard stopped the training of the policy behind some numbers; empty where none did."""
    policies = (n.artifact.manifest.summary for n in ancestors(node) if n.asset == "rl_policy")
    return "; ".join(finding for summary in policies for finding in stop_findings(summary))


def _version_of_each(node: Node) -> dict[str, str]:
    """Asset -> data version over everything behind a node; commas join several versions."""
    versions: dict[str, set[str]] = {}
    for ancestor in ancestors(node):
        versions.setdefault(ancestor.asset, set()).add(ancestor.artifact.data_version)
    return {asset: ",".join(sorted(found)) for asset, found in sorted(versions.items())}


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in _PGR_IDENTITY)
