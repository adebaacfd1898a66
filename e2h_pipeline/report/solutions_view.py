"""The browser of solutions: what vote and evaluator chose for a sample of problems, step by step.

Hashes of their ids decide which problems are shown, so nobody picked them. Problems on which vote and
evaluator differ come before others, because they are few and tell most. The page filters by style
sheets alone and runs no script.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest

from markupsafe import Markup

from e2h_pipeline.report.cells import Row
from e2h_pipeline.report.levels import NUMBERED, LevelNames
from e2h_pipeline.report.mathematics import rendered
from e2h_pipeline.report.names import readable
from e2h_pipeline.report.saving import csv_text
from e2h_pipeline.solutions import TextFormat
from e2h_pipeline.statistics.levels import UNKNOWN_LEVEL

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
    """A step, and the evaluator's probability that it is right; `shade` is 0 (wrong) to 4 (right)."""

    text: Markup
    score: str
    shade: int


@dataclass(frozen=True)
class ShownSolution:
    """A solution, who chose it, how its answer fared among the samples, and what is wrong with it."""

    roles: str
    answer: Markup
    right: bool
    votes: int
    weight: str
    why: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class ShownProblem:
    """A problem with the solutions that were chosen; `level` is 0 where it is unknown."""

    problem_id: str
    level: int
    level_name: str
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
        total: number of all problems.
        levels: (number, name for people) of levels that are shown, for the filter.
        outcomes: (name in the page, name for people, count of all problems).
        table: (name for people, counts by level, count of all problems).
        empty: (level, outcome) of which no problem is shown, "all" among them.
    """

    problems: tuple[ShownProblem, ...]
    total: int
    levels: tuple[tuple[int, str], ...]
    outcomes: tuple[tuple[str, str, int], ...]
    table: tuple[tuple[str, tuple[int, ...], int], ...]
    empty: tuple[tuple[str, str], ...]

    @property
    def csv(self) -> str:
        """The table, to be saved."""
        header = ("outcome", *(name for _, name in self.levels), "all")
        return csv_text(header, ((name, *counts, total) for name, counts, total in self.table))


def solutions_section(
    choices: Sequence[Row], text: TextFormat, names: LevelNames = NUMBERED
) -> SolutionsSection | None:
    """The browser of `choices.parquet`; None where no problem has an answer.

    Args:
        choices: its rows, those of a problem one behind the other.
        text: how the domain writes solutions.
        names: what people call the levels.
    """
    problems = [list(rows) for _, rows in groupby(choices, key=lambda row: row["problem_id"])]
    if not problems:
        return None
    counts = Counter((_outcome(rows), _level(rows)) for rows in problems)
    levels = sorted({level for _, level in counts if level != UNKNOWN_LEVEL})
    shown = tuple(_problem(rows, text, names) for rows in _sample(problems))
    outcomes = [
        (key, name, sum(n for (outcome, _), n in counts.items() if outcome == key))
        for key, name, _ in _OUTCOMES.values()
    ]
    return SolutionsSection(
        problems=shown,
        total=len(problems),
        levels=tuple((level, names.label(str(level))) for level in levels),
        outcomes=tuple(outcomes),
        table=tuple(
            (name, tuple(counts[key, level] for level in levels), count) for key, name, count in outcomes
        ),
        empty=_empty(shown, levels),
    )


def _empty(shown: Sequence[ShownProblem], levels: Sequence[int]) -> tuple[tuple[str, str], ...]:
    """Pairs of filters by level and outcome that leave no problem."""
    there = {(str(p.level), p.outcome) for p in shown}
    there |= {("all", outcome) for _, outcome in there} | {(level, "all") for level, _ in there}
    there.add(("all", "all"))
    return tuple(
        (level, outcome)
        for level in ("all", *map(str, levels))
        for outcome in ("all", *(key for key, _, _ in _OUTCOMES.values()))
        if (level, outcome) not in there
    )


def _level(rows: Sequence[Row]) -> int:
    """Level of a problem; `UNKNOWN_LEVEL` where it has none."""
    return rows[0]["level"] or UNKNOWN_LEVEL


def _outcome(rows: Sequence[Row]) -> str:
    return _OUTCOMES[_right(rows, "majority"), _right(rows, "weighted-vote")][0]


def _right(rows: Sequence[Row], role: str) -> bool:
    return next(bool(row["right"]) for row in rows if role in row["roles"])


def _sample(problems: Sequence[list[Row]]) -> list[list[Row]]:
    """Some problems of each outcome, from all levels in turn, in order of level and id."""
    found: list[list[Row]] = []
    for key, _, most in _OUTCOMES.values():
        of_outcome = sorted((rows for rows in problems if _outcome(rows) == key), key=_by_hash)
        by_level = [list(group) for _, group in groupby(of_outcome, key=_level)]
        in_turn = [rows for row in zip_longest(*by_level) for rows in row if rows is not None]
        found += in_turn[:most]
    return sorted(found, key=lambda rows: (_level(rows), rows[0]["problem_id"]))


def _by_hash(rows: Sequence[Row]) -> tuple[int, str]:
    return _level(rows), hashlib.sha256(rows[0]["problem_id"].encode()).hexdigest()


def _problem(rows: Sequence[Row], text: TextFormat, names: LevelNames) -> ShownProblem:
    first, outcome = rows[0], _outcome(rows)
    return ShownProblem(
        problem_id=first["problem_id"],
        level=_level(rows),
        level_name=names.label(str(_level(rows))),
        outcome=outcome,
        outcome_name=next(name for key, name, _ in _OUTCOMES.values() if key == outcome),
        question=_as_it_stands(first["question"]) if text.verbatim else _shown(first["question"]),
        gold=_as_it_stands(first["gold"]) if text.verbatim else _answer(first["gold"]),
        samples=first["samples"],
        right_samples=first["right_samples"],
        solutions=tuple(_solution(row, text) for row in rows),
    )


def _solution(row: Row, text: TextFormat) -> ShownSolution:
    completion, scores = row["completion"], row["step_scores"]
    segments = [completion[start:end] for start, end in text.parse(completion).spans]
    return ShownSolution(
        roles=", ".join(_ROLES.get(role) or readable(role) for role in row["roles"]),
        answer=Markup("") if text.verbatim else _answer(row["answer"]),  # its steps are the answer
        right=row["right"],
        votes=row["votes"],
        weight=f"{100 * row['weight']:.0f}",
        why=_cut(row.get("why") or ""),
        steps=tuple(
            Step(_step(segment, text), f"{score:.2f}", _shade(score))
            for segment, score in zip(segments, scores, strict=True)
        ),
    )


def _step(segment: str, text: TextFormat) -> Markup:
    return _as_it_stands(segment.strip("\n")) if text.verbatim else _shown(_spoken(segment.strip(), text))


def _spoken(segment: str, text: TextFormat) -> str:
    """A step; the answer block, which has a score like a step, as a line."""
    marker = text.answer_marker
    return f"Answer: {segment.removeprefix(marker).strip()}" if segment.startswith(marker) else segment


def _shade(score: float) -> int:
    return min(_SHADES - 1, int(score * _SHADES))


def _shown(text: str) -> Markup:
    """Text with its formulas drawn, and cut where it is very long."""
    return rendered(_cut(text))


def _as_it_stands(text: str) -> Markup:
    """Text with its white space, such as a line of a program."""
    return Markup('<code class="verbatim">{}</code>').format(_cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_STEP else text[: _LONGEST_STEP - 1] + "…"


def _answer(text: str) -> Markup:
    """An answer; one that looks like LaTeX without dollar signs is drawn as a formula."""
    return _shown(f"${text}$" if "\\" in text and "$" not in text else text)
