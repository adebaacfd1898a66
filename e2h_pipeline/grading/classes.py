"""Answer classes: which samples of a problem gave the same answer, for voting.

What graders call equal is no equivalence relation (math-verify is not even symmetric). So classes
that are built sample by sample would depend on the order of the samples. Here pairs are compared in
sorted order, and classes are the connected components: a vote depends on the set of samples alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from e2h_pipeline.grading.verdicts import Gold, Grade, Grader, Pair, Verdict

MAX_HEADS = 32
"""Every compared pair has one of the 32 most frequent answers in it. So 256 samples of a problem cost
at most 32 x 256 comparisons, and answers that are not compared with each other have few votes."""

Forms = Sequence[Sequence[str | None]]


def answer_classes(answers: Sequence[str | None], grader: Grader) -> list[int | None]:
    """The class of each answer of one problem, numbered by first appearance; None stays None."""
    return grader.classes([answers])[0]


def pairwise_classes(
    problems: Forms, grade_pairs: Callable[[Sequence[Pair]], list[Grade]]
) -> list[list[int | None]]:
    """Classes for a grader that can only compare, in one batch that keeps all its workers busy.

    Args:
        problems: the answers of each problem, in a form such that the same text means equal.
        grade_pairs: compares two answers, the first of them in the place of the gold answer.
    """
    pairs = [_pairs(form for form in forms if form is not None) for forms in problems]
    grades = iter(grade_pairs([(Gold(one), other) for group in pairs for one, other in group]))
    equal = [[pair for pair in group if next(grades).verdict is Verdict.EQUAL] for group in pairs]
    return [connected(forms, group) for forms, group in zip(problems, equal, strict=True)]


def _pairs(forms: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs to compare, each sorted: every frequent answer with every other one."""
    counts = Counter(forms)
    by_votes = sorted(counts, key=lambda form: (-counts[form], form))
    heads = by_votes[:MAX_HEADS]
    return [(min(a, b), max(a, b)) for i, a in enumerate(heads) for b in by_votes[i + 1 :]]


def connected(forms: Sequence[str | None], equal: Iterable[tuple[str, str]]) -> list[int | None]:
    """Number the connected components of `equal` by first appearance."""
    parent = {form: form for form in forms if form is not None}

    def root(form: str) -> str:
        while parent[form] != form:
            parent[form] = form = parent[parent[form]]
        return form

    for a, b in equal:
        parent[root(a)] = root(b)
    numbers: dict[str, int] = {}
    return [None if form is None else numbers.setdefault(root(form), len(numbers)) for form in forms]
