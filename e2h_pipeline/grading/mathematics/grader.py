r"""Our own grader of MATH-style answers: canonical forms, a dictionary, and workers for the rest.

Tiers, in order: `text` (the same text), `size` (too long to read), `unread` (one of them is neither mathematics
that we know nor words: different, because nothing is guessed), `form` (both are read; see `forms`), `sympy` (both
are read, but one holds a sum, integral or limit: math_verify evaluates it, in a worker that is killed at
its limits), `rounded` (the answer is the gold answer with decimals rounded; see `rounding`), `order` (they
are lists in different orders, and the problem asks for all of something; see `wording`). Apart from
`rounded` equality is symmetric by construction, and transitive within a problem through `classes`.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TypeVar

from e2h_pipeline.grading.mathematics.decoration import undecorated
from e2h_pipeline.grading.mathematics.extract import ANSWER_IS, extract, from_prose, last_boxed
from e2h_pipeline.grading.mathematics.forms import Form, conclusion_of, form
from e2h_pipeline.grading.mathematics.rounding import Written, has_long_decimal, is_rounded, written
from e2h_pipeline.grading.mathematics.tokens import MAX_CHARACTERS, TooBig, Unreadable
from e2h_pipeline.grading.mathematics.wording import is_order_free
from e2h_pipeline.grading.verdicts import Gold, Grade, Pair, Verdict
from e2h_pipeline.grading.worker_pool import WorkerPool

REVISION = 2
"""Raise when a rule changes: the version stands in every result."""

_SYMPY_TASK = "e2h_pipeline.grading.tasks.math_verify"
"""Compares what holds a sum, integral or limit. Code versions take the exact name of a module for an import."""
_REMEMBERED = 300_000
_PROSE = re.compile(
    r"(?<![\\a-zA-Z{])[a-zA-Z]{3,}|(?<![\\a-zA-Z{])[a-zA-Z]{2,} [a-zA-Z]{2,}|[^\W\d_a-zA-Z]{2,}|<answer>"
)
_DOLLARS = re.compile(r"(?<!\\)\$")
_DOUBLED_BOX = re.compile(r"\\\\boxed\s*\{")

_T = TypeVar("_T")
Read = Form | None
"""A form; None where the text is not mathematics that we can read."""


class MathGrader:
    """Grades answers by canonical form; see the module."""

    name = "math"
    rounds = True
    reads_problem = True

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._forms: dict[str, Read] = {}
        self._asked: dict[tuple[str, str], Grade] = {}
        self.undecided = 0
        self.version = (
            f"{self.name}/{REVISION} mpmath/{version('mpmath')} math-verify/{version('math-verify')}"
        )

    @classmethod
    @contextmanager
    def open(cls, workers: int | None, cpu_seconds: float) -> Iterator[MathGrader]:
        """See `GraderEntry`."""
        with WorkerPool(workers, cpu_seconds) as pool:
            yield cls(pool)

    def grade_pairs(self, pairs: Sequence[Pair]) -> list[Grade]:
        """A grade per pair, in order. What was read before costs nothing."""
        grades: list[Grade | None] = []
        left: dict[tuple[str, str], list[int]] = {}
        for i, (gold, answer) in enumerate(pairs):
            start = time.process_time()
            found = self._compare(gold, answer)
            if found is None:
                left.setdefault(_in_order(gold.answer, answer), []).append(i)
                grades.append(None)
            else:
                grades.append(Grade(*found, ms=(time.process_time() - start) * 1000))
        self._ask(list(left))
        for pair, places in left.items():
            for place in places:
                grades[place] = self._asked[pair]
        done = [grade for grade in grades if grade is not None]
        self.undecided += sum(grade.verdict is Verdict.UNDECIDED for grade in done)
        return done

    def classes(
        self, problems: Sequence[Sequence[str | None]], questions: Sequence[str] = ()
    ) -> list[list[int | None]]:
        """Vote groups: answers join the group of the most frequent answer that they equal.

        An answer without a unit, name or order may equal the answers of several groups; it joins the one with most
        votes. So groups are disjoint, and do not depend on the order of the answers.
        """
        return [self._classes(answers) for answers in problems]

    def read(self, answer: str) -> Read:
        """The form of an answer, remembered; None where it is unreadable or too long."""
        try:
            return self._forms[answer]
        except KeyError:
            pass
        if len(self._forms) >= _REMEMBERED:
            self._forms.clear()
        self._forms[answer] = found = read(answer)
        return found

    def _compare(self, gold: Gold, answer: str) -> tuple[Verdict, str] | None:
        """The verdict and tier of a pair, None for a pair that a worker has to decide."""
        right = gold.answer
        if right == answer or right.split() == answer.split():
            return Verdict.EQUAL, "text"
        one, other = self.read(right), self.read(answer)
        if one is not None and other is not None:
            if one.equals(other):
                if not one.ordered_like(other) and is_order_free(gold.question) is False:
                    return Verdict.DIFFERENT, "order"
                return Verdict.EQUAL, "form"
            if one.equals(other, True) and is_order_free(gold.question):
                return Verdict.EQUAL, "order"
            if one.opaque or other.opaque:
                return None
            if not (one.certain and other.certain):
                return Verdict.UNDECIDED, "form"
            rounded = self.rounds and has_long_decimal(answer) and _is_rounded(right, answer)
            return (Verdict.EQUAL, "rounded") if rounded else (Verdict.DIFFERENT, "form")
        if max(len(right), len(answer)) > MAX_CHARACTERS:
            return Verdict.UNDECIDED, "size"
        return Verdict.DIFFERENT, "unread"

    def _ask(self, pairs: list[tuple[str, str]]) -> None:
        new = [pair for pair in pairs if pair not in self._asked]
        if len(self._asked) >= _REMEMBERED:
            self._asked.clear()
            new = pairs
        for pair, (word, ms) in zip(new, self._pool.compare_timed(new, _SYMPY_TASK), strict=True):
            self._asked[pair] = Grade(Verdict(word), "sympy", ms)

    def _classes(self, answers: Sequence[str | None]) -> list[int | None]:
        votes = Counter(answer.strip() for answer in answers if answer is not None)
        groups: list[list[str]] = []
        by_key: dict[object, list[int]] = {}
        group_of: dict[str, int] = {}
        for text in sorted(votes, key=lambda text: (-votes[text], text)):
            group = self._group(text, groups, by_key)
            if group == len(groups):
                groups.append([])
            groups[group].append(text)
            group_of[text] = group
            for key in self._keys(text):
                places = by_key.setdefault(key, [])
                if group not in places:
                    places.append(group)
        numbers: dict[int, int] = {}
        return [
            None if answer is None else numbers.setdefault(group_of[answer.strip()], len(numbers))
            for answer in answers
        ]

    def _group(self, text: str, groups: list[list[str]], by_key: dict[object, list[int]]) -> int:
        """The group an answer joins: the first all of whose members it equals, or a new one."""
        own = self.read(text)
        if own is None:
            return len(groups)
        candidates = sorted({place for key in self._keys(text) for place in by_key.get(key, ())})
        for place in candidates:
            forms = [found for member in groups[place] if (found := self.read(member)) is not None]
            if all(own.equals(found) for found in forms):
                return place
        return len(groups)

    def _keys(self, text: str) -> tuple[object, ...]:
        found = self.read(text)
        if found is None:
            return ()
        return (*found.keys, found.measure) if found.measure is not None else found.keys


def read(answer: str) -> Read:
    """The form of an answer; None where it is not mathematics that we can read, or too long."""
    try:
        return _read_by(form, answer)
    except TooBig:
        return Form((("text", undecorated(answer)),), certain=False)


def _is_rounded(gold: str, answer: str) -> bool:
    """Whether an answer is the gold answer with decimals rounded."""
    try:
        right, given = _read_by(_written, gold), _read_by(_written, answer)
        return bool(right and given and is_rounded(right.tree, given.tree, given.decimals))
    except (TooBig, RecursionError):
        return False


def _written(text: str) -> Written:
    return written(conclusion_of(text))


def _read_by(reader: Callable[[str], _T], answer: str) -> _T | None:
    """What a reader makes of an answer, as mathematics or else as the mathematics in a sentence."""
    if len(answer) > MAX_CHARACTERS:  # no answer, but a whole response may hold one
        found = extract(answer)
        return None if found is None or len(found.answer) > MAX_CHARACTERS else _read_by(reader, found.answer)
    text = undecorated(answer.replace("\x0c", "\\f").replace("\x08", "\\b"))  # escapes that ate a backslash
    for attempt in (_as_mathematics, _as_sentence):
        try:
            return attempt(reader, text)
        except TooBig:
            raise
        except Unreadable:
            continue
    return None


def _as_mathematics(reader: Callable[[str], _T], text: str) -> _T:
    if "\\boxed" in text or not text or "<answer>" in text or ANSWER_IS.search(text):
        raise Unreadable("a sentence")
    if len(_DOLLARS.findall(text)) > 1:
        raise Unreadable("mathematics between dollar signs")
    return reader(text)


def _as_sentence(reader: Callable[[str], _T], text: str) -> _T:
    """The answer in a sentence, or in mathematics with several `$`."""
    plain = _DOLLARS.sub(" ", text)
    if plain != text and "\\boxed" not in text:
        try:
            return reader(plain.strip())
        except TooBig:
            raise
        except Unreadable:
            pass
    text = _DOUBLED_BOX.sub(r"\\boxed{", text)
    if _PROSE.search(text) is None and last_boxed(text) is None:
        raise Unreadable("mathematics that we do not know")
    found = from_prose(text)
    if found is None or found == text:
        raise Unreadable("no answer in the sentence")
    return reader(_DOLLARS.sub(" ", undecorated(found)).strip())


def _in_order(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one <= other else (other, one)
