"""The stage search_metrics: accuracy against compute of every search, with intervals.

metrics.parquet      accuracy and cost of every answer, by level group
differences.parquet  searches minus votes over independent samples at equal tokens and at equal
                     FLOPs, and minus greedy, paired
optimal.parquet      the compute-optimal answer for each budget
exploited.parquet    gold accuracy against the evaluator's score as n grows
logs/seconds.json    seconds per problem of every pool; they are no part of the data version
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.graded import benchmark_gold
from e2h_pipeline.evaluation.searching.compare import Comparison, Setting, optimal
from e2h_pipeline.evaluation.searching.draw import (
    BENCHMARK,
    COSTS,
    PARTS,
    SECONDS,
    VALIDATION,
    folder_of,
    part_questions,
    together_of,
)
from e2h_pipeline.evaluation.searching.pools import load_pool
from e2h_pipeline.grading.sharded import sharded_grader
from e2h_pipeline.grading.verdicts import Gold
from e2h_pipeline.statistics.bootstrap import Bootstrap

if TYPE_CHECKING:
    from e2h_pipeline.problems.domain import Domain
    from e2h_pipeline.recipe import Evaluation, Rerank, Search


@dataclass(frozen=True)
class Files:
    """Artifacts: searched_samples, gold_answers and easy_problems."""

    samples: Path
    gold: Path
    easy: Path


def search_metrics(
    files: Files,
    searches: Sequence[Search],
    domain: Domain,
    rerank: Rerank,
    evaluation: Evaluation,
    names: tuple[str, str],
    work: Work,
) -> dict[str, Any]:
    """Write the tables.

    Args:
        names: of the policy and of the evaluator.

    Returns:
        The headline: of each search at its largest n the difference to the weighted vote at equal
        tokens on hard levels; what is compute-optimal; and where search exploits the evaluator.
    """
    flops = json.loads((files.samples / COSTS).read_text(encoding="utf-8"))
    problems = {BENCHMARK: benchmark_gold(files.gold), VALIDATION: _validation(files.easy)}
    bootstrap = Bootstrap(evaluation.bootstrap, evaluation.confidence, work.seed)
    found: dict[str, Comparison] = {}
    with sharded_grader(evaluation.grader, work.folder, work.runner, work.reporter) as judge:
        for part in PARTS:
            pools = {
                name: load_pool(
                    name,
                    together,
                    files.samples / part / folder_of(name),
                    problems[part],
                    judge,
                    domain.answer_of,
                    rerank.aggregations,
                )
                for name, together in together_of(searches).items()
            }
            setting = Setting(
                domain.benchmark,
                judge.version,
                *names,
                evaluation.easy_levels,
                bootstrap,
                (flops["drawn"], flops["read"]),
            )
            found[part] = Comparison(pools, setting)
    tables = {
        "metrics": found[BENCHMARK].metrics(),
        "differences": found[BENCHMARK].differences(),
        "optimal": optimal(found[VALIDATION], found[BENCHMARK]),
        "exploited": found[BENCHMARK].exploited(),
    }
    _write(tables, work.out)
    _write_seconds(files.samples, len(problems[BENCHMARK]["problem_id"]), work.out)
    return _headline(tables)


def _validation(easy: Path) -> dict[str, list[Any]]:
    """Easy validation problems, column by column as of `benchmark_gold`."""
    table = part_questions(VALIDATION, easy).sort_by("problem_id")
    return {**table.to_pydict(), "gold": [Gold.of_row(row) for row in table.to_pylist()]}


def _write(tables: Mapping[str, Sequence[Mapping[str, Any]]], out: Path) -> None:
    import pyarrow as pa

    for name, rows in tables.items():
        write_table(out / f"{name}.parquet", pa.Table.from_pylist(list(rows)))


def _write_seconds(samples: Path, problems: int, out: Path) -> None:
    """Seconds per problem of the benchmark."""
    spent = json.loads((samples / SECONDS).read_text(encoding="utf-8"))[BENCHMARK]
    each = {name: {work: value / problems for work, value in parts.items()} for name, parts in spent.items()}
    path = out / SECONDS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(each, indent=1) + "\n", encoding="utf-8")


def _headline(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    hard = [row for row in tables["differences"] if row["levels"] == "hard" and row["at_equal"] == "tokens"]
    votes = [row for row in hard if row["second"].endswith("weighted-vote")]
    largest = {row["first"]: row for row in sorted(votes, key=lambda row: row["n"])}
    numbers = ("difference", "ci_low", "ci_high")
    exploited: dict[str, int] = {}
    for row in tables["exploited"]:
        if row["falls"]:
            exploited.setdefault(f"{row['method']} {row['levels']}", row["n"])
    return {
        "hard_lead_over_weighted_vote_at_equal_tokens": {
            f"{name} n={row['n']}": [round(row[c], 4) for c in numbers] for name, row in largest.items()
        },
        "compute_optimal_on_hard": {
            f"{row['budget']:.0f} tokens": [row["chosen"], round(row["accuracy"], 4)]
            for row in tables["optimal"]
            if row["levels"] == "hard"
        },
        "exploits_the_evaluator_from": exploited,
    }


def read_seconds(folder: Path) -> dict[str, dict[str, float]]:
    """Seconds per problem by pool, of a search_metrics artifact; empty where they were removed."""
    path = folder / SECONDS
    found: dict[str, dict[str, float]] = (
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    )
    return found


def read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """Rows of a table of a search_metrics artifact."""
    return read_table(folder / f"{name}.parquet").to_pylist()
