"""The page of a sweep, from plain rows: static, loads nothing from anywhere, escapes all text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TEMPLATE = "sweep.html.j2"


def sweep_html(*, members: Sequence[Mapping[str, Any]], **told: Any) -> str:
    """The page.

    Args:
        members: key, values (by axis), state, made, stages, error, strict, numbers, report (a
            file beside the page, or "").
        told: name and description; numbers, the names of the numbers of each member, in order;
            pooled (sweeps/numbers.py); looks (page.py); stop, the rule that gives members up; told, the
            time of this state.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("e2h_pipeline", "report"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
    )
    states: dict[str, int] = {}
    for member in members:
        states[member["state"]] = states.get(member["state"], 0) + 1
    return environment.get_template(_TEMPLATE).render(
        axes=list(members[0]["values"]) if members else [],
        members=members,
        states=states,
        running="running" in states,
        **told,
    )
