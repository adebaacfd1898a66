"""The examples of docs/extending.md: an installed package runs through the whole pipeline, with RL
and report, without a change of the library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import forked
import pytest
from tiny_experiment import environment

from e2h_pipeline.artifacts.tables import read_table

pytestmark = pytest.mark.slow
INSTALLED = Path(__file__).parent / "installed"
RECIPE = Path(__file__).with_name("toy.yaml")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after a run of the toy experiment."""
    folder = tmp_path_factory.mktemp("toy") / "e2h"
    (folder / "recipes").mkdir(parents=True)
    shutil.copyfile(RECIPE, folder / "recipes" / "toy.yaml")
    done = e2h(folder, "run", "toy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
    return folder


def e2h(home: Path, *arguments: str, installed: bool = True) -> subprocess.CompletedProcess[str]:
    """The command line, with or without the package installed."""
    paths = [str(INSTALLED)] if installed else []
    seen = {**environment(home), "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    return forked.run(forked.COMMAND_LINE, arguments, seen)


def manifest(home: Path, asset: str) -> dict[str, Any]:
    """The only artifact of an asset."""
    (found,) = (home / "store" / asset).glob("*/manifest.json")
    return dict(json.loads(found.read_text()))


def rows(home: Path, asset: str, table: str = "data.parquet") -> list[dict[str, Any]]:
    """A table of the only artifact of an asset."""
    (found,) = (home / "store" / asset).glob(f"*/{table}")
    return list(read_table(found).to_pylist())


def test_levels_and_the_split_are_the_domains(home: Path) -> None:
    assert {row["level"] for row in rows(home, "easy_problems")} == {1, 2}
    assert {row["level"] for row in rows(home, "hard_questions")} == {3}
    assert {row["level"] for row in rows(home, "benchmark_questions")} == {1, 2, 3}
    metrics = rows(home, "benchmark_metrics", "metrics.parquet")
    assert {row["levels"] for row in metrics} == {"1", "2", "3", "easy", "hard", "all"}
    assert {row["benchmark"] for row in metrics} == {"REVERSAL30"}


def test_every_method_was_the_packages(home: Path) -> None:
    assert manifest(home, "easy_step_labels")["recipe"]["labels"][0]["source"] == "generous"
    assert manifest(home, "easy_evaluator")["summary"]["kind"] == "first_error"
    assert manifest(home, "rl_policy")["recipe"]["rl"]["discount"] == 0.9
    assert {"easy_evaluator"} <= manifest(home, "benchmark_samples")[
        "inputs"
    ].keys()  # its search uses the evaluator
    aggregations = {row["aggregation"] for row in rows(home, "rerank_metrics", "metrics.parquet")}
    assert {"product", "geometric"} <= aggregations
    checked = rows(home, "evaluator_generalization", "metrics.parquet")
    assert any(row["metric"] == "step_auroc" for row in checked)  # the domain's own checker


def test_the_report_and_the_numbers_are_there(home: Path) -> None:
    page = Path(e2h(home, "report", "toy").stdout.strip())
    text = page.read_text(encoding="utf-8")
    assert "REVERSAL30" in text and "geometric" in text and "long" in text
    results = json.loads(e2h(home, "results", "toy", "--json").stdout)
    assert {row["policy"] for row in results} == {"base", "sft", "rl"}


def test_a_second_run_computes_nothing(home: Path) -> None:
    assert " 0 stages computed" in " " + e2h(home, "run", "toy").stdout.replace("\n", " ")


def test_an_option_of_an_installed_method_is_checked_and_described(home: Path) -> None:
    wrong = e2h(home, "recipes", "toy/rl.discount=2")
    assert wrong.returncode == 1 and "rl.discount" in wrong.stderr
    typo = e2h(home, "recipes", "toy/rl.discont=0.5")
    assert "did you mean 'discount'" in typo.stderr
    shown = e2h(home, "recipes", "toy", "--json")
    assert json.loads(shown.stdout)["search"] == {"method": "best_step", "tries": 2}
    beyond = e2h(home, "recipes", "toy/problems.easy_levels=short,long")
    assert "strict: false" in beyond.stderr


def test_without_the_package_its_words_are_unknown(home: Path) -> None:
    done = e2h(home, "recipes", "toy", installed=False)
    assert done.returncode == 1 and "no 'reversal'" in done.stderr
