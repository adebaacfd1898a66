"""Completions that other people's models wrote: a line of JSON, and the question it belongs to.

A line names its question by `problem_id` (or `unique_id`, `id`), or by the text of `question` (or
`problem`), or by both. It has one completion (`completion` or `response`, with `finish_reason` where
it is known), or several: `responses` or `completions`, a list of texts (with `finish_reasons`), or
`samples`, a list of texts or of objects with the fields of one completion. Other fields are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.problems.same_problem import same_key, same_problem

_IDS, _QUESTIONS = ("problem_id", "unique_id", "id"), ("question", "problem")
_ONE, _SEVERAL = ("completion", "response"), ("completions", "responses", "samples")


@dataclass(frozen=True)
class Completion:
    """A completion as it was supplied; `cut_off` is None where nobody says."""

    text: str
    cut_off: bool | None


@dataclass(frozen=True)
class SuppliedLine:
    """The completions of a line. `where` is its file and line, for people."""

    where: str
    problem_id: str | None
    question: str | None
    completions: tuple[Completion, ...]

    def __str__(self) -> str:
        return f"{self.where} ({self.problem_id or (self.question or '')[:60]})"


@dataclass(frozen=True)
class Matched:
    """Completions by the benchmark question they belong to.

    Attributes:
        completions: problem id -> completions, in the order of the lines.
        unmatched: lines of no benchmark question.
        other_text: lines whose question is another problem than the one their id names.
    """

    completions: Mapping[str, list[Completion]]
    unmatched: list[SuppliedLine] = field(default_factory=list)
    other_text: list[SuppliedLine] = field(default_factory=list)


def supplied_line(record: Mapping[str, Any], where: str) -> SuppliedLine:
    """A line of a file.

    Raises:
        ProblemError: it names no question, or has no completion.
    """
    problem_id, question = _first(record, _IDS), _first(record, _QUESTIONS)
    if isinstance(problem_id, int) and not isinstance(problem_id, bool):
        problem_id = str(problem_id)
    for name, value in (("an id", problem_id), ("a question", question)):
        if value is not None and not isinstance(value, str):
            raise ProblemError(f"{where}: {name} must be text, not {value!r:.60}")
    if problem_id is None and question is None:
        raise ProblemError(
            f"{where}: neither {' or '.join(_IDS[:2])} nor {' or '.join(_QUESTIONS)} says which question it is of"
        )
    return SuppliedLine(where, problem_id, question, tuple(_completions(record, where)))


def match(lines: Iterable[SuppliedLine], rows: Sequence[Mapping[str, Any]]) -> Matched:
    """Sort completions to questions: by id, or where the id is not known by the words of the question.

    An id alone is not trusted: a line whose question is another problem is left out.

    Args:
        rows: `problem_id` and `question` of each benchmark question. Several of the same words all get
            the completions of a line that has no id.
    """
    own = {row["problem_id"]: row["question"] for row in rows}
    by_text: defaultdict[str, list[str]] = defaultdict(list)
    for name, question in own.items():
        by_text[same_key(question)].append(name)
    found = Matched({name: [] for name in own})
    for line in lines:
        if line.problem_id is not None and line.problem_id in own:
            names = [line.problem_id]
            if line.question is not None and not same_problem(line.question, own[line.problem_id]):
                found.other_text.append(line)
                continue
        else:
            names = [] if line.question is None else by_text.get(same_key(line.question), [])
        if not names:
            found.unmatched.append(line)
        for name in names:
            found.completions[name].extend(line.completions)
    return found


def _completions(record: Mapping[str, Any], where: str) -> list[Completion]:
    several = [name for name in _SEVERAL if name in record]
    if not several:
        return [_completion(record, where)]
    name = several[0]
    values = record[name]
    if not isinstance(values, list) or not values:
        raise ProblemError(f"{where}: '{name}' must be a list with an entry per sample, not {values!r:.60}")
    reasons = record.get("finish_reasons")
    if reasons is not None and (not isinstance(reasons, list) or len(reasons) != len(values)):
        raise ProblemError(f"{where}: 'finish_reasons' must be a list of {len(values)}, one per sample")
    return [
        _completion(value, f"{where}: '{name}' of sample {place}")
        if isinstance(value, Mapping)
        else Completion(_text(value, f"{where}: '{name}' of sample {place}"), _cut_off(reason))
        for place, (value, reason) in enumerate(zip(values, reasons or [None] * len(values), strict=True))
    ]


def _completion(record: Mapping[str, Any], where: str) -> Completion:
    value = _first(record, _ONE)
    if value is None:
        raise ProblemError(
            f"{where}: no completion; there are {', '.join(map(str, record)) or 'none'}, and one of"
            f" {', '.join((*_ONE, *_SEVERAL))} is needed"
        )
    return Completion(_text(value, where), _cut_off(record.get("finish_reason")))


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ProblemError(f"{where}: a completion must be text, not {value!r:.60}")
    return value


def _cut_off(reason: Any) -> bool | None:
    return None if reason is None else reason == "length"


def _first(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first of several fields that is there and not null."""
    return next((record[name] for name in names if record.get(name) is not None), None)
