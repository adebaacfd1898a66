"""Labels of the policy's own solutions by the exact checker of the domain, where it has one."""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.lineage import LABELS_BOUGHT
from e2h_pipeline.registry import STEP_CHECKERS
from e2h_pipeline.supervision.cost import labels_bought
from e2h_pipeline.supervision.rows import Rows, balanced_by_problem, distinct_samples
from e2h_pipeline.supervision.source import STEP_CHECKER, AskedSource, LabelJob, LabelledRows


class ExactChecker(AskedSource):
    """Labels every distinct sample for which the checker returns labels."""

    methods = (STEP_CHECKER,)

    def reads(self, options: Any) -> tuple[str, ...]:
        """The samples that are labelled."""
        return ("easy_samples",)

    def draw(self, job: LabelJob) -> LabelledRows:
        """All samples with their labels; right and wrong ones balanced.

        Raises:
            ValueError: the domain has no checker.
        """
        found = self.label(job, self.candidates(job))
        # To balance, all must be labelled; else a limit chooses before anything is asked.
        cost = {LABELS_BOUGHT: labels_bought(found.rows, job.domain.text)} if job.options.balance else {}
        return LabelledRows(balanced_by_problem(found.rows, job), {**found.counts, **cost})

    def candidates(self, job: LabelJob) -> Rows:
        """The distinct samples.

        Raises:
            ValueError: the domain has no checker.
        """
        _require_checker(job)
        return distinct_samples(job.inputs["easy_samples"] / "data", job.easy)

    def label(self, job: LabelJob, rows: Rows) -> LabelledRows:
        """Samples with their labels.

        Raises:
            ValueError: the domain has no checker.
        """
        _require_checker(job)
        check = STEP_CHECKERS.load(job.domain.name)
        checked = [
            {**row, "labels": [float(label) for label in check(row["question"], row["completion"])]}
            for row in rows
        ]
        return LabelledRows([row for row in checked if row["labels"]], {"dropped": {}})


def _require_checker(job: LabelJob) -> None:
    if job.domain.step_checker is None:
        raise ValueError(
            f"labels.source=checker: problems.source={job.domain.name} has no exact checker of steps; use"
            " labels.source=prm800k, shepherd or monte_carlo"
        )
