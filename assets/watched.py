"""Outside data that may change at any time: Dagster watches it and never makes it.

One external asset for each kind. The sensor `watch_files` reports their versions
(`e2h_pipeline/orchestration/source_watch.py`). They are not `observable_source_asset`s: those start
a run for each look, and give a version without its reasons. The sensor reports only new versions,
with their reasons.
"""

# No `from __future__ import annotations`: Dagster wants the real type of `context`.

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.problems.files import SourceState
from e2h_pipeline.recipe import SPLIT_FIELDS, Recipe, RecipeError, RecipeSlice, with_inner
from e2h_pipeline.registry import EVALUATOR_KINDS, LABEL_SOURCES, SAMPLE_SOURCES, SOLUTION_SOURCES
from e2h_pipeline.stages.spec import EXPERIMENTS, OWNERS, Part, Without, narrow
from resources.store import StoreResource

PROBLEM_FILES, SOLUTION_FILES = "problem_files", "solution_files"
LABEL_FILES, MODEL_FILES, HUMAN_STEP_FILES = "label_files", "base_model_files", "human_step_files"
SAMPLE_FILES, EVALUATOR_FILES = "sample_files", "evaluator_files"
READABLE = "source_readable"
_LISTED = 20  # experiments that an alert names
PROBLEM_SOURCE = Without("problems", SPLIT_FIELDS)
"""Fields that identify the source of problems, not an experiment's choice of problems."""
SUPPLIED_SAMPLES = Without("samples", ("author",))
"""Fields that shape a pool of samples; the author's name is for tables."""


@dataclass(frozen=True)
class Watched:
    """An asset that is only watched.

    Attributes:
        fields: recipe parts that define the data to watch. Experiments that agree on them share one
            look.
        look: returns the state of the data, from these parts.
    """

    name: str
    fields: tuple[Part, ...]
    look: Callable[[RecipeSlice], SourceState]
    group: str
    description: str

    @property
    def spec(self) -> dg.AssetSpec:
        """The asset in Dagster's graph."""
        fields = ", ".join(f"`{field}`" for field in self.fields)
        return dg.AssetSpec(
            self.name,
            partitions_def=EXPERIMENTS,
            group_name=self.group,
            kinds={"file"},
            owners=OWNERS,
            tags={"e2h/supervision": "source", "e2h/device": "cpu"},
            description=f"{self.description} Looked at every minute; the latest event says what changed.\n\n"
            f"Version = hash of the content. Recipe: {fields}.",
        )

    def options(self, recipe: Recipe) -> RecipeSlice:
        """The part of a recipe that defines the data to watch."""
        return narrow(recipe, self.fields)

    def state(self, options: RecipeSlice) -> SourceState:
        """`look`, where an unexpected error is a state too: it must not stop other experiments."""
        try:
            return self.look(options)
        except Exception as error:  # noqa: BLE001 -- installed sources raise what they like
            return SourceState(error=f"{self.name}: {type(error).__name__}: {error}")

    def by_source(self, keys: Iterable[str]) -> dict[str, list[str]]:
        """Experiments by the recipe and those overrides that can name other data.

        Thousands of experiments differ in other fields alone. They have the same source, so one of
        their recipes is parsed for all of them.
        """
        found: dict[str, list[str]] = {}
        for key in keys:
            name, *overrides = key.split("/")
            own = [o for o in overrides if any(_reads(part, o.partition("=")[0]) for part in self.fields)]
            found.setdefault("/".join([name, *own]), []).append(key)
        return found


def _reads(part: Part, field: str) -> bool:
    """Whether an override of a field can change a part of a recipe."""
    if isinstance(part, Without):
        section, _, rest = field.partition(".")
        return section == part.section and rest not in part.fields
    name = part if isinstance(part, str) else part.part
    return f"{field}.".startswith(f"{name}.") or f"{name}.".startswith(f"{field}.")


def recipe_of_source(keys: Sequence[str], folders: Sequence[Path]) -> Recipe:
    """The recipe of one of the experiments on a source: of the first that can be read.

    Raises:
        RecipeError: none can be read.
    """
    for key in keys[:-1]:
        try:
            return Recipe.from_key(key, folders)
        except RecipeError:
            continue  # an override of old, in another section
    return Recipe.from_key(keys[-1], folders)


def _look_at_problems(recipe: RecipeSlice) -> SourceState:
    from e2h_pipeline.problems.source import look_at_source

    return look_at_source(recipe.problems)


def _look_at_solutions(recipe: RecipeSlice) -> SourceState:
    from e2h_pipeline.problems.supplied_files import look_at_supplied

    options = recipe.solutions
    return look_at_supplied("solutions", [(SOLUTION_SOURCES.load(options.source)(), options)])


def _look_at_labels(recipe: RecipeSlice) -> SourceState:
    from e2h_pipeline.problems.supplied_files import look_at_supplied

    sources = [(LABEL_SOURCES.load(options.source)(), options) for options in with_inner(recipe.labels)]
    return look_at_supplied("labels", sources)


def _look_at_human_steps(recipe: RecipeSlice) -> SourceState:
    from e2h_pipeline.evaluation.step_benchmarks.human_steps import look_at_human_steps

    return look_at_human_steps(recipe.human_steps)


def _look_at_samples(recipe: RecipeSlice) -> SourceState:
    from e2h_pipeline.problems.supplied_files import look_at_supplied

    options = recipe.samples
    return look_at_supplied("samples", [(SAMPLE_SOURCES.load(options.source)(), options)])


def _look_at_model(recipe: RecipeSlice) -> SourceState:
    from e2h_pipeline.models.watch import look_at_model

    return look_at_model(recipe.base)


def _look_at_evaluator(recipe: RecipeSlice) -> SourceState:
    from e2h_pipeline.models.watch import look_at_sources

    return look_at_sources("reward", EVALUATOR_KINDS.load(recipe.reward.kind)().sources(recipe.reward))


WATCHED = (
    Watched(
        PROBLEM_FILES,
        (PROBLEM_SOURCE,),
        _look_at_problems,
        "data",
        "The files or Hub commits of an experiment's problems (`problems.hub`, or for MATH `problems.path` "
        "or `E2H_DATA_DIR/math`). Only content counts, not file times.",
    ),
    Watched(
        SOLUTION_FILES,
        ("solutions",),
        _look_at_solutions,
        "data",
        "The files of solutions written by other people (`solutions.path` or `E2H_DATA_DIR`) that train an "
        "experiment's policy. Only content counts, not file times.",
    ),
    Watched(
        LABEL_FILES,
        ("labels",),
        _look_at_labels,
        "evaluator",
        "The files of an experiment's step labels (`labels.path` or `E2H_DATA_DIR/steps`), for sources that "
        "read files. Only content counts, not file times.",
    ),
    Watched(
        MODEL_FILES,
        ("base.model", "base.file", "base.revision", "base.train"),
        _look_at_model,
        "policy",
        "The folder or GGUF file of `base.model`, if it is local or shipped; for a model on the Hub, only "
        "`base.revision`. The files are too large to read every minute, so sizes and times count here; "
        "`base_model` hashes the files.",
    ),
    Watched(
        HUMAN_STEP_FILES,
        ("human_steps",),
        _look_at_human_steps,
        "results",
        "The files of step labels by people (`human_steps.path` or `E2H_DATA_DIR/steps`) that an "
        "experiment's evaluator is judged on. Only content counts, not file times.",
    ),
    Watched(
        SAMPLE_FILES,
        (SUPPLIED_SAMPLES,),
        _look_at_samples,
        "reranking",
        "The file of other people's samples (`samples.path`, or its name in `E2H_DATA_DIR/outputs`) that "
        "an experiment reranks. Only content counts, not file times.",
    ),
    Watched(
        EVALUATOR_FILES,
        ("reward",),
        _look_at_evaluator,
        "evaluator",
        "The files and folders that an evaluator is made of besides labels: of others' evaluators "
        "(`reward.evaluator`). Sizes and times count here; `easy_evaluator` hashes the files.",
    ),
)


def readable_result(errors: Mapping[str, Sequence[str]]) -> dg.AssetCheckResult:
    """The result of the check.

    Args:
        errors: error -> the experiments whose source cannot be read.
    """
    findings = [f"{error} ({_listed(keys)})" for error, keys in errors.items()]
    listed = "\n".join(f"- {finding}" for finding in findings) or "nothing"
    return dg.AssetCheckResult(
        passed=not errors,
        description=f"{findings[0]}; nothing is made from unreadable data" if findings else None,
        metadata={
            "findings": dg.MetadataValue.md(listed),
            "experiments_stopped": sum(map(len, errors.values())),
        },
    )


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + more


def _readable(watched: Watched) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=watched.name,
        name=READABLE,
        description="The data of every experiment exists and can be read.",
    )
    def check(context: dg.AssetCheckExecutionContext, store: StoreResource) -> dg.AssetCheckResult:
        errors: dict[str, list[str]] = {}
        experiments = context.instance.get_dynamic_partitions(str(EXPERIMENTS.name))
        for keys in watched.by_source(experiments).values():
            try:
                recipe = recipe_of_source(keys, recipe_folders(store.home_folder))
            except RecipeError:
                continue  # old experiments without a recipe
            if error := watched.state(watched.options(recipe)).error:
                errors.setdefault(error, []).extend(keys)
        return readable_result(errors)

    return check


(
    problems_readable,
    solutions_readable,
    labels_readable,
    base_model_readable,
    human_steps_readable,
    samples_readable,
    evaluators_readable,
) = map(_readable, WATCHED)
