"""The page: self-contained, escaped, one table per benchmark, missing parts named."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.report.html import Subject, samples_page, with_leaks, write_report
from e2h_pipeline.report.rl_view import read_curves

METHODS = [("base", "greedy", "", 1), ("sft", "greedy", "", 1), ("rl", "greedy", "", 1)]
RERANKED = [("majority", ""), ("weighted-vote", "product"), ("best-of-n", "min"), ("pass", "")]
LEVELS = ["1", "2", "3", "4", "5", "easy", "hard", "all"]


def metric_rows(benchmark: str, accuracy: float) -> list[dict[str, Any]]:
    wanted = METHODS + [("sft", method, agg, n) for method, agg in RERANKED for n in (1, 2, 4)]
    return [
        {
            "benchmark": benchmark,
            "grader": "exact/1",
            "policy": policy,
            "method": method,
            "evaluator": "easy_prm" if agg else "",
            "aggregation": agg,
            "n": n,
            "levels": levels,
            "accuracy": accuracy,
            "ci_low": accuracy - 0.05,
            "ci_high": accuracy + 0.05,
            "problems": 100,
        }
        for policy, method, agg, n in wanted
        for levels in LEVELS
    ]


def difference_rows(benchmark: str) -> list[dict[str, Any]]:
    # By itself each is apart from zero; among the 18 of the page the second is not.
    pairs = [
        ("weighted-vote product", "majority", 4, 0.06),
        ("best-of-n min", "majority", 4, 0.09),
        ("rl greedy", "sft greedy", 1, 0.06),
    ]
    return [
        {
            "benchmark": benchmark,
            "first": first,
            "second": second,
            "n": n,
            "levels": levels,
            "difference": 0.1,
            "ci_low": 0.1 - half,
            "ci_high": 0.1 + half,
            "problems": 100,
        }
        for first, second, n, half in pairs
        for levels in LEVELS
    ]


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    metrics = [*metric_rows("LADDER500", 0.625), *metric_rows("MATH500", 0.375)]
    differences = [*difference_rows("LADDER500"), *difference_rows("MATH500")]
    folder = tmp_path / "benchmark_metrics"
    write_table(folder / "metrics.parquet", pa.Table.from_pylist(metrics))
    write_table(folder / "differences.parquet", pa.Table.from_pylist(differences))
    lengths = [
        {"policy": p, "decoding": d, "levels": g, "tokens": 20.0, "problems": 100}
        for p in ("base", "sft", "rl")
        for d in ("greedy", "sampled")
        for g in LEVELS
    ]
    write_table(folder / "lengths.parquet", pa.Table.from_pylist(lengths))
    policy = tmp_path / "rl_policy"
    policy.mkdir()
    curves = [{"update": u, "reward": 0.1 * u, "kl": 0.01} for u in (1, 2, 3)]
    (policy / "curves.jsonl").write_text("\n".join(map(json.dumps, curves)) + "\n\n")
    return {"benchmark_metrics": folder, "rl_policy": policy}


LINEAGE = [
    {
        "asset": "easy_problems",
        "data_version": "e" * 64,
        "code_version": "c" * 64,
        "wall_seconds": 1.5,
        "inputs": {},
    },
    {
        "asset": "benchmark_metrics",
        "data_version": "b" * 64,
        "code_version": "d" * 64,
        "wall_seconds": 2.5,
        "inputs": {"easy_problems": "e" * 64},
    },
]


def page(
    inputs: dict[str, Path],
    out: Path,
    key: str = "ladder/seed=1",
    description: str = "A world.",
    stopped: str = "",
) -> str:
    recipe = {"name": "ladder", "description": description, "evaluation": {"confidence": 0.95}}
    write_report(inputs, LINEAGE, out, Subject(key, recipe, stopped=stopped))
    return (out / "report.html").read_text(encoding="utf-8")


class Links(HTMLParser):
    """Links and scripts that a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "link"):
            self.found.append(tag)
        self.found += [
            v or "" for k, v in attrs if k in ("src", "href", "action") and not (v or "").startswith("#")
        ]
        self.found += [k for k, _ in attrs if k.startswith("on")]


def test_it_loads_nothing_and_runs_nothing(inputs: dict[str, Path], tmp_path: Path) -> None:
    links = Links()
    links.feed(page(inputs, tmp_path / "out"))
    assert all(link.startswith("data:") for link in links.found), links.found


def test_text_from_recipes_and_keys_is_escaped(inputs: dict[str, Path], tmp_path: Path) -> None:
    text = page(inputs, tmp_path / "out", key="x<img src=q>", description="<script>alert(1)</script>")
    assert "<script>alert" not in text
    assert "<img src=q>" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_training_that_a_guard_stopped_is_told_at_the_top(inputs: dict[str, Path], tmp_path: Path) -> None:
    text = page(inputs, tmp_path / "out", stopped="stopped after 3 updates: <kl>")
    (banner,) = re.findall(r'<div class="banner".*?</div>', text.partition("<nav")[0])
    assert "Training of the rl policy stopped after 3 updates: &lt;kl&gt;" in banner
    assert "Training of the rl policy" not in page(inputs, tmp_path / "whole")


def test_synthetic_numbers_share_no_table_with_math500(inputs: dict[str, Path], tmp_path: Path) -> None:
    tables = re.findall(r"<table.*?</table>", page(inputs, tmp_path / "out"), re.DOTALL)
    numbers = [("62.5" in table, "37.5" in table) for table in tables]
    assert any(ladder for ladder, _ in numbers)
    assert any(math for _, math in numbers)
    assert not any(ladder and math for ladder, math in numbers)


def test_numbers_that_differ_from_what_they_are_compared_with_are_marked(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    text = page(inputs, tmp_path / "out")
    rows = re.findall(r'<tr[^>]*><th scope="row">(.*?)</tr>', text, re.DOTALL)
    marked: dict[str, int] = {}  # by the first word of a row's head; the tables of a benchmark come first
    for row in rows:
        marked.setdefault(re.sub(r"<.*?>", "", row).split()[0], row.count('class="clear"'))
    assert "comparisons of this page" in text and "18 comparisons" in text
    assert (marked["Weighted"], marked["Best-of-N"]) == (3, 0)
    assert (marked["RL"], marked["SFT"]) == (3, 0)


def test_lineage_names_the_easy_data(inputs: dict[str, Path], tmp_path: Path) -> None:
    text = page(inputs, tmp_path / "out")
    assert "easy_problems" in text
    assert "e" * 12 in text


def test_the_head_says_when_from_what_and_how(inputs: dict[str, Path], tmp_path: Path) -> None:
    recipe = {"seed": 7, "problems": {"seed": 3}, "strict": False, "evaluation": {"confidence": 0.95}}
    about = Subject("ladder", recipe, made="2026-12-01 15:00 UTC", commit="abc+changes")
    write_report(inputs, LINEAGE, tmp_path, about)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    told = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    assert told == [
        ("made", "2026-12-01 15:00 UTC"),
        ("commit", "abc+changes"),
        ("seed", "7"),
        ("seed of the problems", "3"),
        ("easy data", "e" * 12),
        ("strict", "no"),
    ]
    assert text.index('id="lineage"') < text.index('id="benchmark-1"')


def test_a_page_that_calls_itself_strict_is_corrected(inputs: dict[str, Path], tmp_path: Path) -> None:
    text = page(inputs, tmp_path)
    assert "<dt>strict</dt><dd>yes</dd>" in text and with_leaks(text, []) == text
    marked = with_leaks(text, [], strict=False)
    assert "<dt>strict</dt><dd>no</dd>" in marked
    assert marked.index("Not strict:") < marked.index("<h1>")
    assert with_leaks(marked, [], strict=False) == marked


def test_what_figures_and_tables_save_costs_less_than_pictures_did_before(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """A figure of this page has 24 kB as matplotlib writes it; element and files together have less."""
    text = page(inputs, tmp_path)
    figures = re.findall(r"<figure>.*?</figure>", text, re.DOTALL)
    assert len(figures) > 8
    assert sum(map(len, figures)) / len(figures) < 22_000


def test_curves_that_cannot_be_read_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "curves.jsonl"
    path.write_text('{"update": 1}\n[2]\n')
    with pytest.raises(ValueError, match=r"curves.jsonl line 2"):
        read_curves(path)


def samples_rows(levels: list[str], scored: bool) -> list[dict[str, Any]]:
    wanted = [("majority", ""), ("pass", ""), *([("best-of-n", "score")] if scored else [])]
    return [
        {**row, "policy": "samples", "method": method, "aggregation": aggregation, "n": n}
        for method, aggregation in wanted
        for n in (1, 2, 4)
        for row in metric_rows("ELSEWHERE", 0.75)[: len(LEVELS)]
        if row["levels"] in levels
    ]


def test_samples_made_elsewhere_have_a_page_without_lineage_and_recipe() -> None:
    facts = [("grader", "math/1"), ("hostile", "<img src=q>")]
    text = samples_page("a<b", "Graded by math.", samples_rows(LEVELS, True), [], facts, 0.95)
    links = Links()
    links.feed(text)
    assert all(link.startswith("data:") for link in links.found)
    assert "a&lt;b" in text and "&lt;img src=q&gt;" in text and "math/1" in text
    assert 'id="lineage"' not in text and 'id="recipe"' not in text
    assert "Best-of-N" in text and "Scores are used as they were given" in text


def test_samples_without_scores_and_levels_have_one_curve() -> None:
    text = samples_page("many", "", samples_rows(["all"], False), [], [], 0.95)
    assert text.count("<svg") == 1
    assert "All problems" in text
    assert "Best-of-N" not in text
    assert ">easy<" not in text
