"""Figures and tables as files that a reader can save: `data:` links inside the page, no server.

A browser saves such a link when it is clicked (attribute `download`). Nothing is loaded or run.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from e2h_pipeline.report.cells import Cell, TableRow
from e2h_pipeline.report.colors import INK, plain

_PLAIN = " >/=':;,()[]{}.-_+*!|@$?"  # what a data: link may hold as it is
_LONGEST_NAME = 60
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
_BOX = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
_NAME = re.compile(r' aria-label="([^"]*)"')
_XML = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV. Names that a spreadsheet would take for a formula begin with an apostrophe."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([_no_formula(name) for name in header])
    writer.writerows([_no_formula(value) for value in row] for row in rows)
    return sink.getvalue()


def table_csv(rows: Sequence[TableRow], columns: Sequence[str]) -> str:
    """A table of the page as CSV: of each column the value, and its interval where it has one.

    Numbers are those behind the page, not rounded; values without numbers are as the page shows them.
    """
    ranged = [any(_bounds(row, i) for row in rows) for i in range(len(columns))]
    noted = any(row.note for row in rows)
    header = ["", *(["note"] if noted else [])]
    for name, bounds in zip(columns, ranged, strict=True):
        header += [name, f"{name} low", f"{name} high"] if bounds else [name]
    lines = []
    for row in rows:
        line: list[Any] = [row.label, *([row.note] if noted else [])]
        for cell, bounds in zip(row.cells, ranged, strict=True):
            line += _values(cell, 3 if bounds else 1)
        lines.append(line)
    return csv_text(header, lines)


def csv_link(text: str) -> Markup:
    """A `data:` link to CSV."""
    return _link("text/csv;charset=utf-8", text)


def svg_link(svg: str, legend: Sequence[tuple[str, str]] = ()) -> Markup:
    """A `data:` link to an SVG element of the page as a file of its own, in the colours of paper.

    Args:
        legend: colours and what they stand for, written below the figure.
    """
    width, height = map(float, found.groups()) if (found := _BOX.search(svg)) else (316.8, 223.2)
    named = found[1] if (found := _NAME.search(svg)) else ""
    lines = "".join(
        f'<rect x="40" y="{height + 16 * i + 3:g}" width="9" height="9" style="fill: {color}"/>'
        f'<text x="55" y="{height + 16 * i + 11:g}" style="font-size: 10px; fill: {INK}">{escape(label)}</text>'
        for i, (color, label) in enumerate(legend)
    )
    tall = height + 16 * len(legend)
    head = f'<svg {_XML} width="{width:g}pt" height="{tall:g}pt" font-family="sans-serif"'
    text = _BOX.sub(f'viewBox="0 0 {width:g} {tall:g}"', _NAME.sub("", plain(svg), count=1), count=1)
    text = text.replace("<svg", head, 1).replace("</svg>", f"{lines}</svg>")
    text = text.replace('"', "'").replace(">", f"><title>{named}</title>", 1)
    return _link("image/svg+xml", text)


def _link(kind: str, text: str) -> Markup:
    """A `data:` link, ready for an attribute in double quotes: what else would be escaped there is none
    of HTML's business, and would double its size."""
    return Markup(f"data:{kind},{quote(text, safe=_PLAIN)}")


def file_name(title: str) -> str:
    """A title as the name of a file, without its ending."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")[:_LONGEST_NAME].rstrip("-") or "saved"


def _bounds(row: TableRow, column: int) -> bool:
    cell = row.cells[column]
    return cell is not None and len(cell.numbers) == 3


def _values(cell: Cell | None, width: int) -> list[Any]:
    """Value, low and high of a cell; empty where there is none."""
    found: list[Any] = [] if cell is None else list(cell.numbers or (cell.value,))
    return found + [""] * (width - len(found))


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value
