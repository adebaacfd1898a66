"""From models to the tables and the page: searched_samples and search_metrics on a tiny ladder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from e2h_pipeline.artifacts.hashing import parquet_hash
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.searching.draw import PARTS, Job, draw_searches, folder_of
from e2h_pipeline.evaluation.searching.metrics import Files, search_metrics
from e2h_pipeline.generation.search.beam import Beam, Dvts
from e2h_pipeline.models.work import flops_per_token
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.records import ProblemSplit, gold_table
from e2h_pipeline.recipe import (
    BeamSearch,
    DvtsSearch,
    Evaluation,
    Rerank,
    Sampling,
    Scoring,
    SearchComparison,
)
from e2h_pipeline.report.search_view import search_section
from e2h_pipeline.rewards.evaluators import write_kind

SEARCHES = [BeamSearch(beams=2, expansions=2), DvtsSearch(expansions=2)]
METHODS = [Beam(), Dvts()]


def _job(policy: Path, evaluator: Path, tables: Path, work: Work, samples: int = 4) -> Job:
    return Job(
        policy,
        evaluator,
        {"benchmark": tables / "benchmark_questions", "validation": tables / "easy_problems"},
        LADDER,
        list(zip(SEARCHES, METHODS, strict=True)),
        SearchComparison(samples=samples, independent=4),
        Sampling(samples=1, temperature=1.0, top_k=0, max_new_tokens=12, shard_samples=2),
        Scoring(),
        work,
    )


@pytest.fixture(scope="module")
def drawn(
    ladder_policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    draw_searches(
        _job(ladder_policy, ladder_evaluator, ladder_tables, Work(folder / "out", folder / "work", 0))
    )
    return folder


def test_every_search_is_drawn_for_both_parts_and_scored(drawn: Path, ladder_policy: Path) -> None:
    names = {"greedy": 1, "independent": 4, **{search.label: 4 for search in SEARCHES}}
    for part in PARTS:
        for name, samples in names.items():
            folder = drawn / "out" / part / folder_of(name)
            rows, scores = read_table(folder / "samples"), read_table(folder / "scores")
            assert rows.num_rows == scores.num_rows == samples * len(set(rows["problem_id"].to_pylist()))
            assert ("read_tokens" in rows.column_names) == (name in [s.label for s in SEARCHES])
    assert json.loads((drawn / "out/costs.json").read_text())["drawn"] == flops_per_token(ladder_policy)
    seconds = json.loads((drawn / "out/logs/seconds.json").read_text())["benchmark"]
    assert set(seconds) == set(names) and all(spent["all"] > 0 for spent in seconds.values())


def test_more_samples_extend_those_that_are_there(
    drawn: Path, ladder_policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    shutil.copytree(drawn / "work", tmp_path / "work")
    job = _job(
        ladder_policy, ladder_evaluator, ladder_tables, Work(tmp_path / "out", tmp_path / "work", 0), 6
    )
    made = draw_searches(job)
    assert made["benchmark"][SEARCHES[0].label]["reused"] == 4 * 20
    for part in (drawn / "out/benchmark").glob("*/samples/part-*.parquet"):
        assert parquet_hash(part) == parquet_hash(tmp_path / part.relative_to(drawn))


def test_an_evaluator_whose_work_is_unknown_is_refused(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    write_kind(tmp_path, "outside", {})
    with pytest.raises(
        ValueError, match=r"not known for reward.kind=outside: take searches out of the recipe"
    ):
        draw_searches(_job(ladder_policy, tmp_path, ladder_tables, Work(tmp_path / "out", tmp_path, 0)))


def test_tables_and_the_section_of_the_page(
    drawn: Path, ladder_tables: Path, ladder_split: ProblemSplit, tmp_path: Path
) -> None:
    write_table(tmp_path / "gold/data.parquet", gold_table(ladder_split))
    summary = search_metrics(
        Files(drawn / "out", tmp_path / "gold", ladder_tables / "easy_problems"),
        SEARCHES,
        LADDER,
        Rerank(),
        Evaluation(easy_levels=(1, 2, 3), bootstrap=100, grader="exact"),
        ("sft", "easy_prm"),
        Work(tmp_path / "out", tmp_path / "work", 0),
    )
    names = ("metrics", "differences", "optimal", "exploited")
    tables = {name: read_table(tmp_path / f"out/{name}.parquet").to_pylist() for name in names}
    assert {
        row["n"] for row in tables["metrics"] if row["method"] == "beam expansions=2 beams=2 majority"
    } == {2, 4}
    assert all(row["tokens"] >= row["drawn_tokens"] > 0 < row["flops"] for row in tables["metrics"])
    assert len(summary["hard_lead_over_weighted_vote_at_equal_tokens"]) == 6  # two searches, three rules
    assert summary["compute_optimal_on_hard"]
    seconds = json.loads((tmp_path / "out/logs/seconds.json").read_text())
    section = search_section(tables, seconds)
    assert section.columns == ["easy", "hard", "all"] and len(section.curves) == 3
    assert [row.label for row in section.seconds] == list(seconds)
    assert len(section.differences) == 6 and section.optimal


def test_flops_are_two_for_each_weight_that_is_multiplied(
    ladder_policy: Path, ladder_evaluator: Path
) -> None:
    from e2h_pipeline.models.load import load_policy

    model, _ = load_policy(ladder_policy)
    table = model.get_input_embeddings().weight.numel()
    head = model.get_output_embeddings().weight.numel()
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    body = model.num_parameters() - table - (0 if tied else head)
    assert flops_per_token(ladder_policy) == 2 * (body + head)
    assert flops_per_token(ladder_evaluator) == 2 * body
