"""A label source: a step of a policy's sample is right if its letter occurs in the word."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from e2h_pipeline.recipe import Labels
from e2h_pipeline.supervision.rows import distinct_samples, until_first_error
from e2h_pipeline.supervision.source import LabelJob, LabelledRows, LabelSource


class GenerousLabels(Labels):
    """Its fields in a recipe: `labels: {source: generous, answer_right: 0.5}`."""

    answer_right: float = Field(1.0, ge=0, le=1, description="Label of every answer.")


class Generous(LabelSource):
    """The source `generous`."""

    Options = GenerousLabels

    def reads(self, options: Any) -> tuple[str, ...]:
        """It labels samples of the policy."""
        return ("easy_samples",)

    def draw(self, job: LabelJob) -> LabelledRows:
        """Every distinct sample, labelled up to the first error."""
        rows = distinct_samples(job.inputs["easy_samples"] / "data", job.easy)
        for row in rows:
            solution = job.domain.text.parse(row["completion"])
            labels = [float(step in row["question"]) for step in solution.steps]
            if len(solution.spans) > len(solution.steps):
                labels.append(job.options.answer_right)
            row["labels"] = until_first_error(labels)
        return LabelledRows([row for row in rows if row["labels"]], {"dropped": {}})
