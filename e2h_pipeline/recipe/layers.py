"""From files and overrides to the data of one recipe: layers, and later layers win.

A recipe file may extend another; the overrides of a key are the last layer. Sections that are a
union keyed by the method's name (`families`) have two rules of their own:

- A layer that names another method drops the fields that the two methods do not share. So
  `rl.algorithm=rest` in a key drops PPO's clip range, which a file below set. A field of another
  method in the *same* layer is an error.
- A file may set fields for a method that it does not choose: `when: {rest: {samples: 16}}` inside
  the section.

`origins` lays the same layers with the name of each value's file instead of the value: for errors,
and for people who ask where a value comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Any

from e2h_pipeline.recipe.families import FAMILIES
from e2h_pipeline.recipe.keys import RECIPE_NAME, recipe_names
from e2h_pipeline.recipe.old_spellings import new_spelling
from e2h_pipeline.recipe.scalars import Plain, typed
from e2h_pipeline.recipe.section import Family, RecipeError, did_you_mean
from e2h_pipeline.recipe.yaml_files import parse_yaml, read_text

Layer = dict[str, Any]
WHEN = "when"
_NAME_OR_NONE: frozenset[type] = frozenset({str, NoneType})
_DIGITS = 9
_LISTS = ("labels", "searches")
"""Families with a list of sections in a recipe; keys set their fields by number
(`labels.0.weight`)."""


def recipe_layers(name: str, folders: Sequence[Path]) -> list[Layer]:
    """The data of the files that a recipe file extends, then its own; not to be changed.

    Raises:
        RecipeError: see `recipe_files`.
    """
    return [file.data for file in recipe_files(name, folders)]


@dataclass(frozen=True)
class FileLayer:
    """A file as a layer.

    Attributes:
        path: the file.
        extends: what it says there.
        data: its other fields; not to be changed.
        moved: its fields that have another name by now, which `data` lacks.
    """

    path: Path
    extends: Any
    data: Layer
    moved: tuple[str, ...]


def recipe_files(name: str, folders: Sequence[Path], above: tuple[str, ...] = ()) -> list[FileLayer]:
    """The files that a recipe file extends, then its own.

    Raises:
        RecipeError: no such file, not readable as YAML, not a mapping, or it extends itself.
    """
    path = next((p for folder in folders if (p := Path(folder) / f"{name}.yaml").exists()), None)
    if path is None:
        known = recipe_names(folders)
        raise RecipeError(f"no recipe '{name}'{did_you_mean(name, known)}; there are: {', '.join(known)}")
    file = _file_layer(path, read_text(path))
    parent = file.extends
    if parent is None:
        return [file]
    if parent in (*above, name) or not isinstance(parent, str) or not RECIPE_NAME.fullmatch(parent):
        raise RecipeError(f"{path}: extends: {str(parent)[:60]} is not another recipe's name")
    return [*recipe_files(parent, folders, (*above, name)), file]


@lru_cache(maxsize=256)
def _file_layer(path: Path, text: str) -> FileLayer:
    """A file. Thousands of experiments share one."""
    data = parse_yaml(path, text)
    if not isinstance(data, dict):
        kind = "list" if isinstance(data, list) else "text"
        raise RecipeError(f"{path}: a recipe is a mapping of sections, not a {kind}")
    parent = typed(data.pop("extends", None), _NAME_OR_NONE)
    moved = [field for field in _fields(data) if new_spelling(field)]
    inner = tuple(field for field in moved if not any(other.startswith(f"{field}.") for other in moved))
    return FileLayer(path, parent, _without(data, moved) if moved else data, inner)


def _without(data: Mapping[str, Any], fields: Sequence[str], prefix: str = "") -> Layer:
    """Data without some fields."""
    return {
        name: _without(value, fields, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in data.items()
        if f"{prefix}{name}" not in fields
    }


def override_layer(overrides: Mapping[str, str], key: str) -> Layer:
    """The overrides of a key as a layer.

    Raises:
        RecipeError: a field is inside another that is not a section, or has an old spelling.
    """
    layer: Layer = {}
    if moved := [(field, new) for field in overrides if (new := new_spelling(field))]:
        raise RecipeError(*(f"key '{key}': {field} is now {new}" for field, new in moved))
    for field, text in overrides.items():
        *parents, leaf = field.split(".")
        node = layer
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise RecipeError(f"{field} in key '{key}': {parent} is not a section")
        node[leaf] = _value(text)
    return layer


def _value(text: str) -> Any:
    """A value of a key, to be typed by its field; commas make a list."""
    return [Plain(item) for item in text.split(",") if item] if "," in text else Plain(text)


def laid_together(layers: Sequence[Layer]) -> tuple[Layer, dict[str, str]]:
    """The data of a recipe from its layers; and of sections that cannot be laid together, which the data lacks,
    the reason: a section of methods is not a mapping, or a field is set without the number of its label source.
    """
    merged: Layer = {}
    wrong: dict[str, str] = {}
    for name in dict.fromkeys(name for layer in layers for name in layer):
        values = [layer[name] for layer in layers if name in layer]
        try:
            merged[name] = _section(name, values)
        except RecipeError as error:
            wrong[name] = str(error)
    return merged, wrong


def _section(name: str, values: Sequence[Any]) -> Any:
    """A section, or a field of the recipe itself, from its layers."""
    if name in _LISTS:
        return _list_of_methods(FAMILIES[name], values)
    if name in FAMILIES:
        return _one_method(FAMILIES[name], values)
    merged = values[0]
    for value in values[1:]:
        merged = laid_over(merged, value)
    return merged


class From(str):
    """A value of a layer that knows its layer. Its text is the value: it may be the word of a method."""

    source: str


def origins(layers: Sequence[tuple[str, Layer]]) -> Layer:
    """The data of a recipe with a `From` instead of each value.

    Args:
        layers: each with its name, such as its file.
    """
    return laid_together([_marked(layer, source) for source, layer in layers])[0]


def origin(found: Layer, place: Sequence[str | int]) -> str:
    """The name of the layer that a value comes from; of a section, of one of its values; empty where no layer
    has it.

    Args:
        found: see `origins`.
        place: names of fields, and numbers in lists, from the top.
    """
    value: Any = found
    for name in place:
        if isinstance(value, Mapping):
            value = value.get(str(name))
        elif isinstance(value, list):
            value = value[name] if isinstance(name, int) and name < len(value) else None
    while isinstance(value, Mapping | list) and value:
        value = list(value.values() if isinstance(value, Mapping) else value)[-1]
    return value.source if isinstance(value, From) else ""


def _marked(value: Any, source: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _marked(inner, source) for name, inner in value.items()}
    if isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        return [_marked(inner, source) for inner in value]
    marked = From(value)
    marked.source = source
    return marked


def laid_over(below: Any, above: Any) -> Any:
    """`above`; where both are sections, merged field by field."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{name: laid_over(below.get(name), value) for name, value in above.items()}}


def _one_method(family: Family, values: Sequence[Any]) -> Layer:
    """A section of methods from its layers."""
    for value in values:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{family.section}: a mapping of fields is expected, not '{str(value)[:60]}'")
    words = list(_words(family, values))
    chosen = words[-1] if words else family.default
    merged: Layer = {}
    for position, value in enumerate(values):
        own = {field: found for field, found in value.items() if field != WHEN}
        for before, after in zip(words[position:], words[position + 1 :], strict=False):
            if before != after:
                shared = _shared(family, before, after)
                own = {field: found for field, found in own.items() if field in shared}
        merged = laid_over(merged, own)
        merged = laid_over(merged, _when(family, value, chosen))
    return {**merged, family.tag: chosen}


def _shared(family: Family, one: str, other: str) -> frozenset[str]:
    try:
        return family.shared(one, other)
    except RecipeError as error:  # no such method
        raise RecipeError(f"{family.section}.{family.tag}: {error}") from None


def _when(family: Family, value: Mapping[str, Any], chosen: str) -> Mapping[str, Any]:
    """The fields that a layer has for the chosen method."""
    cases = value.get(WHEN, {})
    fields = cases.get(chosen, {}) if isinstance(cases, Mapping) else cases
    if not isinstance(fields, Mapping):
        raise RecipeError(
            f"{family.section}.{WHEN}: methods with their fields are expected, not '{str(fields)[:60]}'"
        )
    return fields


def _words(family: Family, values: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The method behind each layer: its own word, else that of the layer below."""
    word = family.default
    for value in values:
        named = value.get(family.tag, word)
        word = named if isinstance(named, str) else str(named)
        yield word


def _list_of_methods(family: Family, values: Sequence[Any]) -> list[Layer]:
    """A list of sections from its layers: a list replaces it, a mapping changes its only section,
    numbers change one section each."""
    found: list[list[Any]] = [[]]
    for value in values:
        if isinstance(value, list):
            found = [[each] for each in value]
        elif isinstance(value, Mapping) and all(str(field).isdecimal() for field in value):
            for number, change in value.items():
                if len(number) > _DIGITS or int(number) >= len(found):
                    raise RecipeError(f"{family.section}.{number}: there are {len(found)}, numbered from 0")
                found[int(number)].append(change)
        elif len(found) > 1:
            spelled = f"{family.section}.0.{next(iter(value), 'limit')}"
            raise RecipeError(
                f"{family.section} has {len(found)} entries: give the number of one, as in {spelled}"
            )
        else:
            found[0].append(value)
    return [_one_method(family, layers) for layers in found]


def _fields(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields of a file, inner ones first."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{prefix}{name}.")
        yield f"{prefix}{name}"
