r"""Made pairs of gold and answer, by kind, with what is right known from how they are made.

A grader whose rules fit the cases that were seen says nothing of others. So each kind of answer
(rounded decimals, unions of sets, equations with a left side ...) has a generator: from a seed it draws a
value and writes it in two of many ways (an equal pair), or writes another value, as a wrong answer would
have it (an unequal pair). `answers` has the kinds of bare answers, `responses` those of whole texts.
`benchmarks/grading_agreement.py` measures any grader on them.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

Draw = Callable[[random.Random, bool], "tuple[str, str] | tuple[str, str, str]"]
"""(generator, equal) -> gold, answer and, where it matters, the question."""


class Case(NamedTuple):
    """A pair whose verdict is known.

    Attributes:
        kind: the name of its generator.
        gold: the right answer.
        text: the answer, or the response that holds it.
        equal: whether the text is right.
        question: the problem's words; empty where they do not matter.
    """

    kind: str
    gold: str
    text: str
    equal: bool
    question: str = ""


class Kinds:
    """A table of generators; functions enter it as decorated."""

    def __init__(self) -> None:
        self._draws: dict[str, Draw] = {}

    def __call__(self, draw: Draw) -> Draw:
        self._draws[draw.__name__.replace("_", " ")] = draw
        return draw

    @property
    def draws(self) -> Mapping[str, Draw]:
        """Name of a kind -> generator."""
        return self._draws

    def cases(self, number: int, seed: int) -> list[Case]:
        """So many equal and so many unequal pairs of each kind."""
        return [case for kind in self._draws for case in self.cases_of(kind, number, seed)]

    def cases_of(self, kind: str, number: int, seed: int) -> list[Case]:
        """So many equal and so many unequal pairs of a kind; a kind's pairs do not depend on other kinds."""
        found = []
        for i in range(2 * number):
            rng = random.Random(zlib.crc32(f"{seed} {kind} {i}".encode()))
            equal = i % 2 == 0
            gold, text, *question = self._draws[kind](rng, equal)
            found.append(Case(kind, gold, text, equal, *question))
        return found
