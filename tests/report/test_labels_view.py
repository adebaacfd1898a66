"""The page's tables of labels bought and of agreement between sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2h_pipeline.report.html import Subject, write_report
from e2h_pipeline.report.labels_view import labels_section

AGREEMENT = {"1 prm800k and 2 checker": {"steps": 1200, "equal": 0.8, "kappa": -0.25}}
MIXED: dict[str, Any] = {
    "asset": "easy_step_labels",
    "labels_bought": {"1 prm800k": 1500, "2 <b>checker": 5},
    "agreement": AGREEMENT,
}
OUTCOMES: dict[str, Any] = {
    "asset": "easy_outcome_labels",
    "labels_bought": {"exact/1": 7},
    "agreement": {},
}


def test_labels_are_told_by_source_and_kind() -> None:
    section = labels_section([{"asset": "sft_policy", "labels_bought": {}}, MIXED, OUTCOMES])
    assert section is not None
    told = [(row.label, row.note, row.cells[0].value) for row in section.bought if row.cells[0]]
    assert told == [
        ("1 prm800k", "steps", "1,500"),
        ("2 <b>checker", "steps", "5"),
        ("exact/1", "outcomes", "7"),
    ]
    (row,) = section.agreement
    assert [cell.value for cell in row.cells if cell] == ["1,200", "80.0%", "−0.25"]


def test_sources_that_share_no_step_and_old_homes_have_no_numbers() -> None:
    nothing = {"first and second": {"steps": 0, "equal": None, "kappa": None}}
    section = labels_section([{**MIXED, "agreement": nothing}])
    assert section is not None and section.agreement[0].cells[1:] == (None, None)
    assert labels_section([{"asset": "easy_step_labels"}]) is None


def test_the_page_shows_the_cost_of_labels_even_without_a_policy(tmp_path: Path) -> None:
    recipe = {"description": "", "evaluation": {"confidence": 0.95}}
    write_report({}, [MIXED, OUTCOMES], tmp_path, Subject("ladder", recipe))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'href="#cost"' in page and "Labels bought, by source" in page
    assert "2 &lt;b&gt;checker" in page and "kappa" in page
