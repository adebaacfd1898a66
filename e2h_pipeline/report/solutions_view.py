"""The browser of solutions: what the vote and the evaluator chose, step by step, for a sample of problems.

Which problems are shown depends on hashes of their ids, so nobody picked them; those on which vote and evaluator differ
come first, because they are few and tell most. The page filters by style sheets alone and runs no script.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any

from markupsafe import Markup

from e2h_pipeline.report.mathematics import rendered
from e2h_pipeline.solutions import ANSWER_MARKER, parse_completion

Row = Mapping[str, Any]

# Vote right?, evaluator right? -> name in the page, and how many problems are shown of it at most.
_OUTCOMES = {
    (False, True): ("rescued", "majority wrong, evaluator right", 40),
    (True, False): ("lost", "majority right, evaluator wrong", 20),
    (False, False): ("missed", "both wrong", 20),
    (True, True): ("agreed", "both right", 20),
}
_ROLES = {
    "majority": "majority vote",
    "weighted-vote": "vote weighted by the evaluator",
    "best-of-n": "best-of-N",
}
_SHADES = 5
_LONGEST_STEP = 4_000  # characters of a step, a question or an answer that are shown


@dataclass(frozen=True)
class Step:
    """A step and the evaluator's probability that it is right; `shade` is 0 (wrong) to 4 (right), as in the style."""

    text: Markup
    score: str
    shade: int


@dataclass(frozen=True)
class ShownSolution:
    """A solution, who chose it, and how its answer fared among the samples."""

    roles: str
    answer: Markup
    right: bool
    votes: int
    weight: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class ShownProblem:
    """A problem with the solutions that were chosen."""

    problem_id: str
    level: int
    outcome: str
    outcome_name: str
    question: Markup
    gold: Markup
    samples: int
    right_samples: int
    solutions: tuple[ShownSolution, ...]


@dataclass(frozen=True)
class SolutionsSection:
    """What the browser shows, and how often what happened.

    Attributes:
        levels: levels that are shown, for the filter.
        outcomes: (name in the page, name for people, count of all problems).
        table: (name for people, counts by level) of all problems.
        empty: (level, outcome) of which no problem is shown, "all" among them.
    """

    problems: tuple[ShownProblem, ...]
    total: int
    levels: tuple[int, ...]
    outcomes: tuple[tuple[str, str, int], ...]
    table: tuple[tuple[str, tuple[int, ...]], ...]
    empty: tuple[tuple[str, str], ...]


def solutions_section(choices: Sequence[Row]) -> SolutionsSection | None:
    """The browser of `choices.parquet`; None where no problem has an answer."""
    problems = [list(rows) for _, rows in groupby(choices, key=lambda row: row["problem_id"])]
    if not problems:
        return None
    counts = Counter((_outcome(rows), rows[0]["level"]) for rows in problems)
    levels = tuple(sorted({level for _, level in counts}))
    shown = tuple(_problem(rows) for rows in _sample(problems))
    there = {(str(p.level), p.outcome) for p in shown}
    there |= {("all", outcome) for _, outcome in there} | {(level, "all") for level, _ in there}
    names = [(key, name) for key, name, _ in _OUTCOMES.values()]
    return SolutionsSection(
        problems=shown,
        total=len(problems),
        levels=levels,
        outcomes=tuple((key, name, sum(counts[key, level] for level in levels)) for key, name in names),
        table=tuple((name, tuple(counts[key, level] for level in levels)) for key, name in names),
        empty=tuple(
            (level, outcome)
            for level in ("all", *map(str, levels))
            for outcome in ("all", *(key for key, _ in names))
            if (level, outcome) not in there | {("all", "all")}
        ),
    )


def _outcome(rows: Sequence[Row]) -> str:
    return _OUTCOMES[_right(rows, "majority"), _right(rows, "weighted-vote")][0]


def _right(rows: Sequence[Row], role: str) -> bool:
    return next(bool(row["right"]) for row in rows if role in row["roles"])


def _sample(problems: Sequence[list[Row]]) -> list[list[Row]]:
    """Some problems of each outcome, from all levels in turn, in order of level and id."""
    found: list[list[Row]] = []
    for key, _, most in _OUTCOMES.values():
        of_outcome = sorted((rows for rows in problems if _outcome(rows) == key), key=_by_hash)
        by_level = [list(group) for _, group in groupby(of_outcome, key=lambda rows: rows[0]["level"])]
        in_turn = [rows for row in zip_longest(*by_level) for rows in row if rows is not None]
        found += in_turn[:most]
    return sorted(found, key=lambda rows: (rows[0]["level"], rows[0]["problem_id"]))


def _by_hash(rows: Sequence[Row]) -> tuple[int, str]:
    return rows[0]["level"], hashlib.sha256(rows[0]["problem_id"].encode()).hexdigest()


def _problem(rows: Sequence[Row]) -> ShownProblem:
    first, outcome = rows[0], _outcome(rows)
    return ShownProblem(
        problem_id=first["problem_id"],
        level=first["level"],
        outcome=outcome,
        outcome_name=next(name for key, name, _ in _OUTCOMES.values() if key == outcome),
        question=_text(first["question"]),
        gold=_answer(first["gold"]),
        samples=first["samples"],
        right_samples=first["right_samples"],
        solutions=tuple(_solution(row) for row in rows),
    )


def _solution(row: Row) -> ShownSolution:
    completion, scores = row["completion"], row["step_scores"]
    texts = [completion[start:end].strip() for start, end in parse_completion(completion).spans]
    return ShownSolution(
        roles=", ".join(_ROLES.get(role, role) for role in row["roles"]),
        answer=_answer(row["answer"]),
        right=row["right"],
        votes=row["votes"],
        weight=f"{100 * row['weight']:.0f}",
        steps=tuple(
            Step(_text(_spoken(text)), f"{score:.2f}", _shade(score))
            for text, score in zip(texts, scores, strict=True)
        ),
    )


def _spoken(text: str) -> str:
    """A step; the answer block, which is scored like one, as a line."""
    return f"Answer: {text.removeprefix(ANSWER_MARKER).strip()}" if text.startswith(ANSWER_MARKER) else text


def _shade(score: float) -> int:
    return min(_SHADES - 1, int(score * _SHADES))


def _text(text: str) -> Markup:
    return rendered(text if len(text) <= _LONGEST_STEP else text[: _LONGEST_STEP - 1] + "…")


def _answer(text: str) -> Markup:
    """An answer: LaTeX without its dollar signs where it looks like that."""
    return _text(f"${text}$" if "\\" in text and "$" not in text else text)
