r"""The graders that other people report with, decision by decision: OpenAI's and the paper's.

`prm800k` is prm800k/grading/grader.py of github.com/openai/prm800k (MIT licence): two normal forms
(`compat_forms.py`), then tuples element by element, where sympy is asked whether the difference
simplifies to 0. `e2h-string` is the code that the paper released (Edward-Sun/easy-to-hard,
math_utils/grader.py): the same with the question to sympy cut out, which leaves string rules alone.
Use them to compare with published numbers, not to grade: they call 1/2 and 2/4 different, and 5 equal
to "5 \text{ or } -5".

Where `prm800k` is `UNDECIDED`, upstream has no limit: it would hang (`9**9**9**9`), run out of memory,
read more than 10,000 characters of LaTeX, ask sympy about more than 2,000 characters, or evaluate
Python beyond numbers, symbols, operators and plain functions (attributes, quoted text; see
`tasks/prm800k.py`). Two more differences: elements that string rules tell apart decide at once, even
behind one on which upstream would hang; and LaTeX nested so deeply that the converter runs out of stack
(over 100 levels) is taken as it stands, as upstream does, but the depth depends on the caller's stack.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import version

from e2h_pipeline.grading.published.compat_forms import (
    hendrycks_form,
    is_integer,
    loose_form,
    without_thousands_commas,
)
from e2h_pipeline.grading.remembered import RememberingGrader
from e2h_pipeline.grading.verdicts import Grade, Pair, Verdict
from e2h_pipeline.grading.worker_pool import WorkerPool

PRM800K_COMMIT = "00811d6"
E2H_COMMIT = "49c104a"
MAX_SYMPY_CHARACTERS = 2000

Open = list[tuple[str, str]]
"""Elements that string rules leave open: the answers are equal if sympy finds all of these equal."""

_SYMPY_TASK = "e2h_pipeline.grading.tasks.prm800k"
"""Code versions take the exact name of a module for an import."""

_KEPT_CHARACTERS = 500  # forms of longer answers are not kept
_BRACKETS = "()[]"
_FRACTION = re.compile(r"^-?[0-9]+.?/0*[1-9][0-9]*.?$")
_PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,99}")
_BAD_POWER = re.compile(r"\^\{|\^\(|\^[0-9]+\^|\^[0-9][0-9]+")


class E2hStringGrader(RememberingGrader):
    """The paper's released grader. Nothing is undecided but answers with too much LaTeX."""

    name = "e2h-string"

    def __init__(self) -> None:
        super().__init__()
        self.version = f"e2h-string easy-to-hard@{E2H_COMMIT} pylatexenc/{version('pylatexenc')}"

    @classmethod
    @contextmanager
    def open(cls, workers: int | None, cpu_seconds: float) -> Iterator[E2hStringGrader]:
        """See `GraderEntry`; it needs no workers."""
        yield cls()

    def _decide(self, pairs: Sequence[Pair]) -> list[Grade]:
        return [
            _string_grade(Verdict.DIFFERENT if isinstance(found, list) else found, ms)
            for found, ms in map(_timed_by_strings, pairs)
        ]


class Prm800kGrader(RememberingGrader):
    """OpenAI's grader; its sympy step in killable workers."""

    name = "prm800k"

    def __init__(self, pool: WorkerPool) -> None:
        super().__init__()
        self._pool = pool
        libraries = " ".join(f"{name}/{version(name)}" for name in ("pylatexenc", "sympy"))
        self.version = f"prm800k@{PRM800K_COMMIT} {libraries} cpu={pool.cpu_seconds:g}s"

    @classmethod
    @contextmanager
    def open(cls, workers: int | None, cpu_seconds: float) -> Iterator[Prm800kGrader]:
        """See `GraderEntry`."""
        with WorkerPool(workers, cpu_seconds) as pool:
            yield cls(pool)

    def _decide(self, pairs: Sequence[Pair]) -> list[Grade]:
        decisions = [_timed_by_strings(pair) for pair in pairs]
        opened = dict.fromkeys(e for found, _ in decisions if isinstance(found, list) for e in found)
        grades = {element: grade for element in opened if (grade := _without_sympy(*element)) is not None}
        costly = [element for element in opened if element not in grades]
        for element, (word, ms) in zip(costly, self._pool.compare_timed(costly, _SYMPY_TASK), strict=True):
            grades[element] = Grade(Verdict(word), "sympy", ms)
        return [
            _all_equal([grades[element] for element in found], ms)
            if isinstance(found, list)
            else _string_grade(found, ms)
            for found, ms in decisions
        ]


def by_strings(gold: str, answer: str) -> Verdict | Open:
    """`grade_answer` up to the question to sympy."""
    if _hendrycks(gold) == _hendrycks(answer):
        return Verdict.EQUAL
    gold_form, form = _loose(gold), _loose(answer)
    if gold_form is None or form is None:
        return Verdict.UNDECIDED
    if gold_form == form:
        return Verdict.EQUAL
    gold_elements, elements = _elements(gold_form), _elements(form)
    if not form or len(gold_elements) != len(elements):
        return Verdict.DIFFERENT
    if len(elements) > 1 and (gold_form[0] != form[0] or gold_form[-1] != form[-1]):
        return Verdict.DIFFERENT
    opened = []
    for pair in zip(gold_elements, elements, strict=True):
        if all(map(_FRACTION.search, pair)):
            if pair[0] != pair[1]:  # upstream wants fractions reduced
                return Verdict.DIFFERENT
        elif is_integer(pair[0]) != is_integer(pair[1]):
            return Verdict.DIFFERENT
        else:
            opened.append(pair)
    return opened or Verdict.EQUAL


def _elements(form: str) -> list[str]:
    """`split_tuple`: what the commas between one pair of outer brackets separate."""
    text = without_thousands_commas(form)
    if not text:
        return []
    inner = text[1:-1]
    bracketed = len(text) > 2 and text[0] in _BRACKETS and text[-1] in _BRACKETS
    if bracketed and not any(bracket in inner for bracket in _BRACKETS):
        return [element.strip() for element in inner.split(",")]
    return [text]


def _without_sympy(gold: str, answer: str) -> Grade | None:
    """The grade of two elements where upstream need not ask sympy; None where sympy has to decide."""
    if _PLAIN_INTEGER.fullmatch(gold) and _PLAIN_INTEGER.fullmatch(answer):
        return _string_grade(Verdict.EQUAL if gold == answer else Verdict.DIFFERENT)
    text = f"({gold})-({answer})"
    if _letters(text) > 2 or _BAD_POWER.search(text):
        return _string_grade(Verdict.DIFFERENT)
    return _string_grade(Verdict.UNDECIDED) if len(text) > MAX_SYMPY_CHARACTERS else None


def _letters(text: str) -> int:
    """`count_unknown_letters_in_expr`: different letters, those of sqrt and frac aside."""
    return len({letter for letter in text.replace("sqrt", "").replace("frac", "") if letter.isalpha()})


def _all_equal(elements: Sequence[Grade], ms: float) -> Grade:
    """The grade of the first element that is not equal, else of the last, with the time of all."""
    decisive = next((grade for grade in elements if grade.verdict is not Verdict.EQUAL), elements[-1])
    return replace(decisive, ms=ms + sum(grade.ms for grade in elements))


def _string_grade(verdict: Verdict, ms: float = 0.0) -> Grade:
    return Grade(verdict, "size" if verdict is Verdict.UNDECIDED else "string", ms)


def _timed_by_strings(pair: Pair) -> tuple[Verdict | Open, float]:
    gold, answer = pair
    start = time.perf_counter()
    found = by_strings(gold.answer, answer)
    return found, 1000 * (time.perf_counter() - start)


_kept_hendrycks_form = lru_cache(maxsize=1 << 16)(hendrycks_form)
_kept_loose_form = lru_cache(maxsize=1 << 16)(loose_form)


def _hendrycks(answer: str) -> str:
    return hendrycks_form(answer) if len(answer) > _KEPT_CHARACTERS else _kept_hendrycks_form(answer)


def _loose(answer: str) -> str | None:
    return loose_form(answer) if len(answer) > _KEPT_CHARACTERS else _kept_loose_form(answer)
