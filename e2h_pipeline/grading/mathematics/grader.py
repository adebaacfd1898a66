r"""Our own grader of MATH-style answers: canonical forms, a dictionary, and workers for the rest.

Tiers, in order: `text` (the same text), `size` (too long to read), `unread` (one of them is neither mathematics
that we know nor words: different, because nothing is guessed), `form` (both are read; see `forms`), `sympy` (both
are read, but one holds a sum, integral or limit: math_verify evaluates it, in a worker that is killed at
its limits). Equality is symmetric by construction, and transitive within a problem through `classes`.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version

from e2h_pipeline.grading.mathematics.extract import ANSWER_IS, extract, from_prose, last_boxed, unwrap_box
from e2h_pipeline.grading.mathematics.forms import Form, form
from e2h_pipeline.grading.mathematics.tokens import MAX_CHARACTERS, TooBig, Unreadable
from e2h_pipeline.grading.verdicts import Grade, Pair, Verdict
from e2h_pipeline.grading.worker_pool import WorkerPool

REVISION = 1
"""Raise when a rule changes: the version stands in every result."""

_SYMPY_TASK = "e2h_pipeline.grading.tasks.math_verify"
"""Compares what holds a sum, integral or limit. Code versions take the exact name of a module for an import."""
_REMEMBERED = 300_000
_DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"))
_PROSE = re.compile(
    r"(?<![\\a-zA-Z{])[a-zA-Z]{3,}|(?<![\\a-zA-Z{])[a-zA-Z]{2,} [a-zA-Z]{2,}|[^\W\d_a-zA-Z]{2,}|<answer>"
)
_DOLLARS = re.compile(r"(?<!\\)\$")
_DOUBLED_BOX = re.compile(r"\\\\boxed\s*\{")

Read = Form | None
"""A form; None where the text is not mathematics that we can read."""


class MathGrader:
    """Grades answers by canonical form; see the module."""

    name = "math"
    reads_problem = False

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._forms: dict[str, Read] = {}
        self._asked: dict[tuple[str, str], Grade] = {}
        self.undecided = 0
        self.version = f"math/{REVISION} mpmath/{version('mpmath')} math-verify/{version('math-verify')}"

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
            start = time.perf_counter()
            found = self._compare(gold.answer, answer)
            if found is None:
                left.setdefault(_in_order(gold.answer, answer), []).append(i)
                grades.append(None)
            else:
                grades.append(Grade(*found, ms=(time.perf_counter() - start) * 1000))
        self._ask(list(left))
        for pair, places in left.items():
            for place in places:
                grades[place] = self._asked[pair]
        done = [grade for grade in grades if grade is not None]
        self.undecided += sum(grade.verdict is Verdict.UNDECIDED for grade in done)
        return done

    def classes(self, problems: Sequence[Sequence[str | None]]) -> list[list[int | None]]:
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

    def _compare(self, gold: str, answer: str) -> tuple[Verdict, str] | None:
        """The verdict and tier of a pair, None for a pair that a worker has to decide."""
        if gold == answer or gold.split() == answer.split():
            return Verdict.EQUAL, "text"
        one, other = self.read(gold), self.read(answer)
        if one is not None and other is not None:
            if one.equals(other):
                return Verdict.EQUAL, "form"
            if one.opaque or other.opaque:
                return None
            return Verdict.DIFFERENT if one.certain and other.certain else Verdict.UNDECIDED, "form"
        if max(len(gold), len(answer)) > MAX_CHARACTERS:
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
    if len(answer) > MAX_CHARACTERS:  # no answer, but a whole response may hold one
        found = extract(answer)
        return None if found is None or len(found.answer) > MAX_CHARACTERS else read(found.answer)
    text = _undelimited(answer.replace("\x0c", "\\f").replace("\x08", "\\b"))  # escapes that ate a backslash
    for attempt in (_as_mathematics, _as_sentence):
        try:
            return attempt(text)
        except TooBig:
            return Form((("text", text),), certain=False)
        except Unreadable:
            continue
    return None


def _as_mathematics(text: str) -> Form:
    if "\\boxed" in text or not text or "<answer>" in text or ANSWER_IS.search(text):
        raise Unreadable("a sentence")
    if len(_DOLLARS.findall(text)) > 1:
        raise Unreadable("mathematics between dollar signs")
    return form(text)


def _as_sentence(text: str) -> Form:
    """The answer in a sentence, or in mathematics with several `$`."""
    plain = _DOLLARS.sub(" ", text)
    if plain != text and "\\boxed" not in text:
        try:
            return form(plain.strip())
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
    return form(_DOLLARS.sub(" ", _undelimited(found)).strip())


def _undelimited(text: str) -> str:
    """Without outer box, dollar signs and the like, and the full stop behind."""
    text = text.strip()
    for _ in range(4):
        before = text
        text = unwrap_box(text)
        for opener, closer in _DELIMITERS:
            wrapped = text.startswith(opener) and text.endswith(closer) and not text.endswith("\\$")
            inner = text[len(opener) : -len(closer)] if wrapped else ""
            if inner.strip() and opener not in inner and closer not in inner:
                text = inner.strip()
        text = text.rstrip("\\").rstrip() if not text.endswith("\\ ") else text
        text = text.removesuffix(".").strip() if not text.endswith("..") else text
        if text == before:
            break
    return text


def _in_order(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one <= other else (other, one)
