"""Words unknown to the page: it shows them under names made from the words."""

from __future__ import annotations

from typing import Any

import pytest

from e2h_pipeline.report.colors import COLORS, color_of
from e2h_pipeline.report.cost_view import cost_panels
from e2h_pipeline.report.evaluator_view import evaluator_section
from e2h_pipeline.report.names import marker_of, method_name, policy_name, policy_order
from e2h_pipeline.report.view import benchmark_sections


def rows(
    aggregations: dict[str, list[str]], policies: tuple[str, ...] = ("base", "sft")
) -> list[dict[str, Any]]:
    wanted = [(policy, "greedy", "", 1) for policy in policies]
    wanted += [("sft", "majority", "", 4), ("sft", "pass", "", 4)]
    wanted += [("sft", method, name, 4) for method, names in aggregations.items() for name in names]
    return [
        {
            "benchmark": "B",
            "grader": "g",
            "policy": policy,
            "method": method,
            "evaluator": "",
            "aggregation": aggregation,
            "n": n,
            "levels": levels,
            "accuracy": 0.5,
            "ci_low": 0.4,
            "ci_high": 0.6,
            "problems": 10,
        }
        for policy, method, aggregation, n in wanted
        for levels in ("1", "all")
    ]


def test_an_unknown_policy_has_a_row_a_bar_and_a_cost() -> None:
    metrics = rows({}, ("base", "sft", "self_play"))
    (section,) = benchmark_sections(metrics, [])
    assert [row.label for row in section.policies if row.note == "greedy"] == [
        "Base model",
        "SFT on easy problems",
        "Self play",
    ]
    assert [legend.label for legend in section.bars[-1].legend][-1] == "Self play"
    lengths = [{"policy": "self_play", "decoding": "greedy", "levels": "all", "tokens": 9.0}]
    (panel,) = cost_panels(metrics, lengths)
    assert [legend.label for legend in panel.legend] == ["Self play, greedy"]


@pytest.mark.parametrize(
    ("aggregations", "note"),
    [
        ({"weighted-vote": ["product", "soft_min"], "best-of-n": ["min", "soft_min"]}, "are the paper's"),
        ({"best-of-n": ["score"]}, "Scores are used as they were given"),
        (
            {"weighted-vote": ["soft_min"], "best-of-n": ["soft_min"]},
            "soft_min for the weighted vote, soft_min for best-of-N.",
        ),
        ({"weighted-vote": ["product"], "best-of-n": ["product"]}, "product for best-of-N."),
        ({}, ""),
    ],
)
def test_the_note_says_which_aggregations_are_shown(aggregations: dict[str, list[str]], note: str) -> None:
    (section,) = benchmark_sections(rows(aggregations), [])
    assert note in section.rerank_note and bool(note) == bool(section.rerank_note)


def test_an_unknown_aggregation_comes_after_those_of_the_paper() -> None:
    (section,) = benchmark_sections(rows({"weighted-vote": ["soft_min", "mean"]}), [])
    assert [row.note for row in section.aggregations if row.label == "Weighted vote"] == ["mean", "soft_min"]
    assert "weighted vote (mean)" in [legend.label for legend in section.curve_legend]


def test_any_evaluator_has_its_section() -> None:
    metric = {"metric": "step_auroc", "levels": "easy", "value": 0.9, "ci_low": 0.8, "ci_high": 1.0}
    section = evaluator_section([{**metric, "evaluator": "easy_critic"}], [])
    assert section.evaluator == "easy_critic" and len(section.rows) == 1


def test_names_colours_and_marks_of_unknown_words() -> None:
    assert (method_name("best-of-n", "min"), method_name("tree_vote")) == ("best-of-N (min)", "tree vote")
    assert policy_name("weak-to_strong") == "Weak to strong"
    assert color_of("sft") == COLORS["sft"]
    assert color_of("tree_vote") == color_of("tree_vote") and color_of("tree_vote") not in COLORS.values()
    assert marker_of("tree_vote") and marker_of("pass") == ""
    assert sorted(["zeta", "rl", "base", "alpha", "sft"], key=policy_order) == [
        "base",
        "sft",
        "rl",
        "alpha",
        "zeta",
    ]
