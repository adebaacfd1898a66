"""What the page lets people save: CSV that reads back, and SVG that other programs open."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from urllib.parse import unquote
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.report.cells import Cell, TableRow, accuracy_cell
from e2h_pipeline.report.colors import contrast, dark_rules, on_dark, plain, themed
from e2h_pipeline.report.plots import PlotDrawing, Series, level_bars
from e2h_pipeline.report.saving import csv_link, csv_text, file_name, svg_link, table_csv

TEXT = st.text(st.sampled_from("aZ1 .,;:=+-@'\"<>&%#$\\_^{}()äλ−"), max_size=20)
COLOR = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")


def saved(link: str) -> str:
    """The text behind a link."""
    assert not set(link) & set('<"&#\n')  # it stands in an attribute
    return unquote(link.partition(",")[2])


@given(st.lists(st.lists(TEXT, min_size=2, max_size=2), min_size=1, max_size=5))
def test_tables_read_back_and_hold_no_formula(rows: list[list[str]]) -> None:
    found = list(csv.reader(io.StringIO(saved(csv_link(csv_text(rows[0], rows[1:]))))))
    assert [[cell.removeprefix("'") for cell in row] for row in found] == [
        [cell.removeprefix("'") for cell in row] for row in rows
    ]
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in found for cell in row)


def test_a_table_saves_the_numbers_behind_the_page() -> None:
    measured = accuracy_cell({"accuracy": 0.12345, "ci_low": 0.1, "ci_high": 0.15, "problems": 10})
    rows = [TableRow("a", "greedy", (measured, Cell("2.0%", ""))), TableRow("b", "", (None, None))]
    assert table_csv(rows, ["easy", "equal"]).splitlines() == [
        ",note,easy,easy low,easy high,equal",
        "a,greedy,12.345,10.0,15.0,2.0%",
        "b,,,,,",
    ]


def drawing(title: str, label: str, groups: Sequence[str] = ("level 1", "level 2")) -> PlotDrawing:
    bars = Series(label, "#882255", [0, 1], [10, 20.25], [5, 15], [15, 25])
    return level_bars(title, groups, [bars])


@settings(max_examples=5, deadline=None)
@given(TEXT.filter(str.strip), TEXT.filter(str.strip))
def test_a_figure_saves_as_svg_with_its_name_and_legend(title: str, label: str) -> None:
    found = drawing(title, label)
    text = saved(svg_link(found.svg, [(item.color, item.label) for item in found.legend]))
    root = ElementTree.fromstring(text)
    words = [element.text for element in root.iter() if element.text]
    assert f"{title}: bars by level" in words and label in words
    assert root.get("aria-label") is None and "var(" not in text and "#882255" in text


def test_dollars_in_names_are_dollars() -> None:
    shown = drawing("$\\frac{$", "$_^$", ["$1", "$\\x$"]).svg
    assert ">$\\frac{$</text>" in shown and ">$1</text>" in shown and ">$\\x$</text>" in shown


def test_a_figure_saves_its_numbers() -> None:
    assert drawing("T", "a").csv.splitlines() == [
        'series,level,"accuracy, %",low,high',
        "a,level 1,10,5,15",
        "a,level 2,20.25,15,25",
    ]


def test_names_of_files_are_short_and_plain() -> None:
    assert file_name("LADDER500 · Hard levels: accuracy/../x") == "ladder500-hard-levels-accuracy-x"
    assert file_name("…") == "saved" and len(file_name("a b" * 100)) <= 60


@given(COLOR)
def test_colors_can_be_seen_on_dark_pages_and_stay_on_paper(color: str) -> None:
    svg = f'<path style="stroke: {color}"/>'
    assert plain(themed(svg)) == svg
    if color not in ("#3d4550", "#c9ced6", "#eceef2"):  # text, axes and grid have colours of their own
        assert contrast(on_dark(color), "#14181d") >= 4.4
    rules = dark_rules(themed(svg))
    assert rules == ("" if on_dark(color) == color else f"--c-{color[1:]}:{on_dark(color)};")


def test_addresses_in_a_figure_are_no_colors() -> None:
    svg = drawing("T", "a").svg
    assert "url(#p" in svg and "url(var" not in svg
