"""Labels that are bought: a source is asked about chosen solutions, and what it labels is counted.

No label is computed that was not bought. So the number of labels is a cost that two methods can be
compared at. The unit is one verdict on one step after its earlier steps: solutions that share a
beginning share its labels, which are paid once.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from e2h_pipeline.artifacts.lineage import LABELS_BOUGHT
from e2h_pipeline.registry import LABEL_SOURCES
from e2h_pipeline.supervision.once import step_keys
from e2h_pipeline.supervision.rows import UNLABELLED, Rows, by_problem, in_order
from e2h_pipeline.supervision.source import AskedSource, LabelJob

Unit = Literal["steps", "solutions"]
Row = dict[str, Any]


def key(row: Row) -> tuple[str, int]:
    """What tells a source's solutions apart: the problem, and the solution's number."""
    return row["problem_id"], row["sample"]


def labels_in(rows: Rows) -> int:
    """Number of step labels of some rows; shared ones count in each."""
    return sum(label != UNLABELLED for row in rows for label in row["labels"])


def asked_words() -> list[str]:
    """Sources that can be asked, by their words in the registry."""
    return [word for word in LABEL_SOURCES.words() if hasattr(LABEL_SOURCES.load(word), "candidates")]


@dataclass
class Buyer:
    """Buys labels from the source that another one names in `of`.

    Attributes:
        job: of the source that is bought from.
        solutions: number of solutions that were asked about.
    """

    job: LabelJob
    source: AskedSource
    solutions: int = 0
    _paid: set[bytes] = field(default_factory=set)
    _asked: int = 0
    _candidates: Rows | None = None

    @property
    def labels(self) -> int:
        """Number of labels bought so far."""
        return len(self._paid)

    @classmethod
    def of(cls, job: LabelJob) -> Buyer:
        """The buyer of a source's job.

        Raises:
            ValueError: the source in `of` cannot label chosen solutions.
        """
        options = job.options.of
        source = LABEL_SOURCES.load(options.source)()
        if not hasattr(source, "candidates"):
            raise ValueError(
                f"labels.of: {options.source} cannot label chosen solutions; use {', '.join(asked_words())}"
            )
        return cls(replace(job, options=options, work=job.work.below("of")), source)

    def candidates(self, split: str) -> Rows:
        """Solutions of easy problems of a split that could be labelled.

        Raises:
            ValueError: there are none to train on.
        """
        if self._candidates is None:
            self._candidates = self.source.candidates(self.job)
        found = [row for row in self._candidates if row["split"] == split]
        if split == "train" and not found:
            raise ValueError(
                f"labels.of={self.job.options.source} has no solutions to label: set easy_samples.samples, or give it a "
                "file"
            )
        return found

    def buy(self, rows: Rows, budget: int | None = None, unit: Unit = "steps") -> Rows:
        """Labels of these solutions, in their order, until the budget is spent; all of them without one.

        With steps, a solution that would cost more than is left is labelled as far as the budget
        goes. So exactly the budget is spent where there are labels enough.

        Args:
            budget: of labels, or of solutions.
        """
        if budget is None or unit == "solutions":
            found = self._ask(rows[:budget])
            return [row for row in found if self._pay(row, None)]
        bought: Rows = []
        end = self.labels + budget
        waiting = list(rows)
        while waiting and self.labels < end:
            some = _affordable(waiting, end - self.labels, self.job)
            waiting = waiting[len(some) :]
            bought += [paid for row in self._ask(some) if (paid := self._pay(row, end))]
        return bought

    def _ask(self, rows: Rows) -> Rows:
        if not rows:
            return []
        self._asked += 1
        self.solutions += len(rows)
        job = replace(self.job, work=self.job.work.below(f"bought-{self._asked}"))
        return self.source.label(job, rows).rows

    def _pay(self, row: Row, end: int | None) -> Row | None:
        """The row with the labels that are paid, until as many labels as `end` are bought; None without one."""
        labels, broke = [], False
        for step, label in zip(step_keys(row, self.job.domain.text), row["labels"], strict=True):
            if label != UNLABELLED:
                broke = broke or (end is not None and step not in self._paid and self.labels >= end)
                if not broke:
                    self._paid.add(step)
            labels.append(UNLABELLED if broke else label)
        return {**row, "labels": labels} if any(label != UNLABELLED for label in labels) else None


def _affordable(rows: Rows, budget: int, job: LabelJob) -> Rows:
    """The longest beginning of the rows that cannot cost more than the budget, and at least one row.

    A solution costs at most a label for each segment.
    """
    total, count = 0, 0
    for row in rows:
        total += len(job.domain.text.parse(row["completion"]).spans)
        if total > budget:
            break
        count += 1
    return rows[: max(1, count)]


def bought_validation(job: LabelJob, buyer: Buyer) -> Rows:
    """Labels of solutions of easy validation problems, drawn by seed."""
    some = shuffled(buyer.candidates("validation"), f"{job.stream('validation')}/{job.work.seed}")
    return buyer.buy(some[: job.options.validation_solutions])


def told_cost(buyer: Buyer, for_validation: int) -> dict[str, int]:
    """What labels cost, for summaries: `labels_bought` in all, of these `training_labels_bought` and
    `validation_labels_bought`, and `solutions_asked`."""
    return {
        LABELS_BOUGHT: buyer.labels,
        "training_labels_bought": buyer.labels - for_validation,
        "validation_labels_bought": for_validation,
        "solutions_asked": buyer.solutions,
    }


def shuffled(rows: Rows, stream: str) -> Rows:
    """Rows in an order drawn by `stream`: first one of each problem, then a second one of each, and so on."""
    rng = random.Random(stream)
    return interleaved(rows, [rng.random() for _ in rows])


def interleaved(rows: Rows, costs: Sequence[float]) -> Rows:
    """Rows by their rank within their problem, and among equal ranks by cost, lowest first."""
    seen: Counter[str] = Counter()
    ranked = []
    for cost, name, sample, row in sorted(
        ((cost, *key(row), row) for cost, row in zip(costs, rows, strict=True)), key=lambda place: place[:3]
    ):
        ranked.append((seen[name], cost, name, sample, row))
        seen[name] += 1
    return [row for *_, row in sorted(ranked, key=lambda place: place[:4])]


def at_most(rows: Rows, per_problem: int, stream: str) -> Rows:
    """At most so many solutions of each problem, drawn by `stream`, in order."""
    kept: Rows = []
    for name, own in by_problem(rows).items():
        drawn = random.Random(f"{stream}/{name}").sample(in_order(own), min(per_problem, len(own)))
        kept += in_order(drawn)
    return kept


def without(rows: Rows, taken: Sequence[Row]) -> Rows:
    """The rows that are not among those taken, by problem and number."""
    names = set(map(key, taken))
    return [row for row in rows if key(row) not in names]
