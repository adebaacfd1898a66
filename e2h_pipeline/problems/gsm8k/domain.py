"""GSM8K as a domain: a ladder in words, whose levels are numbers of solution steps."""

from __future__ import annotations

from e2h_pipeline.grading.mathematics.extract import any_answer, final_answer
from e2h_pipeline.problems.domain import Domain
from e2h_pipeline.recipe import Gsm8kProblems

GSM8K = Domain(
    name="gsm8k",
    benchmark="GSM8K",
    options=Gsm8kProblems,
    answer_of=final_answer,
    outside_answer_of=any_answer,
    reader="e2h_pipeline.problems.gsm8k.problems:Gsm8kReader",
)
