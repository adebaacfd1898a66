"""The pages of a sweep, of a comparison and of all experiments in a real browser: they load nothing, fit a
phone, are dark where people prefer that, and a sweep's number needs no scrolling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from browser import Page, browser, needs_browser

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.report.compare import compare_html
from e2h_pipeline.report.index import index_html
from e2h_pipeline.report.plots import Series, axis_panel
from e2h_pipeline.report.sweep import sweep_html
from e2h_pipeline.sweeps.numbers import Pooled, Told

pytestmark = needs_browser
KEY = "llemma-7b/reward.training.learning_rate=0.00001/rl.algorithm=grpo/rl.group_size=16"
TOLD = Told("61.3", "[55.0, 67.5]", (61.3, 55.0, 67.5), "60.0 / 62.6")


def _sweep(_: Path) -> str:
    values = {"reward.training.learning_rate": 1e-5, "rl.algorithm": "grpo"}
    arm = {"values": values, "numbers": [None, TOLD], "seeds": 2, "of": 2, "states": {"made": 2}}
    member = {"key": KEY, "state": "made", "made": 7, "stages": 7, "error": "", "strict": True, "report": ""}
    line = Series("RL greedy", "#009e73", [0, 1], [50, 60], [45, 55], [55, 65])
    return sweep_html(
        arms=[{**arm, "strict": True, "reports": []}] * 3,
        members=[member] * 6,
        sort="RL greedy",
        name="rates",
        description="Learning rates of the evaluator, for GRPO in groups of 16.",
        numbers=["SFT greedy", "RL greedy"],
        panels=[axis_panel("rl.algorithm", ["ppo", "grpo"], [line])],
        stopped=[(KEY, "stopped after 3 updates: KL above 1; the policy is that of update 2")],
        pooled=Pooled([], [], []),
        looks={"looks": 0, "first": ""},
        stop="never",
        told="now",
    )


def _compare(folder: Path) -> str:
    row = {"benchmark": "B", "policy": "sft", "method": "majority", "aggregation": "", "evaluator": ""}
    number = {"grader": "", "levels": "hard", "accuracy": 0.5, "ci_low": 0.4, "ci_high": 0.6, "problems": 9}
    table = pa.Table.from_pylist([{**row, **number, "n": n} for n in (1, 2, 4)])
    write_table(folder / "metrics.parquet", table)
    side = {"asset": "m", "data_version": "d" * 64, "easy_data_version": ["e" * 64], "strict": True}
    difference = {"difference": 0.1, "ci_low": 0.0, "ci_high": 0.2, "paired": True, "holm": 0.2}
    value = {"accuracy": 0.5, "ci_low": 0.4, "ci_high": 0.6, "problems": 9}
    compared: dict[str, Any] = {
        "experiments": [
            {**side, "experiment": f"{KEY}/seed={i}", "leaks": [], "outdated": "", "stopped": ""}
            for i in (1, 2)
        ],
        "confidence": 0.95,
        "numbers": [
            {
                **row,
                "n": 4,
                "levels": "hard",
                "values": [value] * 2,
                "differences": [{**difference, "problems": 9}],
            }
        ],
        "upstream": [{"experiment": KEY, "assets": [], "roots": []}],
    }
    return compare_html(compared, [(folder, None)] * 2, "now")


def _index(_: Path) -> str:
    row = {"made": "2026-12-01T10:11:12+00:00", "benchmark": "B", "notes": ["not strict"], "easy": "e" * 12}
    rows = [{**row, "key": f"{KEY}/seed={i}", "numbers": [TOLD], "report": "x.html"} for i in range(3)]
    return index_html(rows, headlines=["RL greedy"], others=["sweep-a.html"], home="/home/e2h", told="now")


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("made", [_compare, _index, _sweep])
def test_pages_load_nothing_fit_a_phone_and_can_be_dark(
    made: Callable[[Path], str], tab: Page, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    file.write_text(made(tmp_path), encoding="utf-8")
    tab.scheme("dark")
    for width, height in ((390, 844), (1280, 900)):
        tab.open(file.as_uri(), width, height)
        assert tab.run("document.documentElement.scrollWidth") <= width
        assert (tab.requested, tab.troubles) == ([file.as_uri()], [])
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    assert tab.run("document.querySelectorAll('main').length") == 1
    assert tab.run("[...document.querySelectorAll('svg')].every(s => s.getAttribute('aria-label'))")


def test_a_number_of_a_sweep_is_seen_on_a_phone_without_scrolling(tab: Page, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(_sweep(tmp_path), encoding="utf-8")
    tab.open(file.as_uri(), 390, 844)
    assert tab.run("document.querySelector('.tile b').innerText") == TOLD.value
    assert tab.run("document.querySelector('.tile b').getBoundingClientRect().bottom") < 844
    first = "document.querySelector('tbody th').getBoundingClientRect()"
    assert tab.run(f"{first}.left") >= 0 and tab.run(f"{first}.right") < 390
