"""TODO: docstring."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version

from e2h_pipeline.grading.mathematics.tokens import MAX_CHARACTERS
from e2h_pipeline.grading.remembered import RememberingGrader
from e2h_pipeline.grading.verdicts import Grade, Verdict
from e2h_pipeline.grading.worker_pool import WorkerPool

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

    def _form(self, answer: str) -> str:
        return normalise(answer)

    def _decide(self, pairs: Sequence[tuple[str, str]]) -> list[Grade]:
        cheap = {pair: verdict for pair in pairs if (verdict := _cheap_verdict(*pair)) is not None}
        costly = [pair for pair in pairs if pair not in cheap]
        asked = dict(zip(costly, self._pool.compare_timed(costly), strict=True))
        return [
            Grade(cheap[pair], "text")
            if pair in cheap
            else Grade(Verdict(asked[pair][0]), "sympy", asked[pair][1])
            for pair in pairs
        ]


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
