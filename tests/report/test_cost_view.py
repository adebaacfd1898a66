"""Costs of methods, worked out by hand."""

from __future__ import annotations

from e2h_pipeline.report.cost_view import cost_lines, cost_panels
from e2h_pipeline.report.results import Results

NAMES = [("greedy", "", 1), ("majority", "", 4), ("weighted-vote", "product", 4), ("pass", "", 4)]
METRICS = [
    {
        "benchmark": "B",
        "grader": "g",
        "policy": "sft",
        "method": method,
        "evaluator": "",
        "aggregation": aggregation,
        "n": n,
        "levels": "all",
        "accuracy": 0.5,
        "ci_low": 0.4,
        "ci_high": 0.6,
        "problems": 10,
    }
    for method, aggregation, n in NAMES
]
TOKENS = {("sft", "greedy", "all"): 30.0, ("sft", "sampled", "all"): 40.0}


def test_cost_is_what_is_drawn_and_what_is_read() -> None:
    lines = {line.label: line for line in cost_lines(Results(METRICS), TOKENS, "all")}
    assert {label: line.x for label, line in lines.items()} == {
        "majority vote": [4 * 40.0],
        "weighted vote (product)": [2 * 4 * 40.0],
        "SFT on easy problems, greedy": [30.0],
    }
    assert all(line.y == [50.0] for line in lines.values())


def test_what_an_evaluator_writes_costs_too() -> None:
    written = {**TOKENS, ("sft", "judged", "all"): 25.0}
    lines = {line.label: line.x for line in cost_lines(Results(METRICS), written, "all")}
    assert lines["weighted vote (product)"] == [4 * (2 * 40.0 + 25.0)]
    assert lines["majority vote"] == [4 * 40.0]


def test_what_has_no_length_has_no_cost() -> None:
    lines = cost_lines(Results(METRICS), {("sft", "greedy", "all"): 30.0}, "all")
    assert [line.label for line in lines] == ["SFT on easy problems, greedy"]


def test_a_panel_a_group_names_its_benchmark() -> None:
    lengths = [{"policy": p, "decoding": d, "levels": g, "tokens": t} for (p, d, g), t in TOKENS.items()]
    (panel,) = cost_panels(METRICS, lengths)
    assert "B · all problems" in panel.svg and len(panel.legend) == 3
    assert panel.csv.startswith('series,tokens,"accuracy, %",low,high\nmajority vote,')
