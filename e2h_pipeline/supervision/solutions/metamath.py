"""Model-written solutions of rewritten problems (MetaMathQA): those of easy training problems.

Beside MATH, all of GSM8K counts as easy (paper); a domain says so by `Domain.unlevelled_easy`. A
rewritten question that is a held-out one, or a rewording of one, is left out at the door
(`easy_solutions.py`), whatever its original.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.problems.files import data_folder
from e2h_pipeline.problems.jsonl import BadLine, parse_each
from e2h_pipeline.problems.math.metamath import RewrittenSolution, read_metamath
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.problems.same_problem import same_key
from e2h_pipeline.supervision.solutions.source import (
    DrawnSolutions,
    Rows,
    SolutionJob,
    SolutionSource,
    whole_solution,
)

if TYPE_CHECKING:
    from e2h_pipeline.recipe import MetaMathSolutions

UNLEVELLED_ID = "unlevelled/"
"""Prefix of the ids of problems without a level, which are made from the text."""

_PATTERN = "MetaMathQA*.json*"


class MetaMath(SolutionSource):
    """Solutions of a file in the format of MetaMathQA."""

    def files(self, options: MetaMathSolutions) -> list[Path]:
        """The one file."""
        return [Path(options.path) if options.path else _default_file()]

    def read(self, options: MetaMathSolutions) -> None:
        """Read the file as records, without parsing solutions: it is large, and people wait."""
        for _ in parse_each(self.files(options)[0], lambda record, path, line: None):
            pass

    def draw(self, job: SolutionJob) -> DrawnSolutions:
        """Solutions of questions made from a training problem, or from one that has no level and
        counts as easy."""
        bad: list[BadLine] = []
        dropped: Counter[str] = Counter()
        found = _without_bad_lines(read_metamath(self.files(job.options)[0]), bad)
        rows = list(_rewritten(found, job, dropped))
        rows = _at_most(rows, job.options.per_question, job.seed, dropped)
        return DrawnSolutions(rows, dropped, bad)


def _default_file() -> Path:
    folder = data_folder("metamath")
    found = sorted(folder.glob(_PATTERN)) if folder else []
    if len(found) != 1:
        where = f"{len(found)} files {_PATTERN} in {folder}" if folder else "E2H_DATA_DIR is not set"
        raise ProblemError(
            f"solutions.source=metamath needs a file and {where}: set solutions.path to it"
            " (MetaMathQA-395K.json of meta-math/MetaMathQA on the Hub)"
        )
    return found[0]


def _without_bad_lines(
    found: Iterable[RewrittenSolution | BadLine], bad: list[BadLine]
) -> Iterator[RewrittenSolution]:
    for each in found:
        if isinstance(each, BadLine):
            bad.append(each)
        else:
            yield each


def _rewritten(
    found: Iterable[RewrittenSolution], job: SolutionJob, dropped: Counter[str]
) -> Iterator[dict[str, Any]]:
    by_text, apart = job.by_text(), job.apart
    seen: set[str] = set()
    for each in found:
        original = same_key(each.original_question)
        problem = by_text.get(original)
        if problem is None and each.origin in job.unlevelled and apart.find(each.original_question) is None:
            problem = {"problem_id": UNLEVELLED_ID + digest_json(original)[:16], "level": None}
        if problem is None:
            dropped["not an easy training problem"] += 1
        else:
            completion = job.text.completion(each.steps, each.answer)
            row = whole_solution(problem, each.kind, each.question, completion, job.text)
            same = digest_json([row["question"], row["completion"]])
            if same in seen:
                dropped["there already"] += 1
                continue
            seen.add(same)
            yield row


def _at_most(rows: Rows, most: int | None, seed: int, dropped: Counter[str]) -> Rows:
    """At most `most` solutions of each question, in their order."""
    if most is None:
        return rows
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[row["question"]].append(place)
    kept: list[int] = []
    for question, own in places.items():
        drawn = random.Random(f"solutions/{seed}/{question}").sample(own, min(most, len(own)))
        dropped["more of a question than wanted"] += len(own) - len(drawn)
        kept += drawn
    return [rows[place] for place in sorted(kept)]
