r"""When two questions are the same problem: the one notion that every door and every check uses.

Two questions are the **same** if their words are equal. Words leave out what does not change a
problem: case, punctuation, white space, math delimiters (`$`, `\[`), LaTeX spacing and font
commands, sizes of brackets, grouping braces, kinds of `\frac`, commas in thousands, and whether a
small number is spelled out.

They are **reworded** if their formulas are equal (all words that are not prose, in order: numbers,
letters, signs, commands) and they share at least half of their pairs of neighbouring words (Dice
coefficient). One other word in a question of three words or more is always reworded.

Questions of one **template** (most words in common, other numbers) are other problems with other
answers. They are listed for people (`e2h_pipeline/problems/duplicates.py`) and may train.

The threshold comes from MATH: docs/same_problem.md has the figures.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

REWORDED = 0.5
"""Least share of common word pairs of reworded questions."""

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen twenty"
)
_TENS = "thirty forty fifty sixty seventy eighty ninety"
_NUMBERS = {
    **{word: str(number) for number, word in enumerate(_SMALL.split())},
    **{word: str(10 * number) for number, word in enumerate(_TENS.split(), start=3)},
    "hundred": "100",
    "thousand": "1000",
}
_SYNONYMS = {"\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\leq": "\\le", "\\geq": "\\ge", "\\neq": "\\ne"}
_THOUSANDS = re.compile(r"(?<=\d)(?:,\\!|\{,\}|,)(?=\d{3}(?!\d))")
_LAYOUT = re.compile(
    r"\\[,;:!> ()\[\]\\]|\$|\\q?quad(?![a-z])"
    r"|\\(?:left|right|displaystyle|textstyle|limits|[bB]igg?[lrm]?)(?![a-zA-Z])"
    r"|\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mathit|mbox|emph)(?![a-zA-Z])"
    r"|\\(?:begin|end)\{(?:align|equation|gather|multline)\*?\}"
)
_SHORT_FRACTION = re.compile(r"(\\[dt]?frac)\s*(\d)\s*(\d)")
_HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
_FACTORIAL = r"(?<=[\d)])!|(?<=(?<![^\W\d_])[^\W\d_])!"  # behind a number, a bracket or a single letter
_WORD = re.compile(rf"\\?[^\W\d_]+|\d+(?:\.\d+)?|(?<!\w)\.\d+|{_FACTORIAL}|[^\w\s!]")
_SIGNS = frozenset("()[]|-/*!%^+<=>")  # of what Unicode calls punctuation, the signs of mathematics
_BETWEEN_DIGITS = re.compile(r"(?<=\d) (?=\d)| ")

Kind = Literal["same", "reworded"]


@dataclass(frozen=True)
class Match:
    """A known question that a question matches.

    Attributes:
        name: of the known question.
        similarity: share of common word pairs; 1 for the same question.
    """

    name: str
    kind: Kind
    similarity: float


def words(question: str) -> tuple[str, ...]:
    """The words of a question that define the problem, in lower case: prose, numbers, letters,
    commands and signs."""
    text = unicodedata.normalize("NFKC", question).replace("\N{MINUS SIGN}", "-")
    text = _SHORT_FRACTION.sub(r"\1 \2 \3", _THOUSANDS.sub("", text))
    text = _HYPHEN.sub(" ", _LAYOUT.sub(" ", text).casefold())
    found = (_SYNONYMS.get(word, _NUMBERS.get(word, word)) for word in _WORD.findall(text))
    return tuple(word for word in found if _counts(word))


def _counts(word: str) -> bool:
    """Whether a word is more than punctuation."""
    sign = len(word) == 1 and not word.isalnum()
    return not sign or word in _SIGNS or unicodedata.category(word).startswith("S")


def same_key(question: str) -> str:
    """A text that the same questions share, and others do not: the words without spaces, except
    between two numbers."""
    return _joined(words(question))


def _joined(parts: Iterable[str]) -> str:
    return _BETWEEN_DIGITS.sub(lambda gap: " " if gap[0] and _digits(gap) else "", " ".join(parts))


def _digits(gap: re.Match[str]) -> bool:
    text, place = gap.string, gap.start()
    return text[place - 1 : place].isdigit() and text[place + 1 : place + 2].isdigit()


def formula(parts: Sequence[str]) -> str:
    """The words that are not prose, in order: two questions with other formulas are other
    problems."""
    return _joined(word for word in parts if not _prose(word))


def _prose(word: str) -> bool:
    return word.isalpha() and (len(word) > 1 or word == "a")


def similarity(one: Sequence[str], other: Sequence[str]) -> float:
    """Share of common pairs of neighbouring words (Dice), ends included: 1 for equal texts, 0 for
    texts with no pair in common."""
    pairs, others = _pairs(one), _pairs(other)
    return 2 * len(pairs & others) / (len(pairs) + len(others))


def _pairs(parts: Sequence[str]) -> frozenset[tuple[str, str]]:
    return frozenset(zip(("", *parts), (*parts, ""), strict=True))


def same_problem(one: str, other: str) -> bool:
    """Whether two questions are the same or reworded."""
    return one == other or KnownQuestions([("", other)]).find(one) is not None


class KnownQuestions:
    """Questions to look others up in, by content.

    Fast for many of both: a question is compared only with those that have its formula, and each
    text once.

    Args:
        questions: (name, text); of two with the same words the first one counts.
    """

    def __init__(self, questions: Iterable[tuple[str, str]]) -> None:
        self._names: dict[str, str] = {}
        self._by_formula: defaultdict[str, list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
        for name, text in questions:
            parts = words(text)
            if self._names.setdefault(_joined(parts), name) == name:
                self._by_formula[formula(parts)].append((name, parts))
        self._found: dict[str, Match | None] = {}

    def __len__(self) -> int:
        return len(self._names)

    def find(self, question: str) -> Match | None:
        """The most similar known question that is the same or reworded; None if there is none."""
        if question not in self._found:
            self._found[question] = self._look(words(question))
        return self._found[question]

    def _look(self, parts: tuple[str, ...]) -> Match | None:
        name = self._names.get(_joined(parts))
        if name is not None:
            return Match(name, "same", 1.0)
        best: Match | None = None
        for other, theirs in self._by_formula.get(formula(parts), ()):
            share = similarity(parts, theirs)
            if share >= REWORDED and (best is None or share > best.similarity):
                best = Match(other, "reworded", share)
        return best
