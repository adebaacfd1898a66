r"""Duplicates among problems: what is kept out of supervision, and what is listed for people.

`same_problem.py` says when two questions are the same or reworded. An easy problem that matches a
hard or a benchmark problem is kept out of the easy ones: its solution would show an answer that
must stay hidden. A hard problem that matches a benchmark problem is kept out of the hard ones.

Problems of one template (Jaccard similarity of word 5-grams of at least 0.8, other numbers) are
other problems with other answers, and MATH has many. They are listed and stay.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from e2h_pipeline.problems.same_problem import KnownQuestions, Match, same_key, same_problem, words

if TYPE_CHECKING:
    from e2h_pipeline.problems.records import Problem

TEMPLATE_THRESHOLD = 0.8
NGRAM = 5
_SHOWN = 50


@dataclass(frozen=True)
class KeptOut:
    """A problem that was kept out of its part because it matches a problem of another part.

    Attributes:
        part, match_part: easy, hard or benchmark.
    """

    part: str
    problem: Problem
    match_part: str
    match: Match

    def __str__(self) -> str:
        share = f", similarity {self.match.similarity:.2f}" if self.match.kind == "reworded" else ""
        level = f"level {self.problem.level}"
        return (
            f"{self.part} {self.problem.problem_id} ({level}): {self.match.kind} as {self.match_part} "
            f"{self.match.name}{share}"
        )


@dataclass(frozen=True)
class Template:
    """Two questions of one template, by name."""

    first: str
    second: str
    similarity: float

    def __str__(self) -> str:
        return f"{self.first} as {self.second}, similarity {self.similarity:.2f}"


def kept_out(
    part: str, problems: Sequence[Problem], apart: Mapping[str, Sequence[Problem]]
) -> dict[str, KeptOut]:
    """The problems of a part that match a problem of another, by id.

    Args:
        part: their part.
        apart: part -> its problems; the first that matches is named.
    """
    known = {
        name: KnownQuestions(sorted((p.problem_id, p.question) for p in others))
        for name, others in apart.items()
    }
    found: dict[str, KeptOut] = {}
    for problem in sorted(problems, key=lambda p: p.problem_id):
        matches = ((name, questions.find(problem.question)) for name, questions in known.items())
        for name, match in matches:
            if match is not None:
                found[problem.problem_id] = KeptOut(part, problem, name, match)
                break
    return found


def kept_out_summary(problems: Iterable[KeptOut]) -> dict[str, Any]:
    """Counts by reason, and the problems in words; empty where none was kept out."""
    found = sorted(problems, key=lambda one: (-one.match.similarity, one.problem.problem_id))
    if not found:
        return {}
    counts = Counter(f"{one.match.kind} as a {one.match_part} problem" for one in found)
    return {
        "kept_out": dict(sorted(counts.items())),
        "kept_out_problems": [str(one) for one in found[:_SHOWN]],
    }


def duplicate_groups(problems: Sequence[Problem]) -> list[tuple[Problem, ...]]:
    """Groups of two and more of the same problem, in the order of their first members."""
    groups: defaultdict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[same_key(problem.question)].append(problem)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def templates(
    known: Iterable[tuple[str, str]],
    asked: Iterable[tuple[str, str]],
    threshold: float = TEMPLATE_THRESHOLD,
) -> list[Template]:
    """Pairs (asked, known) of one template that are neither the same nor reworded, most similar
    first.

    Args:
        known, asked: (name, question).
    """
    known = list(known)
    grams = [_ngrams(question) for _, question in known]
    index: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, own in enumerate(grams):
        for gram in own:
            index[gram].append(place)
    found = []
    for name, question in asked:
        own = _ngrams(question)
        shared = Counter(place for gram in own for place in index.get(gram, ()))
        for place, count in shared.items():
            similarity = count / (len(own) + len(grams[place]) - count)
            other, text = known[place]
            if similarity >= threshold and not same_problem(question, text):
                found.append(Template(name, other, similarity))
    return sorted(found, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def _ngrams(question: str) -> set[tuple[str, ...]]:
    """Distinct 5-grams of words; the whole text where it is shorter."""
    found = words(question)
    return {found[i : i + NGRAM] for i in range(max(1, len(found) - NGRAM + 1))}


def duplicate_report(
    pool: Sequence[Problem], benchmark: Sequence[Problem], easy_levels: Sequence[int]
) -> dict[str, Any]:
    """All that people should look at: the same problem twice in the pool, matches between easy, hard
    and benchmark problems, and pairs of one template with the benchmark.

    Args:
        pool: training problems of known level.

    Returns JSON data with ids and levels, without answers.
    """
    easy = [p for p in pool if p.level in easy_levels]
    hard = [p for p in pool if p.level not in easy_levels]
    matched = {
        **kept_out("hard", hard, {"benchmark": benchmark}),
        **kept_out("easy", easy, {"benchmark": benchmark, "hard": hard}),
    }
    pairs = templates(_texts(pool), _texts(benchmark))
    named = {
        p.problem_id: name for p, name in zip((*pool, *benchmark), _named((*pool, *benchmark)), strict=True)
    }
    return {
        "same": [_named(group) for group in duplicate_groups(pool)],
        "matched": [str(one) for one in matched.values()],
        "template_of_benchmark": {
            "pairs": [[named[pair.first], named[pair.second], round(pair.similarity, 3)] for pair in pairs],
            "benchmark_problems": len({pair.first for pair in pairs}),
        },
    }


def _texts(problems: Iterable[Problem]) -> list[tuple[str, str]]:
    return [(problem.problem_id, problem.question) for problem in problems]


def _named(problems: Iterable[Problem]) -> list[str]:
    return [f"{problem.problem_id} (level {problem.level})" for problem in problems]
