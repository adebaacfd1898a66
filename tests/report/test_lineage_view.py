"""Paths from the easy data to the numbers, as shown on the page."""

from __future__ import annotations

from typing import Any

import pytest

from e2h_pipeline.report.lineage_view import lineage_section, with_links


def artifact(asset: str, *inputs: str, **more: Any) -> dict[str, Any]:
    return {
        "asset": asset,
        "data_version": f"sha256:{asset}",
        "wall_seconds": 1.0,
        "inputs": list(inputs),
        **more,
    }


BEFORE = [
    artifact("benchmark_metrics", "rl_policy", "rerank_metrics"),
    artifact("rerank_metrics", "evaluator"),
    artifact("rl_policy", "ppo_policy", "dpo_policy", tracking_url="http://127.0.0.1:5000/#/runs/7"),
    artifact("dpo_policy", "easy_problems", not_trained="the recipe has rl.algorithm=ppo"),
    artifact("ppo_policy", "evaluator"),
    artifact("evaluator", "easy_prm", "easy_orm"),
    artifact("easy_orm", "easy_problems", not_trained="the recipe has reward.kind=prm"),
    artifact("easy_prm", "easy_step_labels"),
    artifact("easy_step_labels", "easy_problems"),
    artifact("easy_problems"),
]
"""As in homes of the version that had an asset for each method."""

NOW = [
    artifact("benchmark_metrics", "rl_policy"),
    artifact("rl_policy", "easy_evaluator"),
    artifact("easy_evaluator", "easy_labels"),
    artifact("easy_labels", "easy_problems"),
    artifact("easy_problems"),
]


def test_ways_lead_through_any_assets() -> None:
    (path,) = lineage_section(NOW).paths
    assert [name for name, _ in path] == [row["asset"] for row in reversed(NOW)]


def test_without_a_policy_the_ways_lead_to_the_judgement_of_the_evaluator() -> None:
    rows = [
        artifact("evaluator_generalization", "easy_evaluator", "easy_labels", "easy_problems"),
        *NOW[2:],
    ]
    (path,) = lineage_section(rows).paths
    assert [name for name, _ in path] == ["easy_problems", "easy_labels", "evaluator_generalization"]


def test_homes_of_earlier_versions_are_shown_without_ways_through_what_was_not_trained() -> None:
    section = lineage_section(BEFORE)
    assert [[name for name, _ in path] for path in section.paths] == [
        ["easy_problems", "easy_step_labels", "easy_prm", "evaluator", "rerank_metrics"]
    ]
    rows = {row.asset: row for row in section.rows}
    assert rows["dpo_policy"].seconds == rows["easy_orm"].seconds == "not trained"
    assert rows["ppo_policy"].easy and rows["ppo_policy"].seconds == "1.0 s"
    assert (rows["rl_policy"].mlflow, rows["rl_policy"].mlflow_page) == ("", "#/runs/7")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://mlflow.example/#/runs/1", ("https://mlflow.example/#/runs/1", "")),
        ("#/runs/1", ("", "#/runs/1")),
        ("http://localhost:5000/#/runs/1", ("", "#/runs/1")),
        ("http://127.0.0.1.example/#/runs/1", ("http://127.0.0.1.example/#/runs/1", "")),
        ("javascript:alert(1)", ("", "")),
        (None, ("", "")),
    ],
)
def test_only_web_pages_are_linked(url: str | None, shown: tuple[str, str]) -> None:
    (row,) = lineage_section([artifact("easy_problems", tracking_url=url)]).rows
    assert (row.mlflow, row.mlflow_page) == shown


def test_runs_are_linked_to_servers_that_are_there_alone() -> None:
    page = '<a data-dagster="/runs/1">x</a> <a data-mlflow="#/a&amp;2">y</a>'
    none = {"dagster": lambda _: None, "mlflow": "javascript:{}".format}
    assert with_links(page, {}) == with_links(page, none) == page
    linked = with_links(page, {"dagster": 'http://h:1/"{}'.format, "mlflow": "https://m/{}?b&c".format})
    assert linked == ('<a href="http://h:1/&quot;/runs/1">x</a> <a href="https://m/#/a&amp;2?b&amp;c">y</a>')


def test_every_artifact_stands_below_what_it_was_made_from() -> None:
    for rows in (NOW, BEFORE):
        shown = [row.asset for row in lineage_section(rows).rows]
        for row in rows:
            assert all(shown.index(i) < shown.index(row["asset"]) for i in row["inputs"])
