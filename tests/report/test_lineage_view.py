"""The ways of the easy data to the numbers, as the page shows them."""

from __future__ import annotations

from typing import Any

import pytest

from e2h_pipeline.report.lineage_view import lineage_section


def artifact(asset: str, *inputs: str, **more: Any) -> dict[str, Any]:
    return {
        "asset": asset,
        "data_version": f"sha256:{asset}",
        "wall_seconds": 1.0,
        "inputs": list(inputs),
        **more,
    }


GRAPH = [
    artifact("benchmark_metrics", "rl_policy"),
    artifact("rl_policy", "ppo_policy", "dpo_policy"),
    artifact("dpo_policy", "easy_problems", not_trained="the recipe has rl.algorithm=ppo"),
    artifact("ppo_policy", "easy_problems"),
    artifact("easy_problems"),
]


def test_no_way_leads_through_what_was_not_trained() -> None:
    section = lineage_section(GRAPH)
    assert [[name for name, _ in path] for path in section.paths] == [
        ["easy_problems", "ppo_policy", "rl_policy", "benchmark_metrics"]
    ]
    assert {row.asset: row.seconds for row in section.rows}["dpo_policy"] == "not trained"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://mlflow.example/#/runs/1", "https://mlflow.example/#/runs/1"),
        ("javascript:alert(1)", ""),
        (None, ""),
    ],
)
def test_only_web_pages_are_linked(url: str | None, shown: str) -> None:
    (row,) = lineage_section([artifact("easy_problems", tracking_url=url)]).rows
    assert row.mlflow == shown
