"""Descriptions of all recipe fields, from the models: for the command line and docs/recipes.md."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from e2h_pipeline.recipe.families import FAMILIES
from e2h_pipeline.recipe.layers import Layer, origin
from e2h_pipeline.recipe.recipe import Recipe
from e2h_pipeline.recipe.section import Section

_HEAD = """# Recipes, field by field

Generated from the models in [e2h_pipeline/recipe/sections](../e2h_pipeline/recipe/sections);
`make generated` writes it again.

A recipe is a YAML file of the sections below, in `E2H_HOME/recipes/` or shipped in `e2h_pipeline/recipes/`. It may
extend another (`extends: ladder`). A key is its name and overrides: `ladder/rl.updates=50/seed=1`.
`e2h init` writes a file; `e2h recipes NAME` shows a recipe with all its values and where each comes from;
`e2h recipes --check` reports all errors of all files in that folder, or of those named behind it.

Values are read by the type of their field, as in YAML 1.2. A text that looks like a number stays a text where the
field is a text. What YAML 1.1 reads in another way is refused: leading zeros (`010`), `yes` and `no`, `1_000`, `1:30`;
so are tags and merge keys (`<<`).

Some sections have different fields for each method; one field names the method (`rl.algorithm`). A field of
another method is an error. A file may also set fields for methods that it does not choose, under `when`:

```yaml
rl:
  algorithm: ppo
  kl: 0.05
  when:
    rest: {samples: 16} # holds for keys with rl.algorithm=rest
```

Changing the method in a key, or in a file that extends another, drops the fields that the two methods do not share.
Installed packages add methods ([extending.md](extending.md)).
"""


@dataclass(frozen=True)
class FieldLine:
    """One field of a recipe.

    Attributes:
        name: dotted.
        value: as plain data; None where only the model is described.
        default: as plain data.
        meaning: its description.
        source: the file or key that sets it; empty for a default and a value that others decide.
    """

    name: str
    value: Any
    default: Any
    meaning: str
    source: str = ""

    @property
    def changed(self) -> bool:
        """Whether the value is not the default."""
        return bool(self.value != self.default)


def resolved(recipe: Recipe, sources: Layer | None = None) -> Iterator[FieldLine]:
    """Every field of a recipe with its value, default and meaning.

    Args:
        sources: where values come from (`sources_of`).
    """
    for place, line in _lines(recipe, ""):
        yield replace(line, source=origin(sources or {}, place))


def recipes_page() -> str:
    """docs/recipes.md."""
    parts = [_HEAD, "## The recipe itself\n", _table(_plain_fields(Recipe))]
    for name, field in Recipe.model_fields.items():
        if name in FAMILIES:
            parts += _family(name)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            parts += [f"## {name}\n", _doc(field.annotation) + "\n", _table(_fields(field.annotation, name))]
    return "\n".join(parts).rstrip() + "\n"


def _lines(
    section: BaseModel, prefix: str, above: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], FieldLine]]:
    """Place (names of fields, and numbers in lists) and line of each field."""
    for name, field in type(section).model_fields.items():
        value, place = getattr(section, name), (*above, name)
        if isinstance(value, Section):
            yield from _lines(value, f"{prefix}{name}.", place)
        elif isinstance(value, tuple) and value and all(isinstance(item, Section) for item in value):
            for number, item in enumerate(value):
                inner = f"{prefix}{name}." if len(value) == 1 else f"{prefix}{name}.{number}."
                yield from _lines(item, inner, (*place, number))
        else:
            shown = FieldLine(f"{prefix}{name}", _plain(value), _default(field), field.description or "")
            yield place, shown


def _family(name: str) -> list[str]:
    """A section that is a union: the fields of every method, then those of each."""
    family = FAMILIES[name]
    common = _fields(family.plain or family.base, name)
    words = ", ".join(f"`{word}`" for word in family.members)
    shown = [
        replace(line, meaning=f"{line.meaning} One of {words}.")
        if line.name == f"{name}.{family.tag}"
        else line
        for line in common
    ]
    parts = [f"## {name}\n", _doc(family.base) + "\n", _table(shown)]
    for word, member in family.members.items():
        chosen = f"`{name}.{family.tag}={word}`" + (", the default" if word == family.default else "")
        own = [
            line
            for line in _fields(member, name)
            if line not in common and line.name != f"{name}.{family.tag}"
        ]
        parts += [f"### {chosen}\n", _doc(member) + "\n", _table(own) if own else "No fields of its own.\n"]
    return parts


def _plain_fields(model: type[BaseModel]) -> list[FieldLine]:
    """Fields that are not sections."""
    return [
        FieldLine(name, None, _default(field), field.description or "")
        for name, field in model.model_fields.items()
        if name not in FAMILIES
        and not (isinstance(field.annotation, type) and issubclass(field.annotation, Section))
    ]


def _fields(model: type[BaseModel], prefix: str) -> list[FieldLine]:
    """Fields of a section and of the sections within it."""
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found += _fields(field.annotation, f"{prefix}.{name}")
        else:
            found.append(FieldLine(f"{prefix}.{name}", None, _default(field), field.description or ""))
            if listed := _listed_section(field.annotation):
                found += _fields(listed, f"{prefix}.{name}[]")
    return found


def _listed_section(annotation: Any) -> type[Section] | None:
    """The section that a list has as items, where it is one."""
    item = next(iter(get_args(annotation)), None) if get_origin(annotation) is tuple else None
    return item if isinstance(item, type) and issubclass(item, Section) else None


def _table(lines: list[FieldLine]) -> str:
    rows = [f"| `{line.name}` | {_shown(line.default)} | {_cell(line.meaning)} |" for line in lines]
    return "\n".join(["| field | default | meaning |", "|---|---|---|", *rows, ""])


def _doc(model: type[BaseModel]) -> str:
    """The first paragraph of the docstring, in one line."""
    return " ".join(inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0].split())


def _default(field: Any) -> Any:
    value = field.get_default(call_default_factory=True, validated_data={})
    return "required" if value is PydanticUndefined else _plain(value)


def _plain(value: Any) -> Any:
    return list(map(_plain, value)) if isinstance(value, tuple | list) else value


def _shown(value: Any) -> str:
    if value == "required":
        return value
    if value is None or value == "" or value == []:
        return "unset"
    return f"`{_cell(json.dumps(value, ensure_ascii=False))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
