"""Numbers of an experiment with a leak: every command marks them and ends with status 1, unless
asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import toy_stages as toy
from planted_checks import WHY, report_check
from tiny_experiment import new_home
from typer.testing import CliRunner

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.request import StoreError
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.cli import view
from e2h_pipeline.cli.app import app
from e2h_pipeline.cli.shared import CommandError
from e2h_pipeline.evaluation.scoreboard import Method, Scoreboard, metrics_table, values_table
from e2h_pipeline.orchestration.instance import open_instance
from e2h_pipeline.orchestration.planning import stage_order
from e2h_pipeline.report.html import with_leaks
from e2h_pipeline.stages.asset import stage
from e2h_pipeline.statistics.bootstrap import Bootstrap

KEY = "tiny"
LEAK = f"check split_integrity of easy_problems failed: {WHY}"


def command(*arguments: str) -> tuple[str, str]:
    """What a command prints, and its error, in this process."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0 or isinstance(done.exception, CommandError), done.exception
    return done.stdout, str(done.exception or "")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose experiment has no stage yet."""
    folder = new_home(tmp_path / "e2h")
    monkeypatch.setenv("E2H_HOME", str(folder))
    return folder


def rows(**standing: Any) -> list[dict[str, Any]]:
    row = {
        "recipe": "x",
        "benchmark": "B",
        "grader": "g",
        "policy": "sft",
        "method": "greedy",
        "aggregation": "",
    }
    return [{**row, "n": 1, "levels": "hard", "accuracy": 0.5, "ci_low": 0.4, "ci_high": 0.6, **standing}]


@pytest.mark.parametrize(
    ("standing", "name"),
    [
        ({"strict": True, "leaks": []}, "x:"),
        ({"strict": False, "leaks": []}, "x (not strict):"),
        ({"strict": True, "leaks": [LEAK]}, "x (LEAK):"),
        ({"strict": False, "leaks": [LEAK]}, "x (LEAK, not strict):"),
        ({}, "x:"),  # samples made elsewhere have neither
    ],
)
def test_tables_mark_their_rows(
    capsys: pytest.CaptureFixture[str], standing: dict[str, Any], name: str
) -> None:
    view.print_results(rows(**standing))
    told = capsys.readouterr().out
    assert f"· {name}" in told
    assert ("LEAK x: check split_integrity" in told) == bool(standing.get("leaks"))
    view.print_results([*rows(**standing), *rows(recipe="other")])
    assert name.rstrip(":") in capsys.readouterr().out


def test_a_page_says_it_above_everything_else() -> None:
    page = "<html><body>\n<h1>x</h1></body></html>"
    assert with_leaks(page, []) == page
    marked = with_leaks(page, ["a <b> leak", "another"])
    assert marked.index("these numbers do not count") < marked.index("<h1>")
    assert "<li>a &lt;b&gt; leak</li><li>another</li>" in marked
    assert with_leaks(marked, ["a third"]) == marked


def board() -> Scoreboard:
    """Two problems, one right."""
    return Scoreboard(
        "TOY", "exact/1", ("a", "b"), np.array([1, 4]), {Method("sft", "majority", 1): np.array([1.0, 0.0])}
    )


@contextmanager
def stand_ins() -> Iterator[list[dg.AssetsDefinition]]:
    """The recipe, a table of numbers, and a report of them."""

    def rerank_metrics(job: StageJob) -> dict[str, Any]:
        write_table(job.out / "metrics.parquet", metrics_table(board(), (1, 2, 3), Bootstrap(10)))
        write_table(job.out / "values.parquet", values_table(board()))
        return {}

    def report(job: StageJob) -> dict[str, Any]:
        (job.out / "page").mkdir()
        (job.out / "page" / "report.html").write_text("<html><body>\n<h1>x</h1></body></html>")
        return {}

    stage_order()  # fills STAGES
    with toy.stages_restored():
        yield [
            toy.recipe,
            stage(group="toy", audit=True, recipe=["evaluation"])(rerank_metrics),
            stage(group="toy", audit=True, reads=["rerank_metrics"])(report),
        ]


def test_commands_mark_numbers_and_fail_unless_asked(home: Path) -> None:
    with stand_ins() as stages, open_instance(home) as instance:
        instance.add_dynamic_partitions("experiment", [KEY])
        dg.materialize(stages, instance=instance, partition_key=KEY, resources=toy.resources(home))
    commands = (
        ("results", KEY),
        ("results", KEY, "--json"),
        ("results", KEY, "--pool"),
        ("lineage", KEY),
        ("diff", KEY, KEY),
        ("report", KEY),
    )
    for one in commands:
        assert command(*one)[1] == "", one
    with open_instance(home) as instance:
        report_check(instance, KEY, passed=False)
    for one in commands:
        told = command(*one)[1]
        assert "supervision firewall: these numbers do not count" in told and LEAK in told, one
        assert command(*one, "--allow-leaks")[1] == "", one
    found = json.loads(command("results", KEY, "--json", "--allow-leaks")[0])
    assert found and all(row["leaks"] == [LEAK] and row["strict"] for row in found)
    traced = json.loads(command("lineage", KEY, "--json", "--allow-leaks")[0])
    assert (traced["strict"], traced["leaks"]) == (True, [LEAK])
    assert f"LEAK {KEY}: {LEAK}" in command("results", KEY)[0]
    assert LEAK in (home / "reports" / "tiny.html").read_text()


def test_commands_say_when_the_recipe_was_edited_or_the_numbers_written_anew(home: Path) -> None:
    with stand_ins() as stages, open_instance(home) as instance:
        instance.add_dynamic_partitions("experiment", [KEY])
        dg.materialize(stages, instance=instance, partition_key=KEY, resources=toy.resources(home))
    recipe = home / "recipes" / "tiny.yaml"
    recipe.write_text(recipe.read_text() + "seed: 5\n")
    edited = "its recipe was edited since: seed is 5 now, 0 here; run: e2h run tiny"
    for one in (("results", KEY), ("results", KEY, "--pool"), ("lineage", KEY), ("diff", KEY, KEY)):
        told, error = command(*one)
        assert "OUTDATED" in told and edited in told and not error, one
        assert edited in command(*one, "--json")[0], one
    assert command("report", KEY)[1] == ""
    assert edited in (home / "reports" / "tiny.html").read_text()
    recipe.unlink()
    assert "its recipe cannot be read any more" in command("results", KEY)[0]
    (table,) = (home / "store" / "rerank_metrics").glob("*/metrics.parquet")
    values = read_table(table)
    table.unlink()
    write_table(
        table, values.set_column(values.column_names.index("accuracy"), "accuracy", [[99.0] * len(values)])
    )
    for one in (("results", KEY), ("lineage", KEY), ("report", KEY)):
        with pytest.raises(StoreError, match=r"metrics\.parquet: does not match its hash"):
            CliRunner().invoke(app, list(one), catch_exceptions=False)
