"""The content of a materialization's page in Dagster; tests/e2e/test_pages.py checks every
asset."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dagster as dg
import pytest

from e2h_pipeline.recipe import Recipe
from e2h_pipeline.stages.metadata import _by_level, _curves, _figures, _headline, _settings
from e2h_pipeline.stages.pictures import Panel, PictureCurve, bar_picture, curve_picture, training_panels

SVG = "{http://www.w3.org/2000/svg}"


def _drawn(markdown: str) -> ElementTree.Element:
    """The one picture of a Markdown text. Browsers draw only well-formed XML with its namespace."""
    (picture,) = re.findall(r"^!\[\]\(data:image/svg\+xml;base64,([^)]+)\)$", markdown)
    root = ElementTree.fromstring(base64.b64decode(picture))
    assert root.tag == f"{SVG}svg"
    return root


def _texts(root: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def _lines(root: ElementTree.Element) -> list[list[tuple[float, float]]]:
    """Pixels of each curve."""
    found = []
    for line in root.iter(f"{SVG}polyline"):
        pairs = [pair.split(",") for pair in line.attrib["points"].split()]
        found.append([(float(x), float(y)) for x, y in pairs])
    return found


def _write_curves(folder: Path, points: list[dict[str, Any]]) -> str:
    (folder / "curves.jsonl").write_text("\n".join(map(json.dumps, points)))
    return _curves(folder)


def test_training_curves_are_panels_of_one_picture(tmp_path: Path) -> None:
    points = [
        {"update": u, "reward": 0.1 * u, "clip_fraction": 0.3 - 0.1 * u, "entropy": 0.2} for u in (1, 2, 3)
    ]
    root = _drawn(_write_curves(tmp_path, points))
    assert {"reward", "clip fraction", "entropy", "update"} <= set(_texts(root))
    rising, falling, flat = _lines(root)
    assert [x for x, _ in rising] == sorted(x for x, _ in rising)
    assert rising[0][1] > rising[1][1] > rising[2][1]  # pixels count from the top
    assert falling[0][1] < falling[1][1] < falling[2][1]
    assert len({y for _, y in flat}) == 1


def test_levels_of_a_metric_share_a_panel() -> None:
    rows = [
        {"update": 1, "steps": 2.0, "steps_level_1": 1.0, "evaluator_easy": 0.5, "evaluator_hard": 0.4},
        {"update": 2, "steps": 3.0, "steps_level_5": 6.0, "evaluator_easy": 0.6, "evaluator_hard": 0.7},
    ]
    steps, evaluator = training_panels(rows)
    assert [(c.label, list(c.x), list(c.y)) for c in steps.curves] == [
        ("all", [1, 2], [2.0, 3.0]),
        ("level 1", [1], [1.0]),
        ("level 5", [2], [6.0]),
    ]
    assert [c.label for c in evaluator.curves] == ["easy", "hard"]


@pytest.mark.parametrize("count", [3, 7, 12])
def test_any_number_of_levels_is_drawn_in_order_and_in_colours_of_its_own(count: int) -> None:
    levels = range(1, count + 1)
    (panel,) = training_panels([{"update": 1, **{f"steps_level_{level}": 1.0 for level in levels}}])
    assert [curve.label for curve in panel.curves] == [f"level {level}" for level in levels]
    root = _drawn(curve_picture([panel], "update"))
    colors = [line.attrib["stroke"] for line in root.iter(f"{SVG}polyline")]
    assert len(set(colors)) == count
    named = count <= 7  # with more there is no room for names
    assert "".join(f"level {level}" if named else str(level) for level in levels) in _texts(root)


def test_questions_of_unknown_level_have_no_curve() -> None:
    (panel,) = training_panels([{"update": 1, "steps": 2.0, "steps_level_0": 1.0, "steps_level_1": 3.0}])
    assert [curve.label for curve in panel.curves] == ["all", "level 1"]


def test_rows_by_level_are_in_order_of_level() -> None:
    text = _by_level([10, 2, 2, None, 0, 1])
    assert [line for line in text.splitlines() if line.startswith("| ")][1:] == [
        "| 1 | 1 |",
        "| 2 | 2 |",
        "| 10 | 1 |",
        "| none | 2 |",
    ]


def test_a_long_training_is_small_and_quick_and_keeps_its_ends(tmp_path: Path) -> None:
    """More curves than any algorithm has, over more updates than in any recipe."""
    names = ["reward", *(f"metric{i}" for i in range(24)), *(f"steps_level_{level}" for level in range(1, 6))]
    points = [{"update": u, **dict.fromkeys(names, u * 0.123456789)} for u in range(1, 5001)]
    (tmp_path / "curves.jsonl").write_text("\n".join(map(json.dumps, points)))
    started = time.process_time()
    text = _curves(tmp_path)
    assert time.process_time() - started < 10  # 0.2 s on an idle core, most of it reading
    assert len(text) < 100_000
    root = _drawn(text)
    assert len(_lines(root)) == len(names)
    assert {"1", "5000"} <= set(_texts(root))
    left, right = _lines(root)[0][0][0], _lines(root)[0][-1][0]
    assert right - left > 200  # pixels: the first point and the last are there


@pytest.mark.parametrize("values", [[0.0], [0.5], [0.0, 0.0], [1e-5, 2e-5], [-3.0, 1e9]])
def test_any_numbers_can_be_drawn(values: list[float]) -> None:
    root = _drawn(
        curve_picture([Panel("loss", [PictureCurve("all", range(1, len(values) + 1), values)])], "update")
    )
    (line,) = _lines(root)
    assert all(36 <= y <= 144 for _, y in line)
    assert "nan" not in ElementTree.tostring(root, encoding="unicode")


def test_intervals_are_bands_and_names_are_text() -> None:
    curve = PictureCurve("<b>&", [1, 2, 64], [50, 60, 70], [40, 50, 60], [60, 70, 80])
    root = _drawn(curve_picture([Panel("<script>", [curve, curve])], "N", doubling=True))
    assert {"<script>", "<b>&<b>&"} <= set(_texts(root))
    x = [x for x, _ in _lines(root)[0]]
    assert (x[2] - x[0]) / (x[1] - x[0]) == pytest.approx(6, rel=0.01)  # six doublings
    band = next(iter(root.iter(f"{SVG}polygon"))).attrib["points"].split()
    assert len(band) == 6


def test_bars_are_as_high_as_they_count() -> None:
    root = _drawn(bar_picture({"rows by level": {"1": 50, "2": 100}}))
    heights = [float(bar.attrib["height"]) for bar in root.iter(f"{SVG}rect")][1:]  # behind the ground
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.1) and heights[1] > 50
    assert {"50", "100", "1", "2", "rows by level"} <= set(_texts(root))


def test_what_has_no_curves_shows_none(tmp_path: Path) -> None:
    assert _curves(tmp_path) == ""


def test_a_summary_is_a_table_and_what_it_counts_by_level_is_bars() -> None:
    shown = _figures({"source": "math", "train_by_level": {"2": 7, "1": 3}, "found": {"same": ["a"]}})
    assert [record.data for record in shown["figures"].records] == [
        {"name": "source", "value": "math"},
        {"name": "train_by_level.2", "value": 7},
        {"name": "train_by_level.1", "value": 3},
        {"name": "found.same", "value": "['a']"},
    ]
    assert _texts(_drawn(shown["by_level"].value)) == ["train by level", "3", "1", "7", "2"]


def test_a_recipe_shows_what_is_not_at_its_default(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(Recipe.from_key("ladder/rl.kl=0.5").model_dump_json())
    table = _settings(path)["not_at_default"]
    assert isinstance(table, dg.TableMetadataValue)
    rows = {record.data["field"]: record.data for record in table.records}
    assert rows["rl.kl"] == {"field": "rl.kl", "value": 0.5, "default": 0.01}
    assert "rl.clip" not in rows and "evaluation.confidence" not in rows


def test_accuracies_are_numbers_that_the_page_can_plot() -> None:
    summary = {
        "problems": 25,
        "grader": "math",
        "strict": True,
        "hard_accuracy": {"majority": 0.5, "name": "x"},
    }
    assert _headline(summary) == {"summary/problems": 25, "summary/hard_accuracy/majority": 0.5}
