r"""Duplicate problems: a hard problem that is also an easy one, a benchmark problem that was
trained on.

Three keys, each of which ignores more than the one before: white space at the ends; LaTeX spacing
and the kind of math delimiters (`$`, `\[`); bracket sizes and grouping braces. Near-duplicates are
pairs with a Jaccard similarity of word 5-grams of at least 0.8 (n-gram decontamination as for
GPT-3), found through an inverted index.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

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
    """Distinct 5-grams of words, numbers, commands and signs; the whole text where it is
    shorter."""
    words = _WORD.findall(_SPACING.sub(" ", _one_frac(question)).lower())
    return {tuple(words[i : i + NGRAM]) for i in range(max(1, len(words) - NGRAM + 1))}


def _one_frac(text: str) -> str:
    return text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")


def duplicate_report(
    pool: Sequence[Problem], benchmark: Sequence[Problem], easy_levels: Sequence[int]
) -> dict[str, Any]:
    """Duplicate groups within the pool, how many pool problems are benchmark problems, and
    near-duplicates of those.

    `crossing` are groups with an easy and a hard member: hard questions whose answer easy
    supervision shows.

    Args:
        pool: training problems of known level.

    Returns JSON data with ids and levels, without answers.
    """
    keys: dict[str, Callable[[str], str]] = {"exact": exact_key, "spacing": spacing_key, "layout": layout_key}
    report: dict[str, Any] = {}
    for name, key in keys.items():
        groups = duplicate_groups(pool, key)
        crossing = [g for g in groups if len({p.level in easy_levels for p in g}) == 2]
        of_benchmark = {key(p.question) for p in benchmark}
        report[name] = {
            "groups": [_named(group) for group in groups],
            "crossing": [_named(group) for group in crossing],
            "in_benchmark": sum(key(p.question) in of_benchmark for p in pool),
        }
    near = near_duplicates(pool, benchmark)
    report["near_benchmark"] = {
        "pairs": [[*_named([pair.first, pair.second]), round(pair.similarity, 3)] for pair in near],
        "benchmark_problems": len({pair.first.problem_id for pair in near}),
    }
    return report


def _named(problems: Iterable[Problem]) -> list[str]:
    return [f"{problem.problem_id} (level {problem.level})" for problem in problems]
