"""TODO: docstring."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import dagster as dg

from e2h_pipeline.artifacts.manifest import InputRef
from e2h_pipeline.artifacts.request import Artifact, Request
from e2h_pipeline.recipe import Recipe, RecipeError, RecipeSlice
from resources.engine import EngineResource

EXPERIMENTS = dg.DynamicPartitionsDefinition(name="experiment")
RECIPE_ASSET = "recipe"
RECIPE_FILE = "recipe.json"


EXPERIMENT_TAG, RECIPE_TAG, SEED_TAG = "e2h/experiment", "e2h/recipe", "e2h/seed"


GPU_POOL, CPU_POOL = "gpu", "cpu"


OWNERS = ["team:scalable-oversight"]


@dataclass(frozen=True)
class Stage:
    """What a stage reads, and the code behind it.

    Attributes:
        reads: upstream assets besides `recipe`.
        sections: parts of the recipe the body may read; `problems.world` narrows to one field.
        audit: this stage may see gold answers, and nothing that trains or selects may depend on it.
        external: fingerprint of what lies outside the store, from the recipe slice.
        distributed: the body may run in several processes under accelerate.
        grows: field of the recipe that says how much is wanted of the same.
        reads_if: field of the recipe to upstream assets that are read only where it is set.
        samples: the body draws with the engine, which is in the key then.
        gpu: the body uses a GPU where there is one.
        watches: assets of Dagster that are no artifacts, whose change makes this one be made again.
    """

    name: str
    module: str
    reads: tuple[str, ...]
    sections: tuple[str, ...]
    audit: bool
    code_version: str
    external: Callable[[RecipeSlice], Any] | None = None
    distributed: bool = False
    grows: str = ""
    reads_if: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    samples: bool = False
    gpu: bool = False
    watches: tuple[str, ...] = ()

    def inputs(self, recipe: RecipeSlice) -> tuple[str, ...]:
        """Upstream assets that a recipe makes it read."""
        wanted = (names for option, names in self.reads_if.items() if attrgetter(option)(recipe))
        return (*self.reads, *chain.from_iterable(wanted))


STAGES: dict[str, Stage] = {}


def request_of(
    spec: Stage,
    view: RecipeSlice,
    inputs: Mapping[str, Artifact],
    engine: EngineResource,
    experiment: str,
) -> Request:
    """What a stage asks the store for: its key is known before anything is computed.

    Args:
        view: the recipe, narrowed to what the stage reads.
        inputs: the artifacts of `spec.inputs(view)`.
    """
    external = spec.external(view) if spec.external else None
    return Request(
        asset=spec.name,
        code_version=spec.code_version,
        recipe=view.as_dict(),
        inputs={name: InputRef(key=a.key, data_version=a.data_version) for name, a in inputs.items()},
        external={"engine": engine.version(), "data": external} if spec.samples else external,
        experiment=experiment,
        grows=spec.grows,
    )


def load_recipe(artifact: Artifact) -> Recipe:
    """Read back a `recipe` artifact.

    Raises:
        RecipeError: it was written by a version with other fields.
    """
    path: Path = artifact.path / RECIPE_FILE
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise RecipeError(f"{path}: does not fit this version ({error}); materialize recipe again") from None


def narrow(recipe: Recipe, sections: Iterable[str]) -> RecipeSlice:
    """A slice of whole sections and single fields (`problems.world`).

    Fields of a section that are not named are reset to their defaults: the body cannot see their
    values, and they enter no key, so changing them re-makes nothing here.
    """
    kept: dict[str, list[str]] = {}
    for name in sections:
        section, _, inner = name.partition(".")
        kept.setdefault(section, []).append(inner)
    updates = {}
    for section, fields in kept.items():
        if "" not in fields:
            value = getattr(recipe, section)
            updates[section] = type(value)(**{inner: getattr(value, inner) for inner in fields})
    return recipe.model_copy(update=updates).slice(kept)
