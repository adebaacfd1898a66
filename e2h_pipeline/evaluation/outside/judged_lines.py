r"""Solutions with labels of their steps and scores of an evaluator, in lines of JSON.

- ProcessBench: `label` is the first wrong step from 0, -1 for none; reported by `subset`.
- PRMBench: `error_steps`, from 1; reported by `classification`.
- MR-MATH: `model_output_solution_first_error_step`, from 1, or `rating`.
- Labels of one's own: `question`, `steps`, and `labels` (1 right, 0 wrong, null unknown), or `label`
  as in ProcessBench, or PRM800K's `ratings` (1, 0, -1; neutral counts as right); reported by `group`.

Scores are `step_scores` of the line, a probability per step, as `e2h score` writes them. MR-MATH's
files come with the scores of published evaluators (`prm_scores`); each can be judged by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from e2h_pipeline.evaluation.outside.grade_lines import json_name
from e2h_pipeline.evaluation.outside.rerank import level_field, score_numbers
from e2h_pipeline.evaluation.outside.step_lines import SCORED_BY, STEP_SCORES, Numbered, step_line, steps_of
from e2h_pipeline.evaluation.step_benchmarks.human_steps import HumanSolution, is_complete
from e2h_pipeline.evaluation.step_benchmarks.prm_bench import CLASSES
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.problems.same_problem import same_key
from e2h_pipeline.reranking.aggregate import step_probabilities
from e2h_pipeline.supervision.rows import RIGHT, UNLABELLED, WRONG

if TYPE_CHECKING:
    from e2h_pipeline.problems.domain import Domain

Record = dict[str, Any]
PUBLISHED = "prm_scores"


@dataclass(frozen=True)
class Judged:
    """Labelled solutions and the scores of their steps.

    Attributes:
        form: name of the kind of file.
        solutions: each with its group as `source`.
        scores: of each step of each solution.
        lengths: characters of each step of each solution.
        questions: of each solution, its question by `same_key`, and what it was before PRMBench
            changed it.
        counts: lines, and what was left out.
    """

    form: str
    solutions: list[HumanSolution]
    scores: list[list[float]]
    lengths: list[list[int]]
    questions: list[frozenset[str]]
    counts: dict[str, int] = field(default_factory=dict)

    def without(self, questions: Collection[str], counted_as: str) -> Judged:
        """Without solutions of these questions, whose number is counted."""
        places = [i for i, own in enumerate(self.questions) if own.isdisjoint(questions)]
        return Judged(
            self.form,
            [self.solutions[i] for i in places],
            [self.scores[i] for i in places],
            [self.lengths[i] for i in places],
            [self.questions[i] for i in places],
            {**self.counts, counted_as: len(self.solutions) - len(places)},
        )


@dataclass(frozen=True)
class Form:
    """A kind of file.

    Attributes:
        fields: that its lines have.
        steps: the field with the steps.
        group: the field that they are reported by; `unnamed` where a line has none.
        labels: of each step of a line.
    """

    fields: tuple[str, ...]
    steps: str
    group: str
    unnamed: str
    labels: Callable[[Record, int, str], Sequence[float]]


def read_judged(
    records: Iterable[Numbered],
    name: str,
    domain: Domain,
    published: str = "",
    logits: bool = False,
) -> Judged:
    """All lines of a file.

    Args:
        records: (line number, record).
        name: of the file, for errors.
        domain: how solutions are written.
        published: take the scores of this evaluator from `prm_scores`.
        logits: scores are logits, not probabilities.

    Raises:
        ProblemError: a line that is of no known kind, or does not fit.
    """
    form, found, seen = "", list[HumanSolution](), set[str]()
    scores, lengths, questions = list[list[float]](), list[list[int]](), list[frozenset[str]]()
    counts = {"lines": 0, "repeated": 0, "errors beyond the last step": 0}
    for number, record in records:
        where = f"{name}:{number}"
        form = form or form_of(record, where)
        counts["lines"] += 1
        solution = _solution(number, record, name, FORMS[form], domain)
        if "classification" in record and solution.identity in seen:  # as PRMBench's authors do
            counts["repeated"] += 1
            continue
        seen.add(solution.identity)
        beyond = {n for n in record.get("error_steps", ()) if not 1 <= n <= len(solution.labels)}
        counts["errors beyond the last step"] += len(beyond)
        found.append(solution)
        before = {str(record["original_question"])} if record.get("original_question") else set()
        questions.append(frozenset(map(same_key, {solution.question, *before})))
        lengths.append([len(step) for step in steps_of(record[FORMS[form].steps], where)])
        scores.append(_scores(record, len(solution.labels), where, published, logits))
    if not found:
        raise ProblemError(f"{name}: no line; there must be one for each solution")
    return Judged(form, found, scores, lengths, questions, counts)


def with_scores(
    records: Iterable[Numbered], name: str, scores: Iterable[Numbered], file: str, made_by: str = ""
) -> Iterator[Numbered]:
    """Lines with the `step_scores` of the line of the same id in another file.

    Args:
        made_by: the evaluator whose scores they must be; any where empty.

    Raises:
        ProblemError: a line without scores, two lines of one id, or scores of another evaluator.
    """
    found: dict[str, Any] = {}
    for number, record in scores:
        key = line_name(record, number)
        if key in found:
            raise ProblemError(
                f"{file}:{number}: '{key:.80}' was on a line before; give each solution one line"
            )
        if made_by and record.get(SCORED_BY) != made_by:
            raise ProblemError(f"{file}:{number}: not scores of this evaluator; score the file again")
        found[key] = record.get(STEP_SCORES)
    for number, record in records:
        key = line_name(record, number)
        if key not in found:
            raise ProblemError(f"{name}:{number}: no line '{key:.80}' in {file}; score every solution")
        yield number, {**record, STEP_SCORES: found[key]}


def form_of(record: Mapping[str, Any], where: str) -> str:
    """The kind of file that a line is of.

    Raises:
        ProblemError: it is of none.
    """
    for name, form in FORMS.items():
        if all(field in record for field in form.fields):
            return name
    raise ProblemError(
        f"{where}: no labels of steps; there are {', '.join(record) or 'none'}; give 'steps' and 'labels', one per step"
    )


def line_name(record: Mapping[str, Any], number: int) -> str:
    """The name of a line: its id, or else its number."""
    name = next((record[key] for key in ("id", "idx") if record.get(key) is not None), number)
    return f"{record['classification']}/{name}" if "classification" in record else str(name)


def _solution(number: int, record: Record, name: str, form: Form, domain: Domain) -> HumanSolution:
    where = f"{name}:{number}"
    steps = steps_of(record.get(form.steps), f"{where}: '{form.steps}'")
    labels = tuple(form.labels(record, len(steps), where))
    asked = step_line(number, {form.steps: steps, **_questions(record)}, name, domain).asked[0]
    cluster = record.get("idx")  # PRMBench corrupts one problem in several ways
    return HumanSolution(
        source=str(record.get(form.group, form.unnamed)),
        identity=line_name(record, number),
        problem=same_key(asked.question) if cluster is None else str(cluster),
        level=level_field({"level": record.get("math_level", record.get("level"))}, where),
        question=asked.question,
        completion=asked.completion,
        finished=asked.finished,
        segments=tuple(map(tuple, asked.segments or ())),
        labels=labels,
        complete=is_complete(labels),
    )


def _questions(record: Record) -> Record:
    return {name: record[name] for name in ("question", "problem", "modified_question") if name in record}


def _scores(record: Record, steps: int, where: str, published: str, logits: bool) -> list[float]:
    if published:
        return _published(record, where, published)
    if record.get(STEP_SCORES) is None:
        raise ProblemError(
            f"{where}: no '{STEP_SCORES}'; name an evaluator, or score the file with e2h score first"
        )
    scores = score_numbers(record[STEP_SCORES], f"{where}: '{STEP_SCORES}'", logits)
    if len(scores) != steps:
        raise ProblemError(
            f"{where}: {len(scores)} numbers in '{STEP_SCORES}' for {steps} steps; give each step one"
        )
    return [float(p) for p in step_probabilities(np.array(scores))] if logits else scores


def _published(record: Record, where: str, name: str) -> list[float]:
    """One probability per step of scores per line of a step: the lowest, as in ReasonEval. Of three
    numbers, the chances to be wrong, neutral and right, it is 1 - wrong; where redundant steps are
    looked for (`rating`), it is 1 - neutral."""
    stored = record.get(PUBLISHED) or {}
    if name not in stored:
        raise ProblemError(f"{where}: no scores of '{name}'; there are {', '.join(stored) or 'none'}")
    against = 1 if "rating" in record else 0
    values = iter([1 - v[against] if isinstance(v, list) else float(v) for v in stored[name]])
    sizes = [len(step) if isinstance(step, list) else 1 for step in record[_MR_STEPS]]
    try:
        found = [min(next(values) for _ in range(size)) for size in sizes]
    except (RuntimeError, StopIteration, ValueError):
        found = []
    if not found or next(values, None) is not None:
        raise ProblemError(f"{where}: {len(stored[name])} scores of '{name}' for {sum(sizes)} lines of steps")
    return found


def _until_first_error(first: Any, steps: int, where: str, name: str) -> list[float]:
    """Labels where the first wrong step is known, -1 for none: nobody judged the steps behind it."""
    if isinstance(first, bool) or not isinstance(first, int) or not -1 <= first < steps:
        raise ProblemError(
            f"{where}: '{name}' is {first!r:.60}, but there are {steps} steps, counted from 0, and -1 for none"
        )
    if first < 0:
        return [RIGHT] * steps
    return [RIGHT if i < first else WRONG if i == first else UNLABELLED for i in range(steps)]


def _of_label(record: Record, steps: int, where: str) -> list[float]:
    return _until_first_error(record["label"], steps, where, "label")


def _of_error_steps(record: Record, steps: int, where: str) -> list[float]:
    """All steps are judged. Errors are numbered from 1; a few lie beyond the last step, and count for
    nothing, as in the authors' code."""
    if record["classification"] not in CLASSES:
        raise ProblemError(
            f"{where}: 'classification' is {record['classification']!r:.60}; there are {CLASSES}"
        )
    wrong = set(_list(record, "error_steps", where))
    return [WRONG if i + 1 in wrong else RIGHT for i in range(steps)]


def _of_first_error(record: Record, steps: int, where: str) -> list[float]:
    error = record[_FIRST_ERROR]
    first = -1 if error == "N/A" else error - 1 if isinstance(error, int) else error
    return _until_first_error(first, steps, where, _FIRST_ERROR)


def _of_rating(record: Record, steps: int, where: str) -> list[float]:
    return _by_step(record, "rating", {1: RIGHT, 0: WRONG}, steps, where)


def _of_ratings(record: Record, steps: int, where: str) -> list[float]:
    found = _by_step(record, "ratings", {1: RIGHT, 0: RIGHT, -1: WRONG, None: UNLABELLED}, steps, where)
    first = found.index(WRONG) if WRONG in found else steps
    return [label if i <= first else UNLABELLED for i, label in enumerate(found)]


def _of_labels(record: Record, steps: int, where: str) -> list[float]:
    return _by_step(record, "labels", {1: RIGHT, 0: WRONG, None: UNLABELLED}, steps, where)


def _by_step(
    record: Record, name: str, meaning: Mapping[int | None, float], steps: int, where: str
) -> list[float]:
    values = _list(record, name, where)
    if len(values) != steps:
        raise ProblemError(
            f"{where}: {len(values)} entries in '{name}' for {steps} steps; give each step one"
        )
    for place, value in enumerate(values):
        if isinstance(value, list | dict) or value not in meaning:
            allowed = ", ".join("null" if word is None else str(word) for word in meaning)
            raise ProblemError(f"{where}: '{name}' of step {place} is {value!r:.60}; allowed: {allowed}")
    return [meaning[value] for value in values]


def _list(record: Record, name: str, where: str) -> list[Any]:
    if not isinstance(record[name], list):
        raise ProblemError(f"{where}: '{name}' must be a list, not {json_name(record[name])}")
    return list(record[name])


_MR_STEPS = "model_output_step_format"
_FIRST_ERROR = "model_output_solution_first_error_step"
FORMS: Mapping[str, Form] = {
    "prm_bench": Form(
        ("modified_process", "error_steps", "classification"),
        "modified_process",
        "classification",
        "prm_bench",
        _of_error_steps,
    ),
    "mr_math_invalid": Form(
        (_MR_STEPS, _FIRST_ERROR), _MR_STEPS, "group", "mr_math_invalid", _of_first_error
    ),
    "mr_math_redundant": Form((_MR_STEPS, "rating"), _MR_STEPS, "group", "mr_math_redundant", _of_rating),
    "process_bench": Form(("steps", "label", "subset"), "steps", "subset", "process_bench", _of_label),
    "labels": Form(("steps", "labels"), "steps", "group", "steps", _of_labels),
    "label": Form(("steps", "label"), "steps", "group", "steps", _of_label),
    "ratings": Form(("steps", "ratings"), "steps", "group", "steps", _of_ratings),
}
"""By name; a file is of the first whose fields its first line has."""
