"""Requests of many experiments to the store: what they share is worked out once.

The members of a sweep differ in a field or two, so nearly all stages read equal parts of their
recipes. Narrowing a recipe and hashing a request cost more than everything else of a plan.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cache, cached_property
from sys import intern
from typing import Any

from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.artifacts.request import Artifact, Request
from e2h_pipeline.recipe import Recipe, RecipeSlice
from e2h_pipeline.stages.spec import (
    Condition,
    Part,
    Stage,
    Where,
    narrow,
    request_without_inputs,
    section_of,
    with_inputs,
)
from resources.engine import EngineResource


class Read:
    """A recipe that was read, with the text of each field, by which fields of recipes are compared."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.whole = recipe.slice(Recipe.model_fields)
        self.texts = {name: intern(text) for name, text in recipe.texts().items()}


class Requests:
    """The requests of stages, for one look at the store: code and outside data are taken as they
    are at the first question."""

    def __init__(self, engine: EngineResource) -> None:
        self._engine = engine
        self._slices: dict[Hashable, _Slice] = {}

    def of(self, spec: Stage, read: Read, made: Mapping[str, Artifact]) -> Request | None:
        """A stage's request; it names no experiment, because several may share it.

        None while an input is missing, and where data cannot be read: the run will report that, and
        no other experiment waits for this stage.

        Args:
            made: the artifacts of the experiment so far, by stage.
        """
        found = self._slice(spec, read)
        inputs = {name: made[name] for name in found.wanted if name in made}
        return found.request(inputs) if len(inputs) == len(found.wanted) else None

    def differs(self, spec: Stage, read: Read, external: Any) -> bool:
        """Whether data outside the store is other than it was for an artifact with this fingerprint;
        no, where it cannot be read."""
        return self._slice(spec, read).other_data(external)

    def _slice(self, spec: Stage, read: Read) -> _Slice:
        seen = _seen(spec, read)
        found = self._slices.get(seen)
        if found is None:
            found = self._slices[seen] = _Slice(spec, narrow(read.recipe, spec.sections), self._engine)
        return found


class _Slice:
    """A slice of a recipe for a stage, and what follows from it."""

    def __init__(self, spec: Stage, view: RecipeSlice, engine: EngineResource) -> None:
        self._spec, self._view, self._engine = spec, view, engine
        self.wanted = spec.inputs(view)
        self._requests: dict[Hashable, Request] = {}

    def request(self, inputs: Mapping[str, Artifact]) -> Request | None:
        """The request on these inputs; None where data cannot be read."""
        if self._blank is None:
            return None
        versions = tuple((artifact.key, artifact.data_version) for artifact in inputs.values())
        found = self._requests.get(versions)
        if found is None:
            found = self._requests[versions] = with_inputs(self._blank, inputs)
        return found

    def other_data(self, external: Any) -> bool:
        """`Requests.differs`."""
        if self._blank is None:
            return False
        now = self._blank.external
        if self._spec.samples(self._view):  # beside the data stands who samples
            now, external = now["data"], external and external["data"]
        return digest_json(now) != digest_json(external)

    @cached_property
    def _blank(self) -> Request | None:
        """The request without inputs."""
        try:
            return request_without_inputs(self._spec, self._view, self._engine, experiment="")
        except (OSError, ValueError):
            return None


def _seen(spec: Stage, read: Read) -> Hashable:
    """All of a recipe that can shape a stage's slice of it."""
    conditions, sections = _shapers(spec.sections)
    return (spec.name, *(wanted(read.whole) for wanted in conditions), *(read.texts[s] for s in sections))


@cache
def _shapers(parts: tuple[Part, ...]) -> tuple[tuple[Condition, ...], tuple[str, ...]]:
    """The conditions and the sections that decide about these parts of a recipe."""
    conditions = tuple(part.wanted for part in parts if isinstance(part, Where))
    return conditions, tuple(dict.fromkeys(map(section_of, parts)))
