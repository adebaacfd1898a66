"""The partitions of supervision: data to learn from, questions to ask, answers for audits.

These stages alone may read `problem_source`, which holds every answer.
"""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import SPLIT_FIELDS
from e2h_pipeline.stages.asset import stage

_SPLIT = ["problems.source", *(f"problems.{field}" for field in SPLIT_FIELDS)]


@stage(group="data", reads=["problem_source"], recipe=_SPLIT, kinds={"parquet"}, declassifies=True)
def easy_problems(job: StageJob) -> dict[str, Any]:
    """Problems of the easy levels with solutions and answers: the only supervision."""
    return _part("easy_problems", job)


@stage(group="data", reads=["problem_source"], recipe=_SPLIT, kinds={"parquet"}, declassifies=True)
def hard_questions(job: StageJob) -> dict[str, Any]:
    """Questions of the hard levels, without answers. Only controls with `problems.hard_answers`
    have them, and these are never strict."""
    return _part("hard_questions", job)


@stage(group="data", reads=["problem_source"], recipe=_SPLIT, kinds={"parquet"}, declassifies=True)
def benchmark_questions(job: StageJob) -> dict[str, Any]:
    """Questions of the benchmark, without answers."""
    return _part("benchmark_questions", job)


@stage(group="data", reads=["problem_source"], recipe=_SPLIT, kinds={"parquet"}, audit=True)
def gold_answers(job: StageJob) -> dict[str, Any]:
    """Answers of hard and benchmark problems, for evaluation only: nothing that trains or selects
    may depend on this."""
    return _part("gold_answers", job)


def _part(name: str, job: StageJob) -> dict[str, Any]:
    from e2h_pipeline.problems.declassify import write_part

    return write_part(name, job.path("problem_source"), job.recipe.problems, job.out)
