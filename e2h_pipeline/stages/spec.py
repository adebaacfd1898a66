"""The inputs and the code of a stage, and its request to the store."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import dagster as dg

from e2h_pipeline.artifacts.code_version import Code, CodeChangedError, changed_since, code_behind, look_again
from e2h_pipeline.artifacts.hashing import remembered_hash
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.lineage import EASY_DATA
from e2h_pipeline.artifacts.manifest import InputRef
from e2h_pipeline.artifacts.reads import enforced
from e2h_pipeline.artifacts.request import Artifact, Request
from e2h_pipeline.recipe import FAMILIES, Recipe, RecipeError, RecipeSlice
from e2h_pipeline.registry import ENGINE, REGISTRIES, chosen_code, only
from e2h_pipeline.stages.words import RECIPE_ASSET
from resources.engine import EngineResource

EXPERIMENTS = dg.DynamicPartitionsDefinition(name="experiment")
SPLIT_MODULE = "assets.problems"
RECIPE_FILE = "recipe.json"
HELD_OUT = ("hard_questions", "benchmark_questions")
EXPERIMENT_TAG, RECIPE_TAG, SEED_TAG = "e2h/experiment", "e2h/recipe", "e2h/seed"
GPU_POOL, CPU_POOL = "gpu", "cpu"
OWNERS = ["team:scalable-oversight"]
_LENGTH = 16
_SCOPES = get_args(Recipe.model_fields["scope"].annotation)

Condition = Callable[[RecipeSlice], bool]


def never(_recipe: RecipeSlice) -> bool:
    """For no recipe."""
    return False


def always(_recipe: RecipeSlice) -> bool:
    """For every recipe."""
    return True


def nothing(_recipe: RecipeSlice) -> Sequence[Path]:
    """No files."""
    return ()


@dataclass(frozen=True)
class Without:
    """A section without some fields: `problems` without its split fields identifies the source."""

    section: str
    fields: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.section} without {', '.join(self.fields)}"


@dataclass(frozen=True)
class Where:
    """A section, field or registry that a stage uses for some recipes only.

    A section or field has its default for other recipes.

    Attributes:
        part: such as `sampling` or `sampling.top_k`; among methods a registry's field.
        wanted: the condition on the recipe.
    """

    part: str
    wanted: Condition

    def __str__(self) -> str:
        return f"{self.part} where it is used"


Part = str | Without | Where
"""Part of a recipe: a section, a field (`problems.seed`), or one of the above."""


@dataclass(frozen=True)
class Stage:
    """The inputs of a stage, and its code.

    Attributes:
        reads: upstream assets besides `recipe`.
        sections: parts of the recipe that the body may read.
        audit: this stage may see gold answers; nothing that trains or selects may depend on it.
        declassifies: this stage may read an audit stage, because it leaves the answers out: the
            split of the problems, and nothing else.
        code: the body and its dependencies, without the methods that a recipe chooses.
        files: they are code but not imported (templates).
        methods: registry fields; the body uses the chosen entries.
        uses_if: `module:Name` -> condition, for code that the body loads by `registry.resolve`.
        reads_if: upstream asset -> condition on the recipe.
        samples: condition under which the body draws with the engine, which is then in the key.
        external: fingerprint of outside data, from the recipe slice.
        outside: files and folders outside of the store that the body may open. They must not change
            while it runs.
        fetches: the body may read data sets of the Hub, by a commit in `external`.
        distributed: condition under which the body may run in several processes under accelerate.
        grows: recipe field with the wanted amount; a larger request extends a smaller one.
        gpu: the body uses a GPU if there is one.
        watches: Dagster assets that are not artifacts; a change in one makes this stage stale.
        wanted: condition under which a run of a whole experiment makes it.
    """

    name: str
    module: str
    reads: tuple[str, ...]
    sections: tuple[Part, ...]
    audit: bool
    code: Code
    files: tuple[Path, ...] = ()
    declassifies: bool = False
    methods: tuple[str | Where, ...] = ()
    uses_if: Mapping[str, Condition] = field(default_factory=dict)
    reads_if: Mapping[str, Condition] = field(default_factory=dict)
    samples: Condition = never
    external: Callable[[RecipeSlice], Any] | None = None
    outside: Callable[[RecipeSlice], Sequence[Path]] = nothing
    fetches: bool = False
    distributed: Condition = never
    grows: str = ""
    gpu: bool = False
    watches: tuple[str, ...] = ()
    wanted: Condition = always

    def __post_init__(self) -> None:
        if self.declassifies and self.module != SPLIT_MODULE:
            raise ValueError(f"{self.name}: only the split of the problems ({SPLIT_MODULE}) declassifies")

    def inputs(self, recipe: RecipeSlice) -> tuple[str, ...]:
        """Upstream assets for this recipe."""
        return (*self.reads, *(name for name, wanted in self.reads_if.items() if wanted(recipe)))

    @property
    def upstream(self) -> tuple[str, ...]:
        """Upstream stages over all recipes, as in Dagster's graph."""
        return () if self.name == RECIPE_ASSET else (RECIPE_ASSET, *self.reads, *self.reads_if)

    def code_behind(self, recipe: RecipeSlice, engine: str) -> dict[str, Code]:
        """Name -> code of the body and of the methods that the recipe chooses."""
        used = {target: code_behind(target) for target, wanted in self.uses_if.items() if wanted(recipe)}
        return {"body": self.code, **used, **dict(chosen_code(self.registries(recipe), recipe, engine))}

    def registries(self, recipe: RecipeSlice) -> tuple[str, ...]:
        """Fields of the registries that the body may load from for this recipe."""
        fields = [
            method if isinstance(method, str) else method.part
            for method in self.methods
            if isinstance(method, str) or method.wanted(recipe)
        ]
        return (*fields, ENGINE) if self.samples(recipe) else tuple(fields)

    def version(self, recipe: RecipeSlice, engine: str) -> str:
        """Code version of the stage for this recipe, 16 hex digits."""
        return _together(self.code_behind(recipe, engine), self.files)

    def version_of_all(self) -> str:
        """Code version over all methods, for Dagster to watch.

        It changes too often rather than too seldom: a step with unchanged methods still finds its
        artifact in the store."""
        fields = [method if isinstance(method, str) else method.part for method in self.methods]
        fields += [] if self.samples is never else [ENGINE]
        used = {target: code_behind(target) for target in self.uses_if}
        every = {f"{f}={word}": REGISTRIES[f].code(word) for f in fields for word in REGISTRIES[f].words()}
        return _together({"body": self.code, **used, **every}, self.files)

    @contextmanager
    def running(self, job: StageJob) -> Iterator[None]:
        """Ensure that the body runs the code of the key and uses only what is declared: methods,
        and files.

        All code of the stage is loaded first, so that a later edit of a file cannot get in. Other
        processes read their code from disk, so it is checked again at the end.

        Raises:
            CodeChangedError: the code differs from that of the key, at the start or at the end.
            UndeclaredReadError: the body opened a file that the stage does not declare.
        """
        began = time.time()
        if job.code_version:
            for code in self.code_behind(job.recipe, job.work.engine).values():
                code.load()
            self._require_code(job, began)
        with only(self.registries(job.recipe)), enforced(job.reads):
            yield
        if job.code_version:
            self._require_code(job, began)

    def _require_code(self, job: StageJob, began: float) -> None:
        look_again()
        found = self.code_behind(job.recipe, job.work.engine)
        if _together(found, self.files) == job.code_version:
            return
        files = ", ".join(map(str, changed_since(found.values(), began - _EDITED_SECONDS))) or "its code"
        raise CodeChangedError(
            f"{self.name}: {files} was edited while the stage was starting or running, so the result would "
            "mix versions of the code; nothing was kept. Run it again"
        )


STAGES: dict[str, Stage] = {}
_EDITED_SECONDS = 60.0  # an edit shortly before the start may also be the cause


def _together(code: Mapping[str, Code], files: Iterable[Path]) -> str:
    text = "".join(f"{name}:{part.version()};" for name, part in sorted(code.items()))
    text += "".join(f"{path.name}:{remembered_hash(path)};" for path in files)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def beyond(scope: str) -> Condition:
    """Whether an experiment goes further than a scope."""
    return lambda recipe: _SCOPES.index(recipe.scope) > _SCOPES.index(scope)


def needed_by(names: Iterable[str], recipe: Recipe) -> frozenset[str]:
    """Some registered stages and everything that they need for this recipe: inputs, and what the
    firewall's checks compare rows that train with."""
    whole, found, missing = recipe.slice(type(recipe).model_fields), {RECIPE_ASSET}, list(names)
    while missing:
        name = missing.pop()
        if name not in found:
            found.add(name)
            inputs = STAGES[name].inputs(whole)
            missing += [*inputs, *(HELD_OUT if EASY_DATA in inputs else ())]
    return frozenset(found)


def tags_of(key: str) -> dict[str, str]:
    """Tags of an experiment's runs, as far as its key tells them; the key may be wrong."""
    name, *overrides = key.split("/")
    given = dict(part.split("=", 1) for part in overrides if "=" in part)
    seed = {SEED_TAG: given["seed"]} if "seed" in given else {}
    return {EXPERIMENT_TAG: key, RECIPE_TAG: name, **seed}


def seed_of(recipe: RecipeSlice) -> int | None:
    """The seed, if the stage declares it."""
    return int(recipe.seed) if "seed" in recipe.sections else None


def request_of(
    spec: Stage,
    view: RecipeSlice,
    inputs: Mapping[str, Artifact],
    engine: EngineResource,
    experiment: str,
) -> Request:
    """A stage's request to the store; its key is known before anything is computed.

    Args:
        view: the recipe, narrowed to the parts that the stage reads.
        inputs: the artifacts of `spec.inputs(view)`.
    """
    return with_inputs(request_without_inputs(spec, view, engine, experiment), inputs)


def request_without_inputs(
    spec: Stage, view: RecipeSlice, engine: EngineResource, experiment: str
) -> Request:
    """The part of a stage's request that follows from the recipe, the code and outside data."""
    external = spec.external(view) if spec.external else None
    return Request(
        asset=spec.name,
        code_version=spec.version(view, engine.name),
        recipe=view.as_dict(),
        external={"engine": engine.version(), "data": external} if spec.samples(view) else external,
        experiment=experiment,
        grows=spec.grows,
    )


def with_inputs(request: Request, inputs: Mapping[str, Artifact]) -> Request:
    """A request on these inputs."""
    refs = {name: InputRef(key=a.key, data_version=a.data_version) for name, a in inputs.items()}
    return replace(request, inputs=refs)


def outside_data(recipe: Recipe) -> list[Path]:
    """All data outside of the store that any stage reads for this recipe; nothing of a source that
    cannot be used."""
    found: list[Path] = []
    for spec in STAGES.values():
        with suppress(ValueError, OSError):
            found += spec.outside(narrow(recipe, spec.sections))
    return found


def load_recipe(artifact: Artifact) -> Recipe:
    """Read a `recipe` artifact.

    Raises:
        RecipeError: it was written by a version with other fields.
    """
    path: Path = artifact.path / RECIPE_FILE
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise RecipeError(f"{path}: does not fit this version ({error}); materialize recipe again") from None


def section_of(part: Part) -> str:
    """The top-level field of a recipe that a part belongs to."""
    if isinstance(part, Without):
        return part.section
    return (part.part if isinstance(part, Where) else part).partition(".")[0]


def narrow(recipe: Recipe, parts: Iterable[Part]) -> RecipeSlice:
    """A slice of whole sections, single fields (`problems.world`), and sections without some
    fields.

    Other fields are reset to their defaults: the body cannot see their values and they enter no
    key, so changing them re-makes nothing here. A named field of another method, which this
    recipe's section lacks, is left out.
    """
    kept: dict[str, set[str] | None] = {}
    whole = recipe.slice(type(recipe).model_fields)
    for part in parts:
        if isinstance(part, Where):
            if not part.wanted(whole):
                kept.setdefault(part.part.partition(".")[0], set())
                continue
            part = part.part
        if isinstance(part, Without):
            fields = set(type(getattr(recipe, part.section)).model_fields)
            kept[part.section] = fields - set(part.fields)
            continue
        section, _, inner = part.partition(".")
        if not inner:
            kept[section] = None
        elif (some := kept.setdefault(section, set())) is not None:
            some.add(inner)
    updates = {}
    for section, chosen in kept.items():
        if chosen is not None:
            value = getattr(recipe, section)
            if not chosen and section in FAMILIES:  # nothing of it is used, its method neither
                updates[section] = FAMILIES[section].parse({})
                continue
            present = chosen & set(type(value).model_fields)
            updates[section] = type(value)(**{inner: getattr(value, inner) for inner in sorted(present)})
    return recipe.model_copy(update=updates).slice(kept)
