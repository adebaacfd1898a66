r"""Columns that hold hidden answers, known by their content and not by their names.

Questions of hard and benchmark problems are shown to stages that train; their answers are not. A
column gives answers away if its cells agree with the gold answers of their own rows more often than
with those of other rows. A cell agrees if it is the answer, ends in it, boxes it, or is a list that
has it.

Small answers agree by chance: a level of 2 is the answer 2 of one problem in thirty. So the number
of agreements is compared with its mean over all ways to shuffle the column, which is known exactly.
A column is refused if shuffling would give that many with a probability below one in a billion
(Chernoff's bound for counts; about four distinct answers in their own rows are enough).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

CHANCE = 1e-9
_TRIM = " \t\r\n$.,;:!?\"'"
_BOX = re.compile(r"\\boxed\s*\{(.*)\}", re.DOTALL)
_LAYOUT = re.compile(r"\s+|\\[,;:! ]|\\left|\\right")
_LONGEST = 20_000  # characters of a cell that are looked at, from its end


@dataclass(frozen=True)
class Agreement:
    """How a column agrees with hidden answers.

    Attributes:
        rows: rows with a hidden answer and a cell.
        agree: of these, how many cells agree with their own row's answer.
        expected: the mean of `agree` if the column is shuffled.
    """

    rows: int
    agree: int
    expected: float

    @property
    def chance(self) -> float:
        """A bound on the probability of so many agreements in a shuffled column."""
        if self.agree <= self.expected:
            return 1.0
        k, mean = self.agree, self.expected
        return math.exp(-(k * math.log(k / mean) - k + mean))


def answer_columns(table: pa.Table, gold: Mapping[str, str], chance: float = CHANCE) -> dict[str, Agreement]:
    """The columns that give hidden answers away.

    Args:
        table: with `problem_id`.
        gold: hidden answers by problem id.
        chance: columns whose agreement is less likely by chance are given.
    """
    wanted = [_plain(gold[name]) if name in gold else "" for name in table["problem_id"].to_pylist()]
    found = {}
    for name in table.column_names:
        if name != "problem_id":
            agreement = _agreement(table[name].to_pylist(), wanted)
            if agreement.chance < chance:
                found[name] = agreement
    return found


def _agreement(cells: list[Any], wanted: list[str]) -> Agreement:
    rows = [
        (_answers(cell), answer)
        for cell, answer in zip(cells, wanted, strict=True)
        if answer and cell is not None
    ]
    holding = Counter(text for texts, _ in rows for text in texts)
    agree = sum(answer in texts for texts, answer in rows)
    return Agreement(len(rows), agree, sum(holding[answer] for _, answer in rows) / max(1, len(rows)))


def _answers(cell: Any) -> set[str]:
    """The texts that a cell may give as an answer."""
    if isinstance(cell, Mapping):
        return set().union(*map(_answers, cell.values()))
    if isinstance(cell, list | tuple):
        return set().union(*map(_answers, cell))
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    text = str(cell)[-_LONGEST:].strip(_TRIM)
    ends = (text, *text.rsplit(maxsplit=1)[-1:], text.rpartition("=")[2], *_boxed(text))
    return {plain for end in ends if (plain := _plain(end))}


def _boxed(text: str) -> list[str]:
    """The content of the last box, by its braces."""
    found = _BOX.search(text, max(0, text.rfind("\\boxed")))
    if not found:
        return []
    depth = 0
    for place, sign in enumerate(found[1]):
        depth += (sign == "{") - (sign == "}")
        if depth < 0:
            return [found[1][:place]]
    return [found[1]]


def _plain(text: str) -> str:
    """An answer without what does not change it."""
    return _LAYOUT.sub("", text.strip(_TRIM).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")).strip(
        _TRIM
    )
