"""Pages from templates: one look, one set of filters; all text is escaped but our own SVG and MathML."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from e2h_pipeline.report.colors import dark_rules, themed
from e2h_pipeline.report.saving import csv_link, csv_text, file_name, svg_link, table_csv

if TYPE_CHECKING:
    from jinja2 import Environment

    from e2h_pipeline.report.plots import PlotDrawing

_FIGURES = "/*figures*/"  # where the style of a page defines the colours of its figures for dark screens


def filled(template: str, **told: Any) -> str:
    """A page from a template of this folder; a name that it lacks is an error."""
    page = _environment().get_template(template).render(**told)
    return page.replace(_FIGURES, dark_rules(page), 1)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("e2h_pipeline", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "themed": themed,
        "file_name": file_name,
        "csv_link": csv_link,
        "svg_link": _svg_link,
        "table_csv": table_csv,
        "facts_csv": lambda facts: csv_text(("name", "value"), facts),
    }
    return environment


def _svg_link(drawing: PlotDrawing) -> str:
    return svg_link(drawing.svg, [(item.color, item.label) for item in drawing.legend])
