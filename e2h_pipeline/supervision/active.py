"""Active learning (Lightman et al. 2023, section 4): buy labels where a selector is convinced and wrong.

A selector, trained on labels of one solution of each problem, ranks the other solutions of easy
problems. Bought are, in the paper's shares, the most convincing solutions with a wrong answer (80%)
and the most convincing of the rest (20%). Easy answers are known, so a wrong answer costs no label.
With more rounds the selector is trained again on all labels bought so far; the paper found that
unstable.

`selection: uniform` is the control: as many labels, of solutions drawn at random. Solutions are taken
problem by problem in turn, in both, so that one problem cannot take the whole budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from e2h_pipeline.grading.graders import grader
from e2h_pipeline.grading.verdicts import Verdict
from e2h_pipeline.recipe.sections.reward import INITIAL
from e2h_pipeline.supervision.buying import (
    Buyer,
    bought_validation,
    interleaved,
    key,
    shuffled,
    told_cost,
    without,
)
from e2h_pipeline.supervision.rows import Rows, grade_answers
from e2h_pipeline.supervision.source import GRADER, LabelJob, LabelledRows, LabelSource
from e2h_pipeline.supervision.teacher import Teacher, keep, lesson_of, teach

if TYPE_CHECKING:
    from e2h_pipeline.recipe import ActiveLabels

Key = tuple[str, int]
Scorer = Callable[[Rows], list[list[float]]]
"""Probability that each segment of each row is right."""
Learn = Callable[[str, Rows], Scorer]


class Active(LabelSource):
    """Labels of chosen solutions, up to a budget, and of some validation solutions."""

    methods = (GRADER,)

    def reads(self, options: ActiveLabels) -> tuple[str, ...]:
        """The model that the selector starts from, where there is a selector."""
        return (INITIAL[options.training.init],) if options.selection == "active" else ()

    def draw(self, job: LabelJob) -> LabelledRows:
        """Bought labels, and counts: those of `told_cost`, and figures of each round's selector under `teachers`.

        Raises:
            ValueError: the source in `of` cannot label chosen solutions, or has none; or the budget is too small
                for a selector.
        """
        options: ActiveLabels = job.options
        buyer = Buyer.of(job)
        stream = f"{job.stream('active')}/{job.work.seed}"
        validation = bought_validation(job, buyer)
        for_validation = buyer.labels
        candidates = shuffled(buyer.candidates("train"), stream)
        teachers: list[Teacher] = []
        if options.selection == "uniform":
            bought = buyer.buy(candidates, options.budget, options.unit)
        else:

            def learn(name: str, rows: Rows) -> Scorer:
                teachers.append(teach(lesson_of(job, name), rows, job.work))
                return teachers[-1].probabilities

            bought = buy_actively(buyer, candidates, wrong_answers(job, candidates), options, learn)
        keep(teachers, job.work.out)
        return LabelledRows(
            [*bought, *validation],
            {
                "dropped": {},
                **told_cost(buyer, for_validation),
                "teachers": {t.lesson.name: t.judged(validation) for t in teachers},
            },
        )


def buy_actively(
    buyer: Buyer, candidates: Rows, wrong: Collection[Key], options: ActiveLabels, learn: Learn
) -> Rows:
    """Labels of the selector's first lesson, then those that each round's selector chooses.

    Args:
        candidates: in a random order, one of each problem first.
        wrong: those with a wrong answer.
        learn: trains a selector of a name on rows with labels.

    Raises:
        ValueError: the first lesson takes the whole budget.
    """
    start = buyer.labels
    problems = len({row["problem_id"] for row in candidates})
    first = min(problems, options.selector_problems or problems)
    bought = buyer.buy(candidates[:first], options.budget, options.unit)

    def left() -> int:
        return options.budget - (buyer.labels - start if options.unit == "steps" else len(bought))

    if left() <= 0:
        raise ValueError(
            f"labels.budget={options.budget} is spent on the selector's first lesson, a solution of each of {first} "
            "problems: raise it, or set labels.selector_problems"
        )
    rest = without(candidates, candidates[:first])
    for number in range(1, options.rounds + 1):
        share = left() // (options.rounds - number + 1)
        if share <= 0 or not rest:
            break
        score = learn("selector" if options.rounds == 1 else f"selector-{number}", bought)
        new = buyer.buy(_ranked(score, rest, wrong, options.convincing), share, options.unit)
        bought = [*bought, *new]
        rest = without(rest, new)
    return bought


def wrong_answers(job: LabelJob, rows: Rows) -> set[Key]:
    """Solutions whose answer is not that of their easy problem; those without an answer too."""
    answers = [job.domain.answer_of(row["completion"], row["finished"]) for row in rows]
    with grader(job.grader) as judge:
        verdicts = grade_answers(judge, rows, answers, job.easy)
    return {key(row) for row, verdict in zip(rows, verdicts, strict=True) if verdict is not Verdict.EQUAL}


def _ranked(score: Scorer, rows: Rows, wrong: Collection[Key], convincing: float) -> Rows:
    """Solutions in the order in which they are bought."""
    scored = list(zip(rows, map(math.prod, score(rows)), strict=True))
    parts = [
        [(row, -score) for row, score in scored if (key(row) in wrong) == kind] for kind in (True, False)
    ]
    first, second = (interleaved([row for row, _ in part], [cost for _, cost in part]) for part in parts)
    return mixed(first, second, convincing)


def mixed(first: Sequence[Any], second: Sequence[Any], share: float) -> list[Any]:
    """Both sequences, each in its order, such that `share` of every beginning is of the first one, as long as
    both last."""
    found: list[Any] = []
    i = j = 0
    while i < len(first) or j < len(second):
        wanted = share * (len(found) + 1)
        if j >= len(second) or (i < len(first) and i + 0.5 < wanted + 1e-9):
            found.append(first[i])
            i += 1
        else:
            found.append(second[j])
            j += 1
    return found
