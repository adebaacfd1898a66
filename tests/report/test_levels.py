"""Pages of domains with few, many and named levels show the levels of the tables."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.evaluation.choices import choices_schema
from e2h_pipeline.report.colors import level_colors, mixed
from e2h_pipeline.report.html import Subject, write_report
from e2h_pipeline.report.levels import NUMBERED, LevelNames, levels_in
from e2h_pipeline.report.rl_view import audit_section
from e2h_pipeline.report.view import benchmark_sections
from e2h_pipeline.statistics.levels import POOLED_GROUPS

METHODS = [("sft", "greedy", "", 1), ("sft", "majority", "", 4), ("sft", "weighted-vote", "product", 4)]


def levels_of(count: int) -> list[str]:
    return [str(level) for level in range(1, count + 1)]


def metric_rows(groups: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "benchmark": "B",
            "grader": "exact/1",
            "policy": policy,
            "method": method,
            "evaluator": "",
            "aggregation": aggregation,
            "n": n,
            "levels": group,
            "accuracy": 0.5,
            "ci_low": 0.4,
            "ci_high": 0.6,
            "problems": 10,
        }
        for policy, method, aggregation, n in METHODS
        for group in groups
    ]


def choice_rows(levels: Sequence[str]) -> list[dict[str, Any]]:
    """One problem per level, on which all methods agree."""
    return [
        {
            "problem_id": f"p{level}",
            "level": int(level),
            "question": "1+1",
            "gold": "2",
            "roles": ["majority", "weighted-vote"],
            "sample": 0,
            "completion": "1+1=2\n\n# Answer\n\n2",
            "answer": "2",
            "right": True,
            "votes": 4,
            "weight": 1.0,
            "step_scores": [0.9, 0.9],
            "samples": 4,
            "right_samples": 4,
        }
        for level in levels
    ]


def audit_rows(groups: Sequence[str]) -> list[dict[str, Any]]:
    values = {
        f"{name}{part}": 0.5
        for name in ("gold_accuracy", "evaluator_score")
        for part in ("", "_low", "_high")
    }
    gap = {"gap": 0.1, "gap_low": 0.0, "gap_high": 0.2}
    return [
        {
            "levels": group,
            "first_update": update,
            "last_update": update + 1,
            "chosen": update == 3,
            "problems": 10,
            "kl": 0.1 * update,
            **values,
            **gap,
        }
        for group in groups
        for update in (1, 3)
    ]


def audit(folder: Path, groups: Sequence[str]) -> Path:
    write_table(folder / "curves.parquet", pa.Table.from_pylist(audit_rows(groups)))
    found = {"over_optimized": False, "spearman": 0.5, "windows": 2}
    (folder / "figures.json").write_text(json.dumps({"levels": dict.fromkeys(groups, found)}))
    return folder


def page(folder: Path, levels: Sequence[str], names: tuple[str, ...] = ()) -> str:
    """A page with all sections except training."""
    groups = [*levels, *POOLED_GROUPS]
    evaluator = [
        {"evaluator": "easy_prm", "metric": "step_auroc", "levels": g, "value": 0.8, "ci_low": 0.7}
        | {"ci_high": 0.9, "count": 5}
        for g in groups
    ]
    bins = [
        {"evaluator": "easy_prm", "kind": "step", "levels": g, "mean_score": 0.5, "share_right": 0.5}
        for g in groups
    ]
    lengths = [{"policy": "sft", "decoding": "greedy", "levels": g, "tokens": 20.0} for g in groups]
    difference = {"benchmark": "B", "first": "weighted-vote product", "second": "majority", "n": 4}
    numbers = {"difference": 0.1, "ci_low": 0.02, "ci_high": 0.2, "problems": 10}
    differences = [{**difference, **numbers, "levels": g} for g in groups]
    tables = {
        "bm/metrics": metric_rows(groups),
        "bm/differences": differences,
        "bm/lengths": lengths,
        "eg/metrics": evaluator,
        "eg/reliability": bins,
    }
    for name, rows in tables.items():
        write_table(folder / f"{name}.parquet", pa.Table.from_pylist(rows))
    choices = pa.Table.from_pylist(choice_rows(levels), choices_schema())
    write_table(folder / "rr" / "choices.parquet", choices)
    inputs = {
        "benchmark_metrics": folder / "bm",
        "evaluator_generalization": folder / "eg",
        "rerank_metrics": folder / "rr",
        "rl_audit": audit(folder / "audit", groups),
    }
    recipe = {"name": "toy", "evaluation": {"confidence": 0.95}}
    write_report(inputs, [], folder / "page", Subject("toy", recipe, names))
    return (folder / "page" / "report.html").read_text(encoding="utf-8")


def heads(text: str, caption: str) -> list[str]:
    """Heads of the columns of a table."""
    table = next(t for t in re.findall(r"<table.*?</table>", text, re.DOTALL) if caption in t)
    return re.findall(r'<th scope="col">(.*?)</th>', table.partition("</thead>")[0])


@pytest.mark.parametrize("count", [1, 3, 7, 12])
def test_levels_are_those_of_the_tables(tmp_path: Path, count: int) -> None:
    levels = levels_of(count)
    text = page(tmp_path, levels)
    assert heads(text, "every aggregation") == [*levels, *POOLED_GROUPS]
    assert heads(text, "easy_prm by level") == [*levels, *POOLED_GROUPS]
    assert heads(text, "both right") == [*(f"level {level}" for level in levels), "all"]
    named = {int(found) for found in re.findall(r"\blevel (\d+)\b", text)}
    assert named == set(range(1, count + 1))
    for level in levels:  # bars by level, AUROC by level; the audit has its names in the legend
        assert len(re.findall(rf">level {level}</text>", text)) == 3
        assert f"</i>level {level}</li>" in text


@pytest.mark.parametrize("count", [3, 7])
def test_levels_with_names_go_by_them(tmp_path: Path, count: int) -> None:
    names = ("novice", "<b>apprentice", "skilled", "adept", "expert", "master", "legend")[:count]
    text = page(tmp_path, levels_of(count), names)
    shown = [name.replace("<", "&lt;").replace(">", "&gt;") for name in names]
    assert heads(text, "every aggregation") == [*shown, *POOLED_GROUPS]
    assert heads(text, "easy_prm by level") == [*shown, *POOLED_GROUPS]
    assert heads(text, "both right") == [*shown, "all"]
    assert not re.search(r"\blevel \d", text)
    assert "<b>apprentice" not in text
    for name in shown:
        assert f"</i>{name}</li>" in text  # the audit's legend
        assert f'<span class="about">{name} · both right' in text


def test_a_group_of_unknown_level_is_no_level(tmp_path: Path) -> None:
    text = page(tmp_path, ["0", "1", "2"])
    assert heads(text, "every aggregation") == ["1", "2", *POOLED_GROUPS]
    assert heads(text, "both right") == ["level 1", "level 2", "all"]
    assert "level 0" not in text and "unknown level · both right" in text
    assert "<b>3</b>" in text  # all problems count


def test_no_level_is_known(tmp_path: Path) -> None:
    """Questions without levels: one column, and the audit of all rollouts."""
    (section,) = benchmark_sections(metric_rows(["all"]), [])
    assert section.columns == ("all",) and not section.bars
    audited = audit_section(audit(tmp_path, ["all"]))
    assert audited is not None
    assert {row.label for row in audited.rows} == {"All levels"} and len(audited.findings) == 1
    assert len(audited.panels) == 1


def test_levels_are_in_order_of_their_numbers() -> None:
    assert levels_in(["hard", "10", "2", "all", "0", "1", "2"]) == ("1", "2", "10")
    assert LevelNames(("a",)).labels(["1", "2", "0"]) == ["a", "level 2", "unknown level"]
    assert NUMBERED.columns(["3", "easy"]) == ("3", "easy")


def test_colours_of_levels() -> None:
    five = ["#56b4e9", "#0072b2", "#009e73", "#e69f00", "#d55e00"]
    assert level_colors(["1", "2", "3", "4", "5"]) == five
    assert level_colors(["4", "5"]) == five[3:]  # a page on hard questions alone
    assert level_colors(["1", "2", "3"]) == five[:3]
    assert len(set(level_colors(levels_of(12)))) == 12
    assert level_colors([]) == []
    # Halfway from black to white, and from white to red.
    assert mixed(["#000000", "#ffffff", "#ff0000"], 5) == [
        "#000000",
        "#808080",
        "#ffffff",
        "#ff8080",
        "#ff0000",
    ]
