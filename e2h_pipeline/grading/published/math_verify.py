r"""`math-verify`: Hugging Face's library on answers between dollar signs, in killable workers.

Two cheap tiers come first: the same text after `normalise`, and two whole numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version

from e2h_pipeline.grading.mathematics.tokens import MAX_CHARACTERS
from e2h_pipeline.grading.remembered import RememberingGrader
from e2h_pipeline.grading.verdicts import Grade, Pair, Verdict
from e2h_pipeline.grading.worker_pool import WorkerPool

_TASK = "e2h_pipeline.grading.tasks.math_verify"
"""Code versions take the exact name of a module for an import."""
_SPACES = re.compile(r"\s+")
_IDLE_SPACE = re.compile(r"(?<=[^\w,\\$:]) (?=[^$])|(?<=[^,\\$:]) (?=[^\w$])")
_SIZED_BRACKET = re.compile(r"\\(?:left|right) ?(?=[()\[\]]|\\[{}])")
_INTEGER = re.compile(r"[+-]?[0-9]{1,100}")


class MathVerifyGrader(RememberingGrader):
    """The math_verify library behind a pool of killable workers."""

    name = "math-verify"

    def __init__(self, pool: WorkerPool) -> None:
        super().__init__()
        self._pool = pool
        parts = " ".join(
            f"{name}/{version(name)}" for name in ("math-verify", "latex2sympy2-extended", "sympy")
        )
        self.version = f"{parts} cpu={pool.cpu_seconds:g}s"

    @classmethod
    @contextmanager
    def open(cls, workers: int | None, cpu_seconds: float) -> Iterator[MathVerifyGrader]:
        """See `GraderEntry`."""
        with WorkerPool(workers, cpu_seconds) as pool:
            yield cls(pool)

    def _form(self, answer: str) -> str:
        return normalise(answer)

    def _decide(self, pairs: Sequence[Pair]) -> list[Grade]:
        cheap = [_cheap_verdict(gold.answer, answer) for gold, answer in pairs]
        costly = [
            (gold.answer, answer) for (gold, answer), found in zip(pairs, cheap, strict=True) if found is None
        ]
        replies = iter(self._pool.compare_timed(costly, _TASK))
        return [_by_library(*next(replies)) if found is None else Grade(found, "text") for found in cheap]


def _by_library(word: str, ms: float) -> Grade:
    return Grade(Verdict(word), "sympy", ms)


def normalise(answer: str) -> str:
    r"""The answer without what never carries meaning: outer `$`, spaces that separate nothing, a final
    full stop, the size of fractions and brackets.

    A space between two word characters stays (`7 3/4`), as does one behind a comma (`1, 234` is a pair,
    `1,234` a number) or a backslash. In prose (a `$` inside, or a colon) spaces and full stop guide the
    parser, so they stay too. Texts over the size limit are only stripped.
    """
    text = answer.strip()
    if len(text) > MAX_CHARACTERS:
        return text
    text = _bare(text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    if "\\left." not in text and "\\right." not in text:
        text = _SIZED_BRACKET.sub("", text)
    return _IDLE_SPACE.sub("", _SPACES.sub(" ", text)).strip()


def _bare(text: str) -> str:
    """Without final full stop and one pair of outer `$`; prose and `\\right.` as they are."""
    short = text if text.endswith("\\right.") else text.removesuffix(".").rstrip()
    if len(short) > 2 and short[0] == short[-1] == "$" and short.count("$") == 2:
        return _bare(short[1:-1].strip())
    return text if "$" in text else short


def _cheap_verdict(gold: str, answer: str) -> Verdict | None:
    """The verdict where no algebra is needed, else None."""
    if gold == answer:
        return Verdict.EQUAL
    if not gold or not answer:
        return Verdict.DIFFERENT
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(answer):
        return Verdict.EQUAL if int(gold) == int(answer) else Verdict.DIFFERENT
    if max(len(gold), len(answer)) > MAX_CHARACTERS:
        return Verdict.UNDECIDED
    return None
