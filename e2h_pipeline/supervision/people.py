"""Step labels that people gave on the page of `e2h label`, from its export in PRM800K's format.

Solutions of problems that were called bad are not used. What stands before a step at which people
gave up is.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.problems.jsonl import BadLine, parse_each
from e2h_pipeline.problems.math.prm800k import session_solutions
from e2h_pipeline.problems.rated_solutions import LabelledSolution, LabelledSolutions, refuse_if_all_bad
from e2h_pipeline.supervision.prm800k import NEUTRAL
from e2h_pipeline.supervision.ratings import RatedFile

if TYPE_CHECKING:
    from e2h_pipeline.recipe import PeopleLabels

_BAD = "bad_problem"


class People(RatedFile):
    """Ratings by the labellers of this project."""

    names = ("people.jsonl", "people.jsonl.gz")
    origin = "the export of `e2h label`"

    def read_file(self, file: Path) -> LabelledSolutions:
        """See `RatedFile.read_file`; also who gave them to which solutions."""
        return _read(file)

    def neutral(self, options: PeopleLabels) -> float:
        """By `labels.neutral`."""
        return NEUTRAL[options.neutral]


def _read(file: Path) -> LabelledSolutions:
    """`counts`: `records`, `labellers`, how sessions ended, how often a reference answer was shown,
    and records by queue."""
    counts: Counter[str] = Counter({"records": 0})
    labellers, solutions, bad_lines = set(), [], []
    for parsed in parse_each(file, _session):
        if isinstance(parsed, BadLine):
            bad_lines.append(parsed)
            continue
        rated, labeller, told = parsed
        solutions += rated
        labellers.add(labeller)
        counts.update(told)
    found = LabelledSolutions(tuple(solutions), {**counts, "labellers": len(labellers)}, tuple(bad_lines))
    return refuse_if_all_bad([file], found)


def _session(record: dict[str, Any], path: Path, line: int) -> tuple[list[LabelledSolution], str, list[str]]:
    """The rated solution of a line, its labeller, and what it counts as."""
    reason = str((record.get("label") or {}).get("finish_reason"))
    rated = session_solutions(record, path, line)
    provenance = record.get("provenance") or {}
    told = ["records", f"finish_{reason}", f"queue {provenance.get('queue', 'unknown')}"]
    told += ["reference_shown"] if provenance.get("reference_shown") else []
    return ([] if reason == _BAD else rated), str(record.get("labeler")), told
