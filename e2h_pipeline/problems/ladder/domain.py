"""The ladder as a domain."""

from __future__ import annotations

from e2h_pipeline.grading.mathematics.extract import final_answer
from e2h_pipeline.problems.domain import Domain, Example
from e2h_pipeline.problems.ladder.world import TEXT
from e2h_pipeline.recipe import LadderProblems

LADDER = Domain(
    name="ladder",
    benchmark="LADDER500",
    options=LadderProblems,
    answer_of=final_answer,
    reader="e2h_pipeline.problems.ladder.problems:LadderReader",
    step_checker="e2h_pipeline.problems.ladder.checker:step_labels",
    corpus="e2h_pipeline.problems.ladder.pretraining:LadderCorpus",
    text=TEXT,
    example=Example("3+5*2", ("3+5=1", "1*2=2"), "2"),
)
