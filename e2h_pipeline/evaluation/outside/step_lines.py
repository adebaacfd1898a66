r"""Step scores for solutions in lines of JSON, as a stream of any length.

A line has a question and steps, or a question and texts:

    {"question": "1+1", "steps": ["1+1=2", "So it is 2."]}
    {"question": "1+1", "responses": ["1+1=2\n\nSo it is \\boxed{2}.", "..."]}

Lines of ProcessBench, PRMBench, MR-MATH and of files for `e2h rerank` are such lines. Each comes back
with `step_scores`, the probability that each step is right (a number per step, or a list of them for
each text), and with `scored_by`, a digest of the evaluator. A text is cut into steps at blank lines.
Its answer is found by the rules of `e2h grade` and written behind it, as the evaluator was taught; so
the last score is that of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from e2h_pipeline.evaluation.outside.batches import batches
from e2h_pipeline.evaluation.outside.grade_lines import json_name, text_field
from e2h_pipeline.evaluation.step_benchmarks.step_solutions import as_labelled, completion_of, per_step
from e2h_pipeline.generation.sources.records import Completion, supplied_line
from e2h_pipeline.problems.records import ProblemError

if TYPE_CHECKING:
    from e2h_pipeline.generation.search.protocol import Scorer
    from e2h_pipeline.problems.domain import Domain

Numbered = tuple[int, dict[str, Any]]  # line number from 1, and the line

STEP_SCORES, SCORED_BY = "step_scores", "scored_by"
BATCH_LINES = 128
BATCH_CHARACTERS = 1 << 19  # of questions and solutions: what is lost by a kill, and kept in memory

# Fields with steps, each with the fields that may hold its question.
_STEPS: Mapping[str, tuple[str, ...]] = {
    "modified_process": ("modified_question",),  # PRMBench
    "model_output_step_format": ("question",),  # MR-MATH
    "steps": ("question", "problem"),
}


@dataclass(frozen=True)
class Asked:
    """A solution as an evaluator reads it.

    Attributes:
        segments: of the completion, for each step; None where each segment is a step.
    """

    question: str
    completion: str
    finished: bool
    segments: Sequence[Sequence[int]] | None = None

    def by_step(self, probabilities: Sequence[float]) -> list[float]:
        """A score per step of scores per segment."""
        return list(probabilities) if self.segments is None else per_step(probabilities, self.segments)


@dataclass(frozen=True)
class StepLine:
    """A line, and the solutions in it; `several`: it has a list of texts, even if of one."""

    number: int
    record: dict[str, Any]
    asked: tuple[Asked, ...]
    several: bool

    @property
    def characters(self) -> int:
        """Of all that is read."""
        return sum(len(one.question) + len(one.completion) for one in self.asked)

    def scored(self, scores: Sequence[Sequence[float]], made_by: str) -> Numbered:
        """The line with scores of its solutions; older ones are replaced."""
        by_step = [one.by_step(found) for one, found in zip(self.asked, scores, strict=True)]
        added = {STEP_SCORES: by_step if self.several else by_step[0], SCORED_BY: made_by}
        return self.number, {**self.record, **added}


def step_line(number: int, record: dict[str, Any], name: str, domain: Domain) -> StepLine:
    """The solutions of a line of the file `name`.

    Raises:
        ProblemError: no question, no solution, or one without text.
    """
    where = f"{name}:{number}"
    given = next((field for field in _STEPS if field in record), None)
    if given is None:
        several = any(field in record for field in ("completions", "responses", "samples"))
        return StepLine(number, record, _of_texts(record, where, domain), several)
    asked = next((field for field in _STEPS[given] if field in record), _STEPS[given][0])
    question = text_field(record, asked, where)
    try:
        completion, segments = completion_of(steps_of(record[given], f"{where}: '{given}'"), domain.text)
    except ValueError as error:
        raise ProblemError(f"{where}: '{given}': {error}; delete the line") from None
    return StepLine(
        number, record, (Asked(question, *as_labelled(completion, domain.text), segments),), False
    )


def steps_of(values: Any, what: str) -> list[str]:
    """Steps as texts; a step may be a list of lines, as in MR-MATH.

    Raises:
        ProblemError: anything else; the message begins with `what`.
    """
    if not isinstance(values, list) or not values:
        raise ProblemError(f"{what} must be a list of steps, not {json_name(values)}")
    steps = ["\n".join(map(str, step)) if isinstance(step, list) else step for step in values]
    for place, step in enumerate(steps):
        if not isinstance(step, str):
            raise ProblemError(f"{what}: step {place} must be text, not {json_name(step)}")
    return steps


def score_lines(
    records: Iterable[Numbered], name: str, scorer: Scorer, domain: Domain, made_by: str
) -> Iterator[list[Numbered]]:
    """Lines with scores in their order, a batch at a time; never more than one batch in memory.

    Where a batch ends depends on the lines before it alone.

    Args:
        records: (line number, record), as from `read_records`.
        name: of the file, for errors.
        made_by: digest of the evaluator, written into each line.
    """
    lines = (step_line(number, record, name, domain) for number, record in records)
    for batch in batches(lines, lambda line: line.characters, BATCH_LINES, BATCH_CHARACTERS):
        asked = [(one.question, one.completion, one.finished) for line in batch for one in line.asked]
        found = iter(scorer.step_probabilities(asked))
        yield [line.scored([next(found).tolist() for _ in line.asked], made_by) for line in batch]


def _of_texts(record: dict[str, Any], where: str, domain: Domain) -> tuple[Asked, ...]:
    try:
        line = supplied_line(record, where)
    except ProblemError as error:
        raise ProblemError(f"{error}; or give 'steps', a list of texts") from None
    if line.question is None:
        raise ProblemError(f"{where}: no field 'question' or 'problem'; an evaluator reads it")
    return tuple(_asked(line.question, completion, domain) for completion in line.completions)


def _asked(question: str, completion: Completion, domain: Domain) -> Asked:
    """A text in the domain's own format. Where nobody says whether it was cut off, one with an answer
    was not."""
    text = domain.in_own_format(completion.text, finished=not completion.cut_off)
    cut_off = completion.cut_off
    if cut_off is None:
        cut_off = domain.answer_of(text, True) is None
    return Asked(question, text, not cut_off)
