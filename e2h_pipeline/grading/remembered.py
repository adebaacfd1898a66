"""What graders that compare pair by pair have in common: a memory of pairs, a count, classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

from e2h_pipeline.grading.classes import pairwise_classes
from e2h_pipeline.grading.verdicts import Gold, Grade, Pair, Verdict

MAX_REMEMBERED = 1 << 18  # pairs
MAX_REMEMBERED_CHARACTERS = 4000  # of a pair


class RememberingGrader(ABC):
    """A grader that gives each new pair to `_decide` and remembers what it said.

    The memory holds the latest `MAX_REMEMBERED` pairs; very long ones are decided anew each time.
    """

    reads_problem = False

    def __init__(self) -> None:
        self._memory: dict[Pair, Grade] = {}
        self.undecided = 0

    @abstractmethod
    def _decide(self, pairs: Sequence[Pair]) -> list[Grade]:
        """A grade per pair. The pairs differ from each other, and hold no more than the grader reads."""

    def _form(self, answer: str) -> str:
        """A text that may stand for the answer in every pair."""
        return answer

    def grade_pairs(self, pairs: Sequence[Pair]) -> list[Grade]:
        """A grade per pair, in order. Pairs seen before, here or in earlier calls, cost nothing."""
        forms = [self._reduced(pair) for pair in pairs]
        new = [pair for pair in dict.fromkeys(forms) if pair not in self._memory]
        known = {pair: self._memory[pair] for pair in forms if pair in self._memory}
        decided = dict(zip(new, self._decide(new), strict=True))
        self.undecided += sum(grade.verdict is Verdict.UNDECIDED for grade in decided.values())
        timeless = {pair: replace(grade, ms=0.0) for pair, grade in decided.items()}
        self._remember(timeless)
        known |= timeless
        return [decided.pop(pair, known[pair]) for pair in forms]  # a time is stated once

    def classes(
        self, problems: Sequence[Sequence[str | None]], questions: Sequence[str] = ()
    ) -> list[list[int | None]]:
        """Connected components of what `grade_pairs` calls equal; each answer is a gold in its turn."""
        forms = [[a if a is None else self._form(a) for a in answers] for answers in problems]
        return pairwise_classes(forms, self.grade_pairs)

    def _reduced(self, pair: Pair) -> Pair:
        """The pair with all that cannot change its grade left out."""
        gold, answer = pair
        right = self._form(gold.answer)
        return (gold._replace(answer=right) if self.reads_problem else Gold(right)), self._form(answer)

    def _remember(self, grades: Mapping[Pair, Grade]) -> None:
        for pair, grade in grades.items():
            if _characters(pair) <= MAX_REMEMBERED_CHARACTERS:
                self._memory[pair] = grade
        while len(self._memory) > MAX_REMEMBERED:
            del self._memory[next(iter(self._memory))]


def _characters(pair: Pair) -> int:
    gold, answer = pair
    payload = sum(len(name) + len(text) for name, text in gold.payload)
    return len(gold.answer) + len(gold.question) + payload + len(answer)
