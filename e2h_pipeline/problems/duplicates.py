r"""Duplicate problems: a hard problem that is also an easy one, a benchmark problem that was trained on.

Three keys, each blind to more: white space at the ends; LaTeX spacing and the kind of math delimiters
(`$`, `\[`); also bracket sizes and grouping braces. Near-duplicates are pairs with a Jaccard similarity
of word 5-grams of at least 0.8 (GPT-3 style n-gram decontamination), found through an inverted index.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from e2h_pipeline.problems.records import Problem

NEAR_THRESHOLD = 0.8
NGRAM = 5

_SPACING = re.compile(r"\s+|\\[,;:! ]|\\q?quad|\$|\\[\[\]()]")
_LAYOUT = re.compile(r"\\left|\\right|[{}]")
_WORD = re.compile(r"\\[a-z]+|[a-z]+|\d+|[^\w\s]")


@dataclass(frozen=True)
class NearDuplicate:
    """Two problems that share most of their 5-grams."""

    first: Problem
    second: Problem
    similarity: float


def exact_key(question: str) -> str:
    """The question without white space at its ends."""
    return question.strip()


def spacing_key(question: str) -> str:
    r"""Without white space, spacing commands and math delimiters, and with one kind of `\frac`."""
    return _SPACING.sub("", _one_frac(question))


def layout_key(question: str) -> str:
    r"""`spacing_key` without `\left`, `\right` and braces."""
    return _LAYOUT.sub("", spacing_key(question))


def duplicate_groups(problems: Sequence[Problem], key: Callable[[str], str]) -> list[tuple[Problem, ...]]:
    """Groups of two and more problems with the same key, in the order of their first members."""
    groups: defaultdict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[key(problem.question)].append(problem)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def near_duplicates(
    pool: Sequence[Problem], benchmark: Sequence[Problem], threshold: float = NEAR_THRESHOLD
) -> list[NearDuplicate]:
    """Pairs (benchmark problem, pool problem) at or above the threshold, most similar first."""
    grams = [_ngrams(problem.question) for problem in pool]
    index: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, own in enumerate(grams):
        for gram in own:
            index[gram].append(place)
    found = []
    for problem in benchmark:
        own = _ngrams(problem.question)
        shared = Counter(place for gram in own for place in index.get(gram, ()))
        for place, count in shared.items():
            similarity = count / (len(own) + len(grams[place]) - count)
            if similarity >= threshold:
                found.append(NearDuplicate(problem, pool[place], similarity))
    return sorted(found, key=lambda pair: (-pair.similarity, pair.first.problem_id, pair.second.problem_id))


def _ngrams(question: str) -> set[tuple[str, ...]]:
    """Distinct 5-grams of words, numbers, commands and signs; the whole text where it is shorter."""
    words = _WORD.findall(_SPACING.sub(" ", _one_frac(question)).lower())
    return {tuple(words[i : i + NGRAM]) for i in range(max(1, len(words) - NGRAM + 1))}


def _one_frac(text: str) -> str:
    return text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
