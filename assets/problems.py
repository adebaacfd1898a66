"""The partitions of supervision: data to learn from, questions to ask, answers for audits."""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.tables import TABLE, write_table
from e2h_pipeline.stages.asset import stage

_READER = ("problems.source/reader",)


@stage(group="data", reads=["problem_source"], recipe=["problems"], methods=_READER, kinds={"parquet"})
def easy_problems(job: StageJob) -> dict[str, Any]:
    """Problems of the easy levels with solutions and answers: the only supervision."""
    from e2h_pipeline.problems.records import counts_by_level, easy_table
    from e2h_pipeline.problems.source import load_split

    split = load_split(job.recipe.problems)
    write_table(job.out / TABLE, easy_table(split))
    return {"train": counts_by_level(split.easy_train), "validation": counts_by_level(split.easy_validation)}


@stage(group="data", reads=["problem_source"], recipe=["problems"], methods=_READER, kinds={"parquet"})
def hard_questions(job: StageJob) -> dict[str, Any]:
    """Questions of the hard levels, without answers. Only controls with `problems.hard_answers`
    have them, and these are never strict."""
    from e2h_pipeline.problems.records import counts_by_level, question_table
    from e2h_pipeline.problems.source import load_split

    hard = load_split(job.recipe.problems).hard
    write_table(job.out / TABLE, question_table(hard, with_answers=job.recipe.problems.hard_answers))
    return {"questions": counts_by_level(hard)}


@stage(group="data", reads=["problem_source"], recipe=["problems"], methods=_READER, kinds={"parquet"})
def benchmark_questions(job: StageJob) -> dict[str, Any]:
    """Questions of the benchmark, without answers."""
    from e2h_pipeline.problems.records import counts_by_level, question_table
    from e2h_pipeline.problems.source import load_split

    benchmark = load_split(job.recipe.problems).benchmark
    write_table(job.out / TABLE, question_table(benchmark))
    return {"questions": counts_by_level(benchmark)}


@stage(
    group="data",
    reads=["problem_source"],
    recipe=["problems"],
    methods=_READER,
    kinds={"parquet"},
    audit=True,
)
def gold_answers(job: StageJob) -> dict[str, Any]:
    """Answers of hard and benchmark problems, for evaluation only: nothing that trains or selects
    may depend on this."""
    from e2h_pipeline.problems.records import counts_by_level, gold_table
    from e2h_pipeline.problems.source import load_split

    split = load_split(job.recipe.problems)
    write_table(job.out / TABLE, gold_table(split))
    return {"hard": counts_by_level(split.hard), "benchmark": counts_by_level(split.benchmark)}
