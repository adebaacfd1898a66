r"""MATH and MATH500, from a local folder or the Hub, as one training pool and one benchmark.

The pool is that of PRM800K and of the easy-to-hard paper: all 12,500 problems of MATH (Hendrycks et al.
2021; 7,500 train + 5,000 test) minus the 500 of MATH500, so 12,000. Two of them have no level; they can
be neither easy nor hard, so they are left out and counted. Duplicates are reported and kept: taking some
out would leave the published split, and what to do about them is for the reader of the report to judge.

Local folder: `math_train`, `math_test` and `math500`, each as `.jsonl` or `.jsonl.gz`, with the fields
`unique_id, problem, solution, answer, subject, level` (level 1-5, or null where MATH says "Level ?").

Hub: `problems.hub` names a data set with the columns of EleutherAI/hendrycks_math (`problem, solution,
level` = "Level 3", `type`; splits train and test; one configuration per subject, or `default`), MATH500
comes from HuggingFaceH4/MATH-500, and `problems.hub_revision` is the commit of the first, or
`commit+commit` for both. Records without `unique_id` are called `split/subject/row-n` (so PRM800K's ids
do not apply to them), and MATH500 is taken out of the pool by text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.problems.duplicates import (
    spacing_key,
)
from e2h_pipeline.problems.files import data_folder, file_hashes
from e2h_pipeline.problems.jsonl import field, read_jsonl
from e2h_pipeline.problems.math.hub import HUB_BENCHMARK, commit_of, hub_source, revisions
from e2h_pipeline.problems.math.records import UNKNOWN_LEVEL, Source, problem_of_record, refuse_repeats
from e2h_pipeline.problems.records import Problem, ProblemError, ProblemPool, counts_by_level

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Problems

BENCHMARK = "MATH500"

_PARTS = ("math_train", "math_test", "math500")
_PUBLISHED = {
    "pool": 12_000,
    "benchmark": 500,
    "easy (levels 1-3)": 5_728,
    "hard (levels 4-5)": 6_270,
    "unknown level": 2,
}
_PUBLISHED_BENCHMARK = {"1": 43, "2": 90, "3": 105, "4": 128, "5": 134}


def math_pool(options: Problems) -> ProblemPool:
    """The training pool (MATH minus MATH500) and MATH500, with what was found on the way.

    Raises:
        ProblemError: no data, a record that cannot be used, or counts that are not the published ones
            while `strict_counts` is set.
    """
    source = hub_source(options) if options.hub else _local_source(_folder(options))
    pool, removed = _without_benchmark(source)
    known = [problem for problem in pool if problem.level != UNKNOWN_LEVEL]
    if options.strict_counts:
        _check_counts(pool, known, source.benchmark)
    findings = {
        "math_problems": len(source.math),
        "removed_for_benchmark": removed,
        "unknown_level": sorted(p.problem_id for p in pool if p.level == UNKNOWN_LEVEL),
        "empty_answer": sorted(p.problem_id for p in [*known, *source.benchmark] if not p.answer),
    }
    return ProblemPool(known, source.benchmark, BENCHMARK, findings)


def math_fingerprint(options: Problems) -> dict[str, str]:
    """SHA-256 of each local file, or the commit of each Hub data set.

    Raises:
        ProblemError: no data.
    """
    if not options.hub:
        return file_hashes(math_files(options))
    names = zip((options.hub, HUB_BENCHMARK), revisions(options.hub_revision), strict=True)
    return {name: commit_of(name, revision) for name, revision in names}


def math_files(options: Problems) -> list[Path]:
    """The local files; none where the source is the Hub.

    Raises:
        ProblemError: one is missing.
    """
    return [] if options.hub else [_part(_folder(options), part) for part in _PARTS]


def _without_benchmark(source: Source) -> tuple[list[Problem], dict[str, int]]:
    """The MATH problems that are no benchmark problem, by id or by text, and how many went by which."""
    ids = {problem.problem_id for problem in source.benchmark}
    texts = {spacing_key(problem.question) for problem in source.benchmark}
    pool, removed = [], Counter({"by_id": 0, "by_text": 0})
    for problem in source.math:
        if problem.problem_id in ids:
            removed["by_id"] += 1
        elif spacing_key(problem.question) in texts:
            removed["by_text"] += 1
        else:
            pool.append(problem)
    return pool, dict(removed)


def _check_counts(pool: Sequence[Problem], known: Sequence[Problem], benchmark: Sequence[Problem]) -> None:
    easy = sum(problem.level <= 3 for problem in known)
    counts = (len(pool), len(benchmark), easy, len(known) - easy, len(pool) - len(known))
    wrong = [
        f"{name} {found} instead of {published}"
        for (name, published), found in zip(_PUBLISHED.items(), counts, strict=True)
        if found != published
    ]
    if counts_by_level(benchmark) != _PUBLISHED_BENCHMARK:
        wrong.append(f"levels of {BENCHMARK} {counts_by_level(benchmark)} instead of {_PUBLISHED_BENCHMARK}")
    if wrong:
        raise ProblemError(
            f"not the published MATH split: {'; '.join(wrong)}. Use the full data,"
            " or set problems.strict_counts: false"
        )


# Local folder


def _folder(options: Problems) -> Path:
    if options.path:
        return Path(options.path)
    folder = data_folder("math")
    if folder is None:
        raise ProblemError(
            "problems.source is math, but there is no data: set problems.path to a folder with"
            f" {', '.join(_PARTS)} (.jsonl or .jsonl.gz), or E2H_DATA_DIR to its parent, or problems.hub"
        )
    return folder


def _part(folder: Path, part: str) -> Path:
    for path in (folder / f"{part}.jsonl.gz", folder / f"{part}.jsonl"):
        if path.is_file():
            return path
    raise ProblemError(
        f"{folder}: no {part}.jsonl or {part}.jsonl.gz; set problems.path to the folder that has it"
    )


def _local_source(folder: Path) -> Source:
    train, test, benchmark = (_read_part(_part(folder, part)) for part in _PARTS)
    refuse_repeats([*train, *test], str(folder))
    refuse_repeats(benchmark, str(folder / _PARTS[2]))
    return Source([*train, *test], benchmark)


def _read_part(path: Path) -> list[Problem]:
    problems = [
        problem_of_record(record, field(record, "unique_id", str, path, line), path, line)
        for line, record in read_jsonl(path)
    ]
    if not problems:  # a file that was cut to nothing must not become an empty split
        raise ProblemError(f"{path}: no problem in it; put the whole file back")
    return problems


# Hub
