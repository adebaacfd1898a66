from typing import Any

import pytest

from e2h_pipeline.report.evaluator_view import _unit, evaluator_section


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, ".500"), (0.99999, ">.999"), (1.0, "1"), (1.234, "1.23"), (-0.0412, "−.041"), (0.0, ".000")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert _unit(value) == text


def row(metric: str, levels: str, value: float) -> dict[str, Any]:
    return {
        "evaluator": "easy_orm",
        "metric": metric,
        "levels": levels,
        "value": value,
        "ci_low": value - 0.1,
        "ci_high": value + 0.1,
        "count": 5,
    }


def test_the_table_tells_what_is_kept_from_easy_to_hard() -> None:
    metrics = [
        row("outcome_auroc", "easy", 0.9),
        row("outcome_length_slope", "hard", -0.02),
        row("outcome_auroc_kept_over_generator", "hard", 0.3),
    ]
    section = evaluator_section(metrics, [])
    assert section.evaluator == "easy_orm"
    assert [r.label for r in section.rows] == ["Solution AUROC", "Solutions over generator"]
    assert section.rows[1].cells[section.columns.index("hard")] is not None
    assert all(c is None for c in section.rows[1].cells[: section.columns.index("hard")])
