r"""MATH and MATH500, from a local folder or the Hub, as one training pool and one benchmark.

The pool is that of PRM800K and of the easy-to-hard paper: all 12,500 problems of MATH (Hendrycks et
al. 2021; 7,500 train + 5,000 test) minus the 500 of MATH500, so 12,000. Two of them have no level,
so they are neither easy nor hard. Duplicates are reported and kept: without some of them it would
not be the published split. What to do about them is for the reader of the report to judge.

Local folder: `math_train`, `math_test` and `math500`, each as `.jsonl` or `.jsonl.gz`, with the
fields `unique_id, problem, solution, answer, subject, level` (level 1-5, or null where MATH says
"Level ?").

Hub: `problems.hub` names a data set with the columns of EleutherAI/hendrycks_math (`problem,
solution, level` = "Level 3", `type`; splits train and test; one configuration per subject, or
`default`). MATH500 comes from HuggingFaceH4/MATH-500. `problems.hub_revision` is the commit of the
first, or `commit+commit` for both. Records without `unique_id` are called `split/subject/row-n` (so
PRM800K's ids do not apply to them), and MATH500 is taken out of the pool by text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.problems.files import file_hashes, part_file, parts_folder
from e2h_pipeline.problems.hub import commit_of
from e2h_pipeline.problems.jsonl import field, read_jsonl
from e2h_pipeline.problems.math.hub import HUB_BENCHMARK, hub_source, revisions
from e2h_pipeline.problems.math.records import Source, problem_of_record, refuse_repeats
from e2h_pipeline.problems.records import Problem, ProblemError, ProblemPool, counts_by_level
from e2h_pipeline.problems.same_problem import same_key

if TYPE_CHECKING:
    from e2h_pipeline.recipe import MathProblems

_PARTS = ("math_train", "math_test", "math500")
_PUBLISHED = {
    "pool": 12_000,
    "benchmark": 500,
    "easy (levels 1-3)": 5_728,
    "hard (levels 4-5)": 6_270,
    "unknown level": 2,
}
_PUBLISHED_BENCHMARK = {"1": 43, "2": 90, "3": 105, "4": 128, "5": 134}


class MathReader:
    """MATH's `ProblemReader`."""

    def pool(self, options: MathProblems) -> ProblemPool:
        """The training pool (MATH minus MATH500) and MATH500, with what was found on the way.

        Raises:
            ProblemError: no data, a record that cannot be used, or counts that are not the
                published ones while `strict_counts` is set.
        """
        source = hub_source(options) if options.hub else _local_source(_folder(options))
        pool, removed = _without_benchmark(source)
        if options.strict_counts:
            _check_counts(pool, source.benchmark)
        used = [*(problem for problem in pool if problem.level is not None), *source.benchmark]
        findings = {
            "math_problems": len(source.math),
            "removed_for_benchmark": removed,
            "empty_answer": sorted(problem.problem_id for problem in used if not problem.answer),
        }
        return ProblemPool(pool, source.benchmark, findings)

    def fingerprint(self, options: MathProblems) -> Mapping[str, str]:
        """SHA-256 of each local file, or the commit of each Hub data set.

        Raises:
            ProblemError: no data.
        """
        if not options.hub:
            return file_hashes(self.files(options))
        names = zip((options.hub, HUB_BENCHMARK), revisions(options.hub_revision), strict=True)
        return {name: commit_of(name, revision) for name, revision in names}

    def files(self, options: MathProblems) -> Sequence[Path]:
        """The local files; none where the source is the Hub.

        Raises:
            ProblemError: one is missing.
        """
        return [] if options.hub else [part_file(_folder(options), part) for part in _PARTS]


def _without_benchmark(source: Source) -> tuple[list[Problem], dict[str, int]]:
    """The problems of MATH that are not in the benchmark, and how many were taken out by id and by
    text."""
    ids = {problem.problem_id for problem in source.benchmark}
    texts = {same_key(problem.question) for problem in source.benchmark}
    pool, removed = [], Counter({"by_id": 0, "by_text": 0})
    for problem in source.math:
        if problem.problem_id in ids:
            removed["by_id"] += 1
        elif same_key(problem.question) in texts:
            removed["by_text"] += 1
        else:
            pool.append(problem)
    return pool, dict(removed)


def _check_counts(pool: Sequence[Problem], benchmark: Sequence[Problem]) -> None:
    levels = [problem.level for problem in pool if problem.level is not None]
    easy = sum(level <= 3 for level in levels)
    counts = (len(pool), len(benchmark), easy, len(levels) - easy, len(pool) - len(levels))
    wrong = [
        f"{name} {found} instead of {published}"
        for (name, published), found in zip(_PUBLISHED.items(), counts, strict=True)
        if found != published
    ]
    if counts_by_level(benchmark) != _PUBLISHED_BENCHMARK:
        wrong.append(f"levels of MATH500 {counts_by_level(benchmark)} instead of {_PUBLISHED_BENCHMARK}")
    if wrong:
        raise ProblemError(
            f"not the published MATH split: {'; '.join(wrong)}. Use the full data,"
            " or set problems.strict_counts: false"
        )


def _folder(options: MathProblems) -> Path:
    return parts_folder(options.path, options.source, _PARTS)


def _local_source(folder: Path) -> Source:
    train, test, benchmark = (_read_part(part_file(folder, part)) for part in _PARTS)
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
