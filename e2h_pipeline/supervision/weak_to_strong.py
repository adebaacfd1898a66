"""Labels by a weaker evaluator (Burns et al. 2023, arXiv 2312.09390), with the verifier as the task.

The easy training problems are split in halves. The weak evaluator learns from the ground truth of the
first. It labels solutions of the second half (the paper's form), or of hard questions (the
easy-to-hard form), with its probabilities. The student is the recipe's evaluator: `reward.kind: prm`
learns from these labels as they are, `weak_to_strong` keeps an opinion of its own.

`middle` puts evaluators between the two (bootstrapping): each is taught by the one before, on the same
solutions. `labeller: truth` is the ceiling on the same rows. `simulable` and `flips` are the labels of
appendix E: ground truth with errors that follow a rule, or with as many errors at random.

Solutions of hard questions are drawn here from the SFT policy. Of `hard_questions` only question, level
and id are read.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.models.base import local_source
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.recipe.sections.policy import Base
from e2h_pipeline.recipe.sections.reward import INITIAL
from e2h_pipeline.supervision.buying import Buyer, at_most, bought_validation, labels_in, told_cost
from e2h_pipeline.supervision.non_causal import made_labels
from e2h_pipeline.supervision.rows import UNLABELLED, Rows, distinct_samples
from e2h_pipeline.supervision.source import LabelJob, LabelledRows, LabelSource
from e2h_pipeline.supervision.teacher import Teacher, keep, lesson_of, teach

if TYPE_CHECKING:
    from e2h_pipeline.recipe import WeakToStrongLabels
    from e2h_pipeline.solutions import TextFormat

STREAM = "weak_to_strong"
HARD_SAMPLES = "hard_samples"  # folder of the drawn solutions in the artifact
ALL = 0.5  # the weak evaluator labels every step, sure or not


class WeakToStrong(LabelSource):
    """Weak labels of solutions whose ground truth trains nothing."""

    def files(self, options: WeakToStrongLabels) -> list[Path]:
        """The files of the weak evaluator's own base model."""
        return (
            sorted(file for file in _folder(options.base).iterdir() if file.is_file()) if options.base else []
        )

    def labels_hard(self, options: WeakToStrongLabels) -> bool:
        """Rows of hard questions, with the weak evaluator's labels."""
        return options.form == "hard"

    def reads(self, options: WeakToStrongLabels) -> tuple[str, ...]:
        """The model that the weak evaluator starts from; hard questions and the policy that answers them."""
        taught = options.labeller == "weak" and (options.middle or not options.base)
        found = [INITIAL[options.training.init]] if taught else []
        if options.form == "hard":
            found += ["hard_questions", "sft_policy"]
        return tuple(dict.fromkeys(found))

    def draws(self, options: WeakToStrongLabels) -> bool:
        """Solutions of hard questions are drawn here."""
        return options.form == "hard"

    def draw(self, job: LabelJob) -> LabelledRows:
        """Rows with weak labels and bought validation rows, and counts: those of `told_cost`, `labels_made`,
        `wrong_labels` of labels with errors, and the weak evaluator's figures under `teachers`.

        Raises:
            ValueError: the source in `of` cannot label chosen solutions, or has none; or there are not enough
                problems for two halves.
        """
        options: WeakToStrongLabels = job.options
        buyer = Buyer.of(job)
        stream = f"{job.stream(STREAM)}/{job.work.seed}"
        validation = bought_validation(job, buyer)
        for_validation = buyer.labels
        first, second = halves(buyer.candidates("train"), stream)
        first, second = (at_most(half, options.per_problem, stream) for half in (first, second))
        told: dict[str, Any] = {}
        teachers: list[Teacher] = []
        if options.labeller == "weak":
            truth = buyer.buy(first)
            rows = _hard_solutions(job) if options.form == "hard" else second
            made, teachers = _taught(job, truth, rows)
            told = {"labels_made": labels_in(made)}
        else:
            truth = buyer.buy(second)
            made, wrong = truth, 0
            if options.labeller != "truth":
                rule = options.labeller == "simulable"
                made, wrong = with_errors(truth, options.errors, stream, job.domain.text, by_rule=rule)
            told = {"wrong_labels": wrong}
        keep(teachers, job.work.out)
        return LabelledRows(
            [*made, *validation],
            {
                "dropped": {},
                **told,
                **told_cost(buyer, for_validation),
                "teachers": {t.lesson.name: t.judged(validation) for t in teachers},
            },
        )


def _taught(job: LabelJob, truth: Rows, rows: Rows) -> tuple[Rows, list[Teacher]]:
    """Labels by the last of a chain of evaluators, and the chain."""
    options: WeakToStrongLabels = job.options
    base = _folder(options.base) if options.base else None
    teachers = [teach(lesson_of(job, "weak", init=base), truth, job.work)]
    made = _labelled(teachers[-1], rows, soft=options.soft)
    for number, layers in enumerate(options.middle, start=1):
        lesson = lesson_of(job, f"middle-{number}", layers=layers)
        teachers.append(teach(lesson, made, job.work))
        made = _labelled(teachers[-1], rows, soft=options.soft)
    return made, teachers


def _folder(base: str) -> Path:
    folder = local_source(Base(model=base))
    if folder is None or not folder.is_dir():
        raise ProblemError(f"labels.base: {base} is no local folder of a model")
    return folder


def _labelled(teacher: Teacher, rows: Rows, *, soft: bool) -> Rows:
    steps = teacher.probabilities(rows)
    labelled = [
        {**row, "labels": made_labels(found, ALL, soft=soft)} for row, found in zip(rows, steps, strict=True)
    ]
    return [row for row in labelled if row["labels"]]


def halves(rows: Rows, stream: str) -> tuple[Rows, Rows]:
    """Rows of two halves of the problems, drawn by `stream`; a problem is in one of them.

    Raises:
        ValueError: there are fewer than two problems.
    """
    problems = sorted({row["problem_id"] for row in rows})
    if len(problems) < 2:
        raise ValueError(
            f"labels.source=weak_to_strong splits the easy training problems in halves, and {len(problems)} have "
            "solutions: raise problems.easy_limit or easy_samples.samples"
        )
    first = set(random.Random(f"{stream}/halves").sample(problems, len(problems) // 2))
    return (
        [row for row in rows if row["problem_id"] in first],
        [row for row in rows if row["problem_id"] not in first],
    )


def with_errors(
    rows: Rows, share: float, stream: str, text: TextFormat, *, by_rule: bool
) -> tuple[Rows, int]:
    """Labelled rows with wrong labels, and their number: at most `share` of all labels.

    The rule turns the labels of steps whose last character is one of some, drawn by `stream`: it takes
    no knowledge of the task to learn. Without the rule, as many labels are turned at random.
    """
    ends = {
        (i, j): row["completion"][start:stop].strip()[-1:]
        for i, row in enumerate(rows)
        for j, (start, stop) in enumerate(text.parse(row["completion"]).spans)
        if row["labels"][j] != UNLABELLED
    }
    turned = _by_rule(ends, share, stream)
    if not by_rule:
        turned = set(random.Random(f"{stream}/flips").sample(sorted(ends), len(turned)))
    flipped = [
        {**row, "labels": [1 - label if (i, j) in turned else label for j, label in enumerate(row["labels"])]}
        for i, row in enumerate(rows)
    ]
    return flipped, len(turned)


def _by_rule(ends: Mapping[tuple[int, int], str], share: float, stream: str) -> set[tuple[int, int]]:
    """Places of the steps that end in one of the drawn characters."""
    counts = Counter(ends.values())
    order = sorted(counts)
    random.Random(f"{stream}/rule").shuffle(order)
    chosen: set[str] = set()
    total = 0
    for end in order:
        if total + counts[end] <= share * len(ends):
            chosen.add(end)
            total += counts[end]
    return {place for place, end in ends.items() if end in chosen}


def _hard_solutions(job: LabelJob) -> Rows:
    """Solutions of hard questions by the SFT policy, without labels."""
    from e2h_pipeline.generation.sample_pool import Drawing, sample_pool
    from e2h_pipeline.generation.search.independent import Independent

    options: WeakToStrongLabels = job.options
    columns = ["problem_id", "level", "question"]  # not the answers, which a control's table may have
    questions = read_table(job.inputs["hard_questions"] / TABLE, columns)
    sampling = job.sampling.model_copy(
        update={"samples": options.per_problem, "temperature": options.temperature}
    )
    drawing = Drawing(job.inputs["sft_policy"], job.domain, sampling, job.stream(STREAM), Independent())
    work = job.work.below(HARD_SAMPLES)
    sample_pool(drawing, questions, work)
    rows = {row["problem_id"]: {**row, "split": "train"} for row in questions.to_pylist()}
    return distinct_samples(work.out, rows)
