"""All that is wrong with a recipe, in words: each error with its file, its field, and the nearest
right name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from e2h_pipeline.recipe.families import FAMILIES
from e2h_pipeline.recipe.layers import Layer, origin
from e2h_pipeline.recipe.section import RecipeError, Section, did_you_mean

Place = tuple[str | int, ...]
_FIELD = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*")
_CHOICE = re.compile(r"'([^']*)'")


def explained(
    error: ValidationError,
    recipe: type[Section],
    data: Layer,
    found: Layer,
    files: Sequence[str],
    whole: bool = True,
) -> Iterator[str]:
    """One line for each error.

    Args:
        data: the data of the recipe.
        found: where each value comes from (`layers.origins`).
        files: names of files; a value from elsewhere comes from the key, which the caller names.
        whole: `data` has all sections. Else what sections ask of each other is not told.
    """
    for one in error.errors():
        place = one["loc"]
        if not (place or whole):
            continue
        said = _said(one, recipe, data)
        source = _source(found, place or _field_in(said, found))
        yield f"{source}: {said}" if source in files else said


def last_to_set(section: str, layers: Sequence[tuple[str, Layer]], files: Sequence[str]) -> str:
    """The file, with a colon behind it, if it is the last layer with a section; empty if that is the key."""
    source = next(name for name, layer in reversed(layers) if section in layer)
    return f"{source}: " if source in files else ""


def _said(one: ErrorDetails, recipe: type[Section], data: Layer) -> str:
    place, where = one["loc"], ".".join(map(str, one["loc"]))
    if one["type"] == "extra_forbidden":
        return f"no field '{where}'{_nearest(place, recipe, data)}"
    message = one["msg"].removeprefix("Value error, ")
    if one["type"] == "literal_error":
        message += f", not '{str(one['input'])[:60]}'"
        message += did_you_mean(str(one["input"]), _CHOICE.findall(str(one.get("ctx", {}).get("expected"))))
    return f"{where}: {message}" if where else message


def _source(found: Layer, place: Place) -> str:
    """The layer of the value at a place, or of what is around it."""
    return next(filter(None, (origin(found, place[:end]) for end in range(len(place), 0, -1))), "")


def _field_in(message: str, found: Layer) -> Place:
    """The first field that a message about several names and a layer sets."""
    fields: Iterable[Place] = (tuple(name.split(".")) for name in _FIELD.findall(message))
    return next((field for field in fields if origin(found, field)), ())


def _nearest(place: Place, recipe: type[Section], data: Layer) -> str:
    """The field that was meant: one of the same section with a name like it, or one of another section with its
    name."""
    *parents, leaf = place
    section = _section_at(parents, recipe, data)
    if near := did_you_mean(str(leaf), section.model_fields if section else ()):
        return near
    elsewhere = [
        f"{name}.{leaf}"
        for name in recipe.model_fields
        if (other := _section_at([name], recipe, data)) and leaf in other.model_fields
    ]
    return f"; did you mean '{elsewhere[0]}'?" if elsewhere else ""


def _section_at(place: Sequence[str | int], recipe: type[Section], data: Layer) -> type[BaseModel] | None:
    """The model of a section, by its place; of a section with methods that of the chosen one."""
    section: type[BaseModel] | None = recipe
    value: Any = data
    for name in place:
        if section is None:
            return None
        if isinstance(name, int):
            value = value[name] if isinstance(value, list) and name < len(value) else None
        else:
            value = value.get(name) if isinstance(value, Mapping) else None
        if section is recipe and name in FAMILIES:
            section = _method(str(name), value[0] if isinstance(value, list) and value else value)
        elif isinstance(name, int) and place[0] in FAMILIES:
            section = _method(str(place[0]), value) if place.index(name) == 1 else section
        elif isinstance(name, str):
            section = _model(section.model_fields[name].annotation) if name in section.model_fields else None
    return section


def _method(name: str, value: Any) -> type[BaseModel] | None:
    family = FAMILIES[name]
    word = value.get(family.tag, family.default) if isinstance(value, Mapping) else family.default
    try:
        return family.member(str(word))
    except RecipeError:
        return None


def _model(annotation: Any) -> type[BaseModel] | None:
    """The section behind an annotation: it, or the items of a list of it."""
    if get_origin(annotation) is not None:
        return next(filter(None, map(_model, get_args(annotation))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
