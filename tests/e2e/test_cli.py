"""What the command line says about an experiment, from nothing to its report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import e2h

from e2h_pipeline.evaluation.results import RESULT_COLUMNS

pytestmark = pytest.mark.slow
STAGES = 32


def _stages(text: str, kind: str) -> set[str]:
    return set(re.findall(rf"^  (\w+) +{kind} ", text, re.MULTILINE))


def _json(home: Path, *arguments: str) -> Any:
    done = e2h(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_other_easy_data_remakes_exactly_what_is_below(tiny_home: Path) -> None:
    """The source is split again; only the easy partition differs, so what does not come from it is reused."""
    done = e2h(tiny_home, "run", "tiny/problems.easy_limit=24")
    assert done.returncode == 0, done.stderr
    assert _stages(done.stdout, "reused") == {"problem_source", "base_model", "base_answers"}
    assert f"{STAGES - 3} stages computed, 3 reused; 11 checks passed, 0 failed" in done.stdout


def test_the_pool_reads_the_evaluator_only_where_it_gives_samples_up(tiny_home: Path) -> None:
    whole = _json(tiny_home, "inspect", "benchmark_samples", "--key", "tiny")
    assert set(whole["inputs"]) == {"sft_policy", "benchmark_questions"}
    key = "tiny/early_stop.enabled=true/early_stop.every=4"
    done = e2h(tiny_home, "run", key, "--select", "+early_stop_metrics")
    assert done.returncode == 0, done.stderr
    watched = _json(tiny_home, "inspect", "benchmark_samples", "--key", key)
    assert set(watched["inputs"]) == {"sft_policy", "benchmark_questions", "evaluator", "easy_step_labels"}
    assert watched["summary"]["samples"] == whole["summary"]["samples"]
    assert watched["summary"]["tokens"] <= whole["summary"]["tokens"]
    assert _stages(done.stdout, "computed") >= {"benchmark_samples", "early_stop_metrics"}


def test_results_have_every_column_and_the_easy_data_behind_them(tiny_home: Path) -> None:
    rows = _json(tiny_home, "results", "tiny")
    assert all(set(RESULT_COLUMNS) <= row.keys() for row in rows)
    assert {row["policy"] for row in rows} == {"base", "sft", "rl"}
    manifest = _json(tiny_home, "inspect", "easy_problems", "--key", "tiny")
    assert {row["data_versions"]["easy_problems"] for row in rows} == {manifest["data_version"]}
    assert manifest["seeds"] == {"problems.seed": 0, "problems.world.seed": 0}


def test_lineage_leads_every_number_to_its_easy_data(tiny_home: Path) -> None:
    found = _json(tiny_home, "lineage", "tiny")
    (easy,) = found["easy_data_version"]
    for number in found["numbers"]:
        assert number["easy_data_version"] == ([] if number["policy"] == "base" else [easy])
        for way in found["sources"][number["source"]]["paths"]:
            assert way[0]["asset"] == number["source"]
            assert way[-1] == {**way[-1], "asset": "easy_problems", "data_version": easy}
    assert "easy_problems" in e2h(tiny_home, "lineage", "tiny").stdout


def test_the_report_is_one_page(tiny_home: Path) -> None:
    done = e2h(tiny_home, "report", "tiny")
    page = Path(done.stdout.strip())
    assert page == tiny_home / "reports" / "tiny.html"
    assert "LADDER500" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nothing"], "no recipe 'nothing'"),
        (["run", "tiny/rl.speed=1"], "no such field"),
        (["run", "tiny", "--select", "rl_polic"], "names no asset"),
        (["results", "tiny/seed=9"], "has no results yet; run: e2h run tiny/seed=9"),
        (["inspect", "policy", "--key", "tiny"], "no asset 'policy'; there are: base_answers"),
        (["report", "tiny/seed=9"], "has no report yet"),
        (
            ["run", "tiny/base.model=nowhere/base.train=false", "--select", "+base_model"],
            "base_model failed: ",
        ),
    ],
)
def test_errors_are_one_line(tiny_home: Path, arguments: list[str], says: str) -> None:
    done = e2h(tiny_home, *arguments)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("e2h: ") and says in last
    assert "Traceback" not in done.stderr
