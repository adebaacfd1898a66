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

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from e2h_pipeline.recipe import Recipe, RecipeError, canonical_key

SWEEP_FOLDER = Path(__file__).parent
MOST_MEMBERS = 1000

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
_FIELD = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")

Scalar = bool | int | float | str


class SweepError(ValueError):
    """A sweep file cannot be used; the message names the file, the field and the mend."""


class Stop(BaseModel):
    """The rule that gives up members during training (sweeps/learning_curves.py)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Literal["never", "median", "predicted"] = Field(
        "never", description="never; median: below the median; predicted: predicted to end below the best."
    )
    least: int = Field(20, ge=2, description="Finished members needed before any is given up.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="predicted: of ending below the best so far.")


class Sweep(BaseModel):
    """A sweep file. Unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="File name of the sweep, without .yaml.")
    description: str = Field("", description="One sentence for people.")
    recipe: str = Field(description="Recipe key that members add overrides to.")
    axes: dict[str, list[Scalar | list[Scalar]]] = Field(
        description="Dotted field -> its values. Fields joined by commas move together."
    )
    exclude: list[dict[str, Scalar | list[Scalar]]] = Field(
        default_factory=list, description="Leaves out members with all values of one of these."
    )
    select: str = Field("", description="Assets to materialize, as in `e2h run --select`; all if empty.")
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
    """One experiment of a sweep: its recipe key, and its value on each field."""

    key: str
    values: Mapping[str, Any]


def fields(axis: str) -> list[str]:
    """The fields of an axis."""
    return [part.strip() for part in axis.split(",")]


def members(sweep: Sweep, recipe_folders: Sequence[Path] = ()) -> list[Member]:
    """All members, the last axis fastest. Every key is a valid recipe.

    Raises:
        SweepError: a member's key is not a recipe, two members are equal, or there are too many or
            none.
    """
    found: dict[str, Member] = {}
    for values in _grid(sweep.axes):
        if any(_has(values, left_out) for left_out in sweep.exclude):
            continue
        overrides = (f"{field}={spell(value)}" for field, value in values.items())
        try:
            key = canonical_key("/".join([sweep.recipe, *overrides]))
            Recipe.from_key(key, recipe_folders)
        except RecipeError as error:
            raise SweepError(f"sweep {sweep.name}: {error}") from None
        if key in found:
            raise SweepError(f"sweep {sweep.name}: two members are {key}; values of an axis must differ")
        found[key] = Member(key, values)
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
    for folder in [*folders, SWEEP_FOLDER]:
        for path in sorted(folder.glob("*.yaml")):
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
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SweepError(f"{path}: cannot be read ({error.strerror}); mend its permissions") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SweepError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise SweepError(f"{path}: a sweep is a mapping with recipe and axes, not a {type(data).__name__}")
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
    return all(values[field] == value for field, value in wanted.items())
