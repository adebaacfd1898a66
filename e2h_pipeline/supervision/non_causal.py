"""A labeller that knows more than the evaluator it labels for (the idea of Baker et al. 2022, VPT).

It is trained on few step labels, reads solutions in both directions (`rewards.both_ways`), and sees
the known answer of the easy problem in front of the solution. Then it labels many easy solutions,
from which the causal evaluator learns. `causal: true` is the control: the same code, data and number
of labels, with the usual mask.

The answer comes from the table of easy problems, by the problem's id. Hard problems are not in it,
so there is no answer of theirs to show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from e2h_pipeline.recipe.sections.reward import INITIAL
from e2h_pipeline.supervision.buying import (
    Buyer,
    at_most,
    bought_validation,
    labels_in,
    shuffled,
    told_cost,
    without,
)
from e2h_pipeline.supervision.rows import RIGHT, UNLABELLED, WRONG, Rows
from e2h_pipeline.supervision.source import LabelJob, LabelledRows, LabelSource
from e2h_pipeline.supervision.teacher import keep, lesson_of, teach

if TYPE_CHECKING:
    from e2h_pipeline.recipe import NonCausalLabels
    from e2h_pipeline.solutions import TextFormat

RIGHT_FROM = 0.5


class NonCausal(LabelSource):
    """Few bought labels, and many of a labeller that was trained on them."""

    def reads(self, options: NonCausalLabels) -> tuple[str, ...]:
        """The model that the labeller starts from."""
        return (INITIAL[options.training.init],)

    def draw(self, job: LabelJob) -> LabelledRows:
        """Bought and made labels, and counts: those of `told_cost`, `labels_made`, and the labeller's figures under
        `teachers`.

        Raises:
            ValueError: the source in `of` cannot label chosen solutions, or has none; the base model cannot
                read in both directions; or the labeller is sure of nothing.
        """
        options: NonCausalLabels = job.options
        buyer = Buyer.of(job)
        validation = bought_validation(job, buyer)
        for_validation = buyer.labels
        stream = f"{job.stream('non_causal')}/{job.work.seed}"
        candidates = buyer.candidates("train")
        bought = buyer.buy(shuffled(candidates, stream), options.budget, options.unit)
        rest = at_most(without(candidates, bought), options.per_problem, stream)

        def shown(rows: Rows) -> Rows:
            return with_answers(rows, job.easy, job.domain.text) if options.known_answer else rows

        lesson = lesson_of(job, "labeller", causal=options.causal)
        labeller = teach(lesson, shown(bought), job.work)
        made = [
            {**row, "labels": made_labels(steps, options.confident, soft=options.soft)}
            for row, steps in zip(rest, labeller.probabilities(shown(rest)), strict=True)
        ]
        made = [row for row in made if any(label != UNLABELLED for label in row["labels"])]
        if rest and not made:
            raise ValueError(
                f"labels.confident is {options.confident}, and the labeller is that sure of no step of {len(rest):,} "
                "solutions: lower it, or raise labels.budget"
            )
        keep([labeller], job.work.out)
        return LabelledRows(
            [*bought, *made, *validation],
            {
                "dropped": {"nothing the labeller is sure of": len(rest) - len(made)},
                **told_cost(buyer, for_validation),
                "labels_made": labels_in(made),
                "teachers": {"labeller": labeller.judged(shown(validation))},
            },
        )


def with_answers(rows: Rows, easy: Mapping[str, Mapping[str, Any]], text: TextFormat) -> Rows:
    """The rows with the known answers of their easy problems behind the questions, written as the domain writes
    answers. A row of no easy problem stays as it is."""
    return [
        {**row, "question": f"{row['question']}{text.separator}{_block(easy[row['problem_id']], text)}"}
        if row["problem_id"] in easy
        else row
        for row in rows
    ]


def _block(problem: Mapping[str, Any], text: TextFormat) -> str:
    return f"{text.answer_marker}{text.separator}{problem['answer']}"


def made_labels(probabilities: Sequence[float], confident: float, *, soft: bool) -> list[float]:
    """Labels of a solution's steps by a labeller's probabilities, up to the first step that it calls wrong.

    Args:
        confident: a step has no label where the larger of p and 1 - p is below this. 0.5 labels all.
        soft: the probability as label, not 0 or 1.
    """
    labels, failed = [], False
    for p in probabilities:
        sure = not failed and max(p, 1 - p) >= confident
        hard = RIGHT if p >= RIGHT_FROM else WRONG
        labels.append((p if soft else hard) if sure else UNLABELLED)
        failed = failed or p < RIGHT_FROM
    return labels
