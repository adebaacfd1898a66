"""A sweep: a recipe, axes of variation, and the resulting members. One member is one recipe key.

    description: two evaluators, two aggregations, three seeds
    recipe: ladder/rl.updates=20
    axes:
      reward.kind: [prm, orm]
      rerank.aggregations: [[product], [min]]
      problems.seed, seed: [21, 22, 23]        # fields that move together
    exclude:
      - {reward.kind: orm, seed: 23}           # leaves out members with all of these values
    select: +report
    retries: 1

A sweep stores no state: it follows from the file's keys, the recipe files and the artifacts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from e2h_pipeline.recipe import Recipe, RecipeError, Section, one_spelling
from e2h_pipeline.recipe.scalars import untyped
from e2h_pipeline.recipe.yaml_files import read_yaml, yaml_files

SWEEP_FOLDER = Path(__file__).parent
MOST_MEMBERS = 1000

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
_FIELD = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")

_MOST_COMBINATIONS = 100 * MOST_MEMBERS

_Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]
Value = _Text | list[_Text]
"""The text of a value, as written: the recipe's field decides its type. Python may give numbers."""


class SweepError(ValueError):
    """A sweep file cannot be used; the message names the file, the field and the mend."""


class Stop(Section):
    """The rule that gives up members during training (sweeps/learning_curves.py)."""

    rule: Literal["never", "median", "predicted"] = Field(
        "never", description="never; median: below the median; predicted: predicted to end below the best."
    )
    least: int = Field(20, ge=2, description="Finished members needed before any is given up.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="predicted: of ending below the best so far.")


class Sweep(Section):
    """A sweep file. Unknown fields are an error."""

    name: str = Field(description="File name of the sweep, without .yaml.")
    description: str = Field("", description="One sentence for people.")
    recipe: str = Field(description="Recipe key that members add overrides to.")
    axes: dict[str, list[Value]] = Field(
        description="Dotted field -> its values. Fields joined by commas move together."
    )
    exclude: list[dict[str, Value]] = Field(
        default_factory=list, description="Leaves out members with all values of one of these."
    )
    select: str = Field(
        "", max_length=500, description="Assets to materialize, as in `e2h run --select`; all if empty."
    )
    retries: int = Field(0, ge=0, le=10, description="How often a failed member is tried again.")
    priority: int = Field(
        0,
        description="Higher ones leave Dagster's queue first; `e2h sweep` has none and keeps the order.",
    )
    stop: Stop = Field(default_factory=Stop, description="Rule that gives up members during training.")
    daily: bool = Field(False, description="The daily schedule launches missing and stale members.")

    @field_validator("axes")
    @classmethod
    def _axes(cls, axes: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for name, values in axes.items():
            bad = [part for part in fields(name) if not _FIELD.fullmatch(part)]
            if bad:
                raise ValueError(f"axis '{name}': '{bad[0]}' is not a field, as rl.kl or seed")
            if not values:
                raise ValueError(f"axis '{name}' has no values")
        named = [part for name in axes for part in fields(name)]
        twice = sorted({part for part in named if named.count(part) > 1})
        if twice:
            raise ValueError(f"field {twice[0]} is in two axes")
        return axes


@dataclass(frozen=True)
class Member:
    """One experiment of a sweep: its recipe key, and its value on each field (numbers as such)."""

    key: str
    values: Mapping[str, Any]


def fields(axis: str) -> list[str]:
    """The fields of an axis."""
    return [part.strip() for part in axis.split(",")]


def members(sweep: Sweep, recipe_folders: Sequence[Path] = ()) -> list[Member]:
    """All members, the last axis fastest. Every key is a valid recipe.

    Raises:
        SweepError: see `read_members`.
    """
    return [member for member, _ in read_members(sweep, recipe_folders)]


def read_members(sweep: Sweep, recipe_folders: Sequence[Path] = ()) -> list[tuple[Member, Recipe]]:
    """All members with their recipes, the last axis fastest.

    Raises:
        SweepError: a member's key is not a recipe, two members are equal, or there are too many or
            none.
    """
    combinations = math.prod(map(len, sweep.axes.values()))
    if combinations > _MOST_COMBINATIONS:
        raise SweepError(f"sweep {sweep.name} has {combinations:.0e} combinations; cut an axis")
    found: dict[str, tuple[Member, Recipe]] = {}
    for texts in _grid(sweep.axes):
        values = {field: shown(text) for field, text in texts.items()}
        if any(_has(values, left_out) for left_out in sweep.exclude):
            continue
        overrides = (f"{field}={spell(text)}" for field, text in texts.items())
        try:
            key = one_spelling("/".join([sweep.recipe, *overrides]), recipe_folders)
            recipe = Recipe.from_key(key, recipe_folders)
        except RecipeError as error:
            raise SweepError(f"sweep {sweep.name}: {'; '.join(map(str, error.args))}") from None
        digest = recipe.digest()
        if digest in found:
            raise SweepError(f"sweep {sweep.name}: two members are {key}; values of an axis must differ")
        found[digest] = (Member(key, values), recipe)
        if len(found) > MOST_MEMBERS:
            raise SweepError(f"sweep {sweep.name} has more than {MOST_MEMBERS} members; cut an axis")
    if not found:
        raise SweepError(f"sweep {sweep.name} excludes all of its members")
    return list(found.values())


def spell(value: Any) -> str:
    """A value as written in a key. Commas join lists; a list of one value ends in a comma."""
    if isinstance(value, list):
        return ",".join(map(spell, value)) + ("," if len(value) == 1 else "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def load_sweep(name_or_file: str, folders: Iterable[Path] = ()) -> Sweep:
    """Load a sweep by file, or by name from the folders or the shipped ones.

    Raises:
        SweepError: it does not exist or cannot be used.
    """
    path = Path(name_or_file)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise SweepError(f"{path}: no such sweep file")
        return read_sweep(path)
    found = _files(folders)
    if name_or_file in found:
        return read_sweep(found[name_or_file])
    raise SweepError(f"no sweep '{name_or_file}'; there are: {', '.join(sorted(found)) or 'none'}")


def sweep_names(folders: Iterable[Path] = ()) -> list[str]:
    """Names of all sweep files, usable or not."""
    return sorted(_files(folders))


def _files(folders: Iterable[Path]) -> dict[str, Path]:
    """Name -> file; the first folder wins."""
    found: dict[str, Path] = {}
    for path in yaml_files([*folders, SWEEP_FOLDER]):
        found.setdefault(path.stem, path)
    return found


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        SweepError: it cannot be read, is not YAML, or is not a sweep.
    """
    if not _NAME.fullmatch(path.stem):
        raise SweepError(f"{path}: a sweep's file name is lower-case letters, digits, - and _")
    try:
        data = read_yaml(path)
    except RecipeError as error:
        raise SweepError(str(error)) from None
    if not isinstance(data, dict):
        kind = "list" if isinstance(data, list) else "text"
        raise SweepError(f"{path}: a sweep is a mapping with recipe and axes, not a {kind}")
    try:
        return Sweep.model_validate({**data, "name": path.stem})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SweepError(f"{path}: {where}: {first['msg']}") from None


def _grid(axes: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for chosen in product(*axes.values()):
        yield {field: value for name, value in zip(axes, chosen, strict=True) for field in fields(name)}


def _has(values: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    unknown = [field for field in wanted if field not in values]
    if unknown:
        raise SweepError(f"exclude: {unknown[0]} is not on an axis")
    return all(values[field] == shown(text) for field, text in wanted.items())


def shown(text: Value) -> Any:
    """A value for people and JSON: numbers as such."""
    return list(map(untyped, text)) if isinstance(text, list) else untyped(text)
