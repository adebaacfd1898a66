"""The page of a sweep over real artifacts: arms over seeds, comparisons, and earlier looks."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from e2h_pipeline.artifacts.request import Artifact, Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.evaluation.scoreboard import Method, Scoreboard, metrics_table, values_table
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.sweeps.page import write_page
from e2h_pipeline.sweeps.spec import Member, Sweep, SweepError
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


def page(store: ArtifactStore, rows: list[MemberStatus], sort: str = "") -> str:
    return write_page(store, REWARDS, rows, sort).read_text(encoding="utf-8")


def tables(text: str) -> list[list[dict[str, str]]]:
    """The tables and figures of a page, as it lets people save them."""
    links = re.findall(r'href="data:text/csv;charset=utf-8,([^"]*)"', text)
    return [list(csv.DictReader(io.StringIO(unquote(link)))) for link in links]


def results(text: str) -> list[dict[str, str]]:
    """The rows of the first table, in the order of the page."""
    return tables(text)[0]


def words(text: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", text.split("<body>")[1]).split())


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def test_few_seeds_are_pooled_and_their_difference_is_not_told(store: ArtifactStore) -> None:
    shown = words(page(store, members(store, ["orm", "prm"], 3)))
    assert "3 seeds: differences between methods are not told below 5 seeds" in shown
    assert "Against the first recipe" not in shown
    arm = re.search(r"(\S+) \[\S+ \S+\] (\S+) / (\S+) / (\S+) orm", shown)
    assert arm is not None and "orm – " not in shown
    mean, *seeds = map(float, arm.groups())
    assert mean == pytest.approx(np.mean(seeds), abs=0.1)
    assert shown.count("3 of 3 3 made") == 2


def test_arms_with_enough_seeds_are_compared_and_marked_among_all(store: ArtifactStore) -> None:
    text = page(store, members(store, ["orm", "prm", "sft"], 6))
    shown = words(text)
    assert "correction for the 6 comparisons of this page" in shown  # 2 arms, 3 headlines
    assert "not told" not in shown
    bold = re.findall(r'<th scope="row">([^<]*)</th><td class="points"><b>', text)
    assert bold == ["rl greedy, tiny/reward.kind=prm − tiny/reward.kind=orm"]


def test_the_aggregation_shown_is_that_of_the_report(store: ArtifactStore) -> None:
    """Before, the first of the alphabet."""
    (row,) = members(store, ["orm"], 1)
    (shown,) = results(page(store, [row]))
    assert float(shown["weighted vote"]) - float(shown["SFT greedy"]) == pytest.approx(10, abs=1)


def labels(store: ArtifactStore, asset: str, summary: dict[str, Any]) -> Artifact:
    recipe = {"labels": [{"source": "active"}]} if asset == "easy_step_labels" else {}
    return summed(store, asset, {**recipe, "count": summary["labels_bought"]}, summary)


def summed(store: ArtifactStore, asset: str, recipe: dict[str, Any], summary: dict[str, Any]) -> Artifact:
    """An artifact with this summary."""

    def content(draft: Draft) -> None:
        (draft.out / "data").write_bytes(str(summary).encode())
        draft.summary = summary

    return store.obtain(Request(asset, "c0de", recipe, {}), content)[0]


def test_the_labels_that_a_member_bought_stand_beside_its_numbers(store: ArtifactStore) -> None:
    rows = members(store, ["orm", "prm"], 2)
    for row, count in zip(rows[2:], (1200, 1400), strict=True):
        row.artifacts["easy_step_labels"] = labels(store, "easy_step_labels", {"labels_bought": count})  # type: ignore[index]
    outcomes = labels(store, "easy_outcome_labels", {"labels_bought": 60, "grader": "exact"})
    rows[3].artifacts["easy_outcome_labels"] = outcomes  # type: ignore[index]
    shown = words(page(store, rows))
    assert "labels bought" in shown
    assert "1,300 1,300 steps (active), 30 outcomes (exact)" in shown  # the mean over seeds
    single = words(page(store, [rows[3]]))
    assert "1,400 1,400 steps (active), 60 outcomes (exact)" in single
    waiting = replace(rows[3], state="missing")
    assert "1,400 1,400 steps (active), 60 outcomes (exact)" in words(page(store, [waiting]))


def test_a_page_says_how_often_its_numbers_were_looked_at(store: ArtifactStore) -> None:
    rows = members(store, ["orm", "prm"], 2)
    assert "looked at" not in words(page(store, []))
    assert "looked at 1 time since" in words(page(store, rows[:2]))
    assert "looked at 1 time since" in words(page(store, rows[:2]))  # nothing new to see
    assert "looked at 2 times since" in words(page(store, rows))


def test_a_damaged_artifact_is_left_out_of_the_pool(store: ArtifactStore) -> None:
    rows = members(store, ["orm"], 3)
    (rows[0].artifacts["benchmark_metrics"].path / "values.parquet").write_bytes(b"rot")
    assert "orm 2 of 3 3 made" in words(page(store, rows))


def test_recipes_are_sorted_by_a_number_or_an_axis(store: ArtifactStore) -> None:
    rows = members(store, ["orm", "prm", "sft"], 2)

    def order(sort: str = "") -> list[str]:
        return [row["reward.kind"] for row in results(page(store, rows, sort))]

    assert order("grid") == ["orm", "prm", "sft"]
    assert order()[0] == "prm"  # its RL is best
    assert order("RL Greedy") == order()
    assert order("reward.kind") == ["orm", "prm", "sft"]
    greedy = [float(row["RL greedy"]) for row in results(page(store, rows))]
    assert greedy == sorted(greedy, reverse=True)
    with pytest.raises(SweepError, match=r"no number or axis 'RL'; there are: SFT greedy, .*grid"):
        page(store, rows, "RL")


def test_recipes_without_a_number_come_last_in_the_order_of_the_file(store: ArtifactStore) -> None:
    made = members(store, ["prm"], 1)
    missing = [
        MemberStatus(Member(f"tiny/reward.kind={kind}", {"reward.kind": kind}), "missing", 7, 0)
        for kind in ("orm", "oprm")
    ]
    shown = results(page(store, [*missing, *made]))
    assert [row["reward.kind"] for row in shown] == ["prm", "orm", "oprm"]
    assert [row["seeds"] for row in shown] == ["1", "0", "0"]


def test_the_highest_number_stands_before_the_table(store: ArtifactStore) -> None:
    text = page(store, members(store, ["orm", "prm"], 2))
    tile = words("<body>" + text.partition('<div class="tile">')[2].partition("</section>")[0])
    best = results(text)[0]
    assert tile.startswith("Highest RL greedy on hard levels, of 2: reward.kind prm")
    assert f" {float(best['RL greedy']):.1f} %" in tile
    heads = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', text)
    assert heads[0] == "RL greedy ↓" and heads.index("reward.kind") > heads.index("SFT greedy")


def test_every_axis_with_several_values_has_a_figure_with_its_name(store: ArtifactStore) -> None:
    rows = [
        replace(row, member=Member(row.member.key, {**row.member.values, "rl.kl": kl, "rl.lag": 0}))
        for row, kl in zip(members(store, ["orm", "prm", "sft"], 1), (0.1, 0.02, 0.1), strict=True)
    ]
    text = page(store, rows)
    assert re.findall(r'aria-label="(Accuracy over [^"]*)"', text) == [
        "Accuracy over reward.kind",
        "Accuracy over rl.kl",
    ]
    assert text.count(">rl.kl</text>") == 1
    greedy = {row["reward.kind"]: float(row["RL greedy"]) for row in results(text)}
    saved = next(table for table in tables(text) if "rl.kl" in table[0] and "series" in table[0])
    told = {row["rl.kl"]: row for row in saved if row["series"] == "RL greedy"}
    assert list(told) == ["0.02", "0.1"]  # by size
    assert float(told["0.1"]["accuracy, %"]) == pytest.approx((greedy["orm"] + greedy["sft"]) / 2)
    assert float(told["0.1"]["low"]) == pytest.approx(min(greedy["orm"], greedy["sft"]))


def test_a_training_that_a_guard_stopped_is_told_at_the_top(store: ArtifactStore) -> None:
    rows = members(store, ["orm", "prm"], 1)
    stop = {"stopped": "KL above <1>", "updates": 3, "best_update": 2}
    rows[1].artifacts["rl_policy"] = summed(store, "rl_policy", {}, stop)  # type: ignore[index]
    text = page(store, rows)
    (banner,) = re.findall(r'<div class="banner".*?</div>', text.partition("<h2>")[0])
    assert "of 1 member:" in banner and "tiny/reward.kind=prm/seed=0" in banner
    assert "KL above &lt;1&gt;" in banner
    assert 'class="banner"' not in page(store, rows[:1])


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
