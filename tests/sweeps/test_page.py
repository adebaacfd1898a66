"""The page of a sweep over real artifacts: arms over seeds, comparisons, and earlier looks."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2h_pipeline.artifacts.request import Artifact, Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.evaluation.scoreboard import Method, Scoreboard, metrics_table, values_table
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.sweeps.page import write_page
from e2h_pipeline.sweeps.spec import Member, Sweep
from e2h_pipeline.sweeps.status import MemberStatus
from e2h_pipeline.sweeps.summary import summary

EASY = [1, 2, 3]
LEVELS = np.repeat(np.arange(1, 6), 12)
EVALUATION = {"easy_levels": EASY, "bootstrap": 100, "confidence": 0.95, "ceiling": None}
REWARDS = Sweep(name="rewards", recipe="tiny", axes={"seed": ["0"]})
GAIN = {"sft": 0.0, "orm": 0.0, "prm": 0.15}


def numbers(store: ArtifactStore, reward: str, seed: int) -> Artifact:
    """A table of metrics: the seed moves all policies alike, and the reward moves RL alone."""
    rng = np.random.default_rng(seed)
    answers = np.clip(0.4 + rng.normal(0, 0.1) + rng.normal(0, 0.1, len(LEVELS)), 0, 1)
    vote = np.clip(answers + 0.1, 0, 1)
    values = {
        Method("sft", "greedy", 1): answers,
        Method("rl", "greedy", 1): np.clip(answers + GAIN[reward] + rng.normal(0, 0.01, len(LEVELS)), 0, 1),
        Method("sft", "weighted-vote", 8, reward, "last"): answers,
        Method("sft", "weighted-vote", 8, reward, "product"): vote,
    }
    board = Scoreboard("TEST", "exact/1", tuple(f"p{i:03}" for i in range(len(LEVELS))), LEVELS, values)

    def make(draft: Draft) -> None:
        write_table(draft.out / "metrics.parquet", metrics_table(board, EASY, Bootstrap(100)))
        write_table(draft.out / "values.parquet", values_table(board))

    recipe = {"evaluation": EVALUATION, "reward": reward, "seed": seed}
    return store.obtain(Request("benchmark_metrics", "c0de", recipe, {}), make)[0]


def members(store: ArtifactStore, rewards: list[str], seeds: int) -> list[MemberStatus]:
    return [
        MemberStatus(
            Member(f"tiny/reward.kind={reward}/seed={seed}", {"reward.kind": reward, "seed": str(seed)}),
            "made",
            stages=7,
            made=7,
            artifacts={"benchmark_metrics": numbers(store, reward, seed)},
        )
        for reward in rewards
        for seed in range(seeds)
    ]


def page(store: ArtifactStore, rows: list[MemberStatus]) -> str:
    return write_page(store, REWARDS, rows).read_text(encoding="utf-8")


def words(text: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", text.split("<body>")[1]).split())


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def test_few_seeds_are_pooled_and_their_difference_is_not_told(store: ArtifactStore) -> None:
    shown = words(page(store, members(store, ["orm", "prm"], 3)))
    assert "3 seeds: differences between methods are not told below 5 seeds" in shown
    assert "Against the first recipe" not in shown
    arm = re.search(r"tiny/reward.kind=orm 3 (\S+) \[\S+ \S+\] (\S+) / (\S+) / (\S+)", shown)
    assert arm is not None
    mean, *seeds = map(float, arm.groups())
    assert mean == pytest.approx(np.mean(seeds), abs=0.1)


def test_arms_with_enough_seeds_are_compared_and_marked_among_all(store: ArtifactStore) -> None:
    text = page(store, members(store, ["orm", "prm", "sft"], 6))
    shown = words(text)
    assert "correction for the 6 comparisons of this page" in shown  # 2 arms, 3 headlines
    assert "not told" not in shown
    bold = re.findall(r"<td>([^<]*)</td><td>1</td><td>6</td>\s*<td class=\"number\"><b>", text)
    assert bold == ["rl greedy, tiny/reward.kind=prm − tiny/reward.kind=orm"]


def test_the_aggregation_shown_is_that_of_the_report(store: ArtifactStore) -> None:
    """Before, the first of the alphabet."""
    (row,) = members(store, ["orm"], 1)
    vote = page(store, [row]).split('<td class="number">')[3]
    sft = page(store, [row]).split('<td class="number">')[1]
    assert float(vote[:4]) - float(sft[:4]) == pytest.approx(10, abs=1)


def labels(store: ArtifactStore, asset: str, summary: dict[str, Any]) -> Artifact:
    recipe = {"labels": [{"source": "active"}]} if asset == "easy_step_labels" else {}
    made = Request(asset, "c0de", {**recipe, "count": summary["labels_bought"]}, {})

    def content(draft: Draft) -> None:
        (draft.out / "data").write_bytes(str(summary).encode())
        draft.summary = summary

    return store.obtain(made, content)[0]


def test_the_labels_that_a_member_bought_stand_beside_its_numbers(store: ArtifactStore) -> None:
    rows = members(store, ["orm", "prm"], 2)
    for row, count in zip(rows[2:], (1200, 1400), strict=True):
        row.artifacts["easy_step_labels"] = labels(store, "easy_step_labels", {"labels_bought": count})  # type: ignore[index]
    outcomes = labels(store, "easy_outcome_labels", {"labels_bought": 60, "grader": "exact"})
    rows[3].artifacts["easy_outcome_labels"] = outcomes  # type: ignore[index]
    shown = words(page(store, rows))
    assert "labels bought" in shown
    assert "1,200 1,200 steps (active)" in shown
    assert "1,400 1,400 steps (active), 60 outcomes (exact)" in shown
    assert "1,300 1,300 steps (active), 30 outcomes (exact)" in shown  # the mean over seeds


def test_a_page_says_how_often_its_numbers_were_looked_at(store: ArtifactStore) -> None:
    rows = members(store, ["orm", "prm"], 2)
    assert "looked at" not in words(page(store, []))
    assert "looked at 1 time since" in words(page(store, rows[:2]))
    assert "looked at 1 time since" in words(page(store, rows[:2]))  # nothing new to see
    assert "looked at 2 times since" in words(page(store, rows))


def test_a_damaged_artifact_is_left_out_of_the_pool(store: ArtifactStore) -> None:
    rows = members(store, ["orm"], 3)
    (rows[0].artifacts["benchmark_metrics"].path / "values.parquet").write_bytes(b"rot")
    assert "tiny/reward.kind=orm 2 " in words(page(store, rows))


@pytest.mark.parametrize(
    ("seeds", "named"), [(1, "tiny/reward.kind=orm/seed=0"), (2, "tiny/reward.kind=orm (2 seeds)")]
)
def test_the_summary_has_the_numbers_of_arms_or_members_and_what_failed(
    store: ArtifactStore, seeds: int, named: str
) -> None:
    made = members(store, ["orm"], seeds)
    failed = replace(made[0], state="failed", error="rl_policy: out of memory", artifacts={})
    head, why, heading, numbers, page = summary(store, REWARDS, [*made, failed]).splitlines()
    assert head == f"e2h: sweep rewards has ended: 1 failed, {seeds} made of {seeds + 1} members"
    assert why.endswith("failed: rl_policy: out of memory") and heading.endswith("%:")
    assert numbers.startswith(f"{named}: SFT greedy ") and page.endswith("sweep-rewards.html")
    assert re.search(r"weighted vote \d+\.\d \[\S+ \S+\].*; RL greedy \d+\.\d", numbers)


def test_a_long_summary_is_cut(store: ArtifactStore) -> None:
    (one,) = members(store, ["orm"], 1)
    rows = [replace(one, state="failed", error="gone", artifacts={})] * 25
    lines = summary(store, REWARDS, rows).splitlines()
    assert lines[-2] == "... and 5 more" and len(lines) == 23
