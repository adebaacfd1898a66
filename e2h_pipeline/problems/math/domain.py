"""MATH and MATH500 as a domain. Its steps are prose: nothing checks them exactly."""

from __future__ import annotations

from e2h_pipeline.grading.mathematics.extract import any_answer, final_answer
from e2h_pipeline.problems.domain import Domain
from e2h_pipeline.recipe import MathProblems

MATH = Domain(
    name="math",
    benchmark="MATH500",
    options=MathProblems,
    answer_of=final_answer,
    outside_answer_of=any_answer,
    reader="e2h_pipeline.problems.math.problems:MathReader",
    unlevelled_easy=frozenset({"GSM"}),  # GSM8K, all of it easy beside MATH (paper)
)
