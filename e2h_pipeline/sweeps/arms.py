"""The rows of a sweep's page: recipes without their seeds, sorted, and what each value of an axis is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from e2h_pipeline.orchestration.experiments import is_seed, seeds_of
from e2h_pipeline.report.colors import color_of
from e2h_pipeline.report.plots import PlotDrawing, Series, axis_panel
from e2h_pipeline.sweeps.numbers import HEADLINES, LABELS, Pooled, Told
from e2h_pipeline.sweeps.spec import SweepError
from e2h_pipeline.sweeps.status import MemberStatus

GRID = "grid"
"""The order of the sweep's file."""
NUMBERS = (*(name for name, *_ in HEADLINES), LABELS)
_PREFERRED = ("RL greedy", "weighted vote", "best-of-N", "majority", "SFT greedy")
_MARKERS = ("D", "o", "s", "^", "v")


@dataclass(frozen=True)
class ArmRow:
    """A recipe of the sweep, over its seeds.

    Attributes:
        values: of the axes, without seeds.
        members: one for each seed.
        seeds: number of seeds behind the numbers.
        numbers: in the order of `NUMBERS`; None where there is none.
    """

    values: Mapping[str, Any]
    members: tuple[MemberStatus, ...]
    seeds: int
    numbers: tuple[Told | None, ...]


def arm_rows(
    rows: Sequence[MemberStatus], told: Mapping[str, Sequence[Told | None]], pooled: Pooled
) -> list[ArmRow]:
    """The recipes of a sweep, in the order of its file.

    Args:
        rows: the members.
        told: numbers of each member that is made, by key.
        pooled: recipes with several seeds.
    """
    by_key = {row.member.key: row for row in rows}
    over_seeds = {arm["name"]: arm for arm in pooled.arms}
    found = []
    for name, keys in seeds_of(by_key).items():
        own = tuple(by_key[key] for key in keys.values())
        values = {axis: value for axis, value in own[0].member.values.items() if not is_seed(axis)}
        made = [row for row in own if row.state == "made"]
        alone = own if len(own) == 1 else made  # what one member bought is told before it is made, too
        arm = over_seeds.get(name)
        numbers = told[alone[0].member.key] if len(alone) == 1 else [None] * len(NUMBERS)
        seeds = arm["seeds"] if arm else len(made) if len(made) == 1 else 0
        found.append(ArmRow(values, own, seeds, tuple(arm["numbers"] if arm else numbers)))
    return found


def sorted_by(arms: Sequence[ArmRow], wanted: str) -> tuple[str, list[ArmRow]]:
    """What the recipes are sorted by, and they: the highest number first, values of an axis rising;
    those without a number last.

    Args:
        wanted: a number, an axis, or `GRID`; empty: the first headline that a recipe has.

    Raises:
        SweepError: there is no such number or axis.
    """
    there = [name for name in _PREFERRED if any(arm.numbers[NUMBERS.index(name)] for arm in arms)]
    axes = list(arms[0].values) if arms else []
    choices = {name.lower(): name for name in (*NUMBERS, *axes, GRID)}
    chosen = choices.get(wanted.lower()) if wanted else (there[0] if there else GRID)
    if chosen is None:
        raise SweepError(f"--sort: no number or axis '{wanted}'; there are: {', '.join(choices.values())}")
    if chosen in NUMBERS:
        return chosen, sorted(arms, key=lambda arm: _falling(arm.numbers[NUMBERS.index(chosen)]))
    if chosen == GRID:
        return chosen, list(arms)
    return chosen, sorted(arms, key=lambda arm: _rising(arm.values[chosen]))


def axis_panels(arms: Sequence[ArmRow]) -> list[PlotDrawing]:
    """A figure for each axis with several values: each headline number over the values, as a mean over the
    recipes that have the value; whiskers reach from the lowest of them to the highest."""
    panels = []
    for axis in arms[0].values if arms else ():
        values = list({_shown(arm.values[axis]): arm.values[axis] for arm in arms}.values())
        values = sorted(values, key=_rising) if all(map(_is_number, values)) else values
        series = [line for i in range(len(HEADLINES)) if (line := _line(arms, axis, values, i)) is not None]
        if len(values) > 1 and series:
            panels.append(axis_panel(axis, [_shown(value) for value in values], series))
    return panels


def _line(arms: Sequence[ArmRow], axis: str, values: Sequence[Any], number: int) -> Series | None:
    name, policy, method = HEADLINES[number]
    points = []
    for i, value in enumerate(values):
        own = [arm.numbers[number] for arm in arms if arm.values[axis] == value]
        found = [told.numbers[0] for told in own if told and told.numbers]
        points += [(i, sum(found) / len(found), min(found), max(found))] if found else []
    if not points:
        return None
    x, y, low, high = zip(*points, strict=True)
    color = color_of(policy if method == "greedy" else method)
    return Series(name, color, x, y, low, high, _MARKERS[number])


def _falling(told: Told | None) -> float:
    return -told.numbers[0] if told and told.numbers else float("inf")


def _rising(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, before words by the alphabet."""
    return (False, float(value), "") if _is_number(value) else (True, 0.0, _shown(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
