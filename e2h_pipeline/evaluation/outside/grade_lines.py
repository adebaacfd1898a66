r"""Grading JSON lines: one gold answer and one prediction a line, as a stream of any length.

    {"gold": "1/2", "prediction": "0.5"}
    {"gold": "1/2", "response": "... so it is \\boxed{0.5}.", "finish_reason": "stop"}

A `prediction` is graded as it stands (null: there is none); in a `response` the answer is looked
for, and one that was cut off (`finish_reason` "length") has none. A line without an answer is
different, by the tier `no-answer`. A `question` (or `problem`), where a line has one, says whether a
list has an order (see docs/grading.md). What else a line holds is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from e2h_pipeline.evaluation.outside.batches import batches
from e2h_pipeline.grading.mathematics.extract import any_answer
from e2h_pipeline.grading.verdicts import Gold, Grade, Grader, Verdict
from e2h_pipeline.problems.records import ProblemError

BATCH_LINES = 2000
BATCH_CHARACTERS = 1 << 24  # so that a batch of long responses fits into memory, too

NO_ANSWER = Grade(Verdict.DIFFERENT, "no-answer")

_JSON_NAMES = {
    type(None): "null",
    bool: "true or false",
    float: "a decimal",
    list: "a list",
    dict: "an object",
}


@dataclass(frozen=True, slots=True)
class Item:
    """A line that can be graded; `answer` is None where there is none."""

    number: int
    record: dict[str, Any]
    gold: str
    answer: str | None


@dataclass(frozen=True, slots=True)
class Graded:
    """A line and what each grader says of it, in the graders' order."""

    item: Item
    grades: tuple[Grade, ...]

    @property
    def disputed(self) -> bool:
        """Whether the graders differ."""
        return len({grade.verdict for grade in self.grades}) > 1


def read_items(records: Iterable[tuple[int, dict[str, Any]]], name: str) -> Iterator[Item]:
    """Lines as they come.

    Args:
        records: (line number, record), as from `read_records`.
        name: of the file, for errors.

    Raises:
        ProblemError: a line without gold, or with neither prediction nor response.
    """
    for number, record in records:
        where = f"{name}:{number}"
        yield Item(number, record, text_field(record, "gold", where), _answer(record, where))


def grade_items(items: Iterable[Item], judges: Sequence[Grader]) -> Iterator[list[Graded]]:
    """Graded lines in their order, a batch at a time; never more than one batch in memory."""
    for batch in batches(items, _characters, BATCH_LINES, BATCH_CHARACTERS):
        columns = [_grades(batch, judge) for judge in judges]
        yield [Graded(item, grades) for item, grades in zip(batch, zip(*columns, strict=True), strict=True)]


def graded_record(line: Graded, judge: Grader) -> dict[str, Any]:
    """The line's fields, and what the first grader says of it; fields of these names are replaced."""
    return {**line.item.record, "answer": line.item.answer, **_said(line.grades[0], judge)}


def compared_record(line: Graded, judges: Sequence[Grader]) -> dict[str, Any]:
    """`graded_record` with its line number, and under `modes` what every grader says."""
    modes = {judge.name: _said(grade, judge) for judge, grade in zip(judges, line.grades, strict=True)}
    return {**graded_record(line, judges[0]), "line": line.item.number, "modes": modes}


def _said(grade: Grade, judge: Grader) -> dict[str, Any]:
    return {
        "verdict": grade.verdict.value,
        "tier": grade.tier,
        "ms": round(grade.ms, 3),
        "grader": judge.version,
    }


@dataclass
class Tally:
    """How often one grader said what, by tier."""

    counts: Counter[tuple[str, Verdict]] = field(default_factory=Counter)

    def add(self, grade: Grade) -> None:
        """Count one line."""
        self.counts[grade.tier, grade.verdict] += 1

    @property
    def lines(self) -> int:
        """All lines."""
        return self.counts.total()

    @property
    def accuracy(self) -> float:
        """Share of equal ones: undecided and missing answers are wrong."""
        return self.of(Verdict.EQUAL) / self.lines if self.lines else 0.0

    @property
    def tiers(self) -> list[str]:
        """Tiers that decided anything, the busiest first and `no-answer` last."""
        totals: Counter[str] = Counter()
        for (tier, _), count in self.counts.items():
            totals[tier] += count
        return sorted(totals, key=lambda tier: (tier == NO_ANSWER.tier, -totals[tier], tier))

    def of(self, verdict: Verdict | None = None, tier: str | None = None) -> int:
        """Lines with this verdict and tier; any where None."""
        return sum(
            count
            for (by, said), count in self.counts.items()
            if verdict in (None, said) and tier in (None, by)
        )


def text_field(record: Mapping[str, Any], name: str, where: str) -> str:
    """A field that must be there and be text.

    Raises:
        ProblemError: it is not.
    """
    if name not in record:
        raise ProblemError(f"{where}: no field '{name}'; there are {', '.join(record) or 'none'}")
    return as_text(record[name], f"{where}: '{name}'")


def as_text(value: Any, what: str) -> str:
    """Text; a whole number is taken too, as there is one way to write it.

    Raises:
        ProblemError: anything else; the message begins with `what`.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ProblemError(f"{what} must be text, not {json_name(value)}; write it as a JSON string")


def json_name(value: Any) -> str:
    """What a JSON value is, for errors."""
    return _JSON_NAMES.get(type(value), f"{value!r:.60}")


def _answer(record: Mapping[str, Any], where: str) -> str | None:
    if "prediction" in record:
        value = record["prediction"]
        return None if value is None else as_text(value, f"{where}: 'prediction'")
    if "response" not in record:
        raise ProblemError(
            f"{where}: neither 'prediction' nor 'response'; there are {', '.join(record)};"
            " give the answer, or the text to find it in"
        )
    return answer_in(text_field(record, "response", where), record.get("finish_reason"))


def answer_in(response: str, finish_reason: Any) -> str | None:
    """The answer of a response, None where there is none or the length limit cut it off.

    Models of others mark their answers in their own ways, so all rules of `extract` may be used.
    """
    return any_answer(response, finished=finish_reason != "length")


def _characters(item: Item) -> int:
    return sum(len(value) for value in item.record.values() if isinstance(value, str))


def _gold(item: Item) -> Gold:
    """The right answer and, where the line has it, the problem's words."""
    question = item.record.get("question", item.record.get("problem"))
    return Gold(item.gold, question if isinstance(question, str) else "")


def _grades(batch: Sequence[Item], judge: Grader) -> list[Grade]:
    found = iter(judge.grade_pairs([(_gold(i), i.answer) for i in batch if i.answer is not None]))
    return [NO_ANSWER if item.answer is None else next(found) for item in batch]
