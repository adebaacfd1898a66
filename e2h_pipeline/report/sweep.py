"""The page of a sweep, from plain rows: static, loads nothing from anywhere, escapes all text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TEMPLATE = "sweep.html.j2"


def sweep_html(
    name: str, description: str, numbers: Sequence[str], members: Sequence[Mapping[str, Any]], told: str
) -> str:
    """The page.

    Args:
        numbers: names of the numbers of each member, in order.
        members: key, values (by axis), state, made, stages, error, strict, numbers, report (a file
            beside the page, or "").
        told: the time of this state.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(
        loader=PackageLoader("e2h_pipeline", "report"), autoescape=select_autoescape(default=True)
    )
    states: dict[str, int] = {}
    for member in members:
        states[member["state"]] = states.get(member["state"], 0) + 1
    return environment.get_template(_TEMPLATE).render(
        name=name,
        description=description,
        axes=list(members[0]["values"]) if members else [],
        numbers=numbers,
        members=members,
        states=states,
        running="running" in states,
        told=told,
    )
