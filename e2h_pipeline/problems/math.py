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

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.grading.extract import last_boxed
from e2h_pipeline.problems.duplicates import (
    duplicate_groups,
    exact_key,
    layout_key,
    near_duplicates,
    spacing_key,
)
from e2h_pipeline.problems.files import data_folder, file_hashes
from e2h_pipeline.problems.jsonl import field, read_jsonl
from e2h_pipeline.problems.records import Problem, ProblemError, ProblemPool, counts_by_level
from e2h_pipeline.problems.steps import split_steps

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Problems

BENCHMARK = "MATH500"
HUB_BENCHMARK = "HuggingFaceH4/MATH-500"
UNKNOWN_LEVEL = 0
"""Level of a record before the pool is built; no problem of a pool has it."""

_PARTS = ("math_train", "math_test", "math500")
_LEVEL_TEXT = re.compile(r"Level ([1-5])")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PUBLISHED = {
    "pool": 12_000,
    "benchmark": 500,
    "easy (levels 1-3)": 5_728,
    "hard (levels 4-5)": 6_270,
    "unknown level": 2,
}
_PUBLISHED_BENCHMARK = {"1": 43, "2": 90, "3": 105, "4": 128, "5": 134}


@dataclass(frozen=True)
class Source:
    """All records before the split; levels may be unknown."""

    math: Sequence[Problem]
    benchmark: Sequence[Problem]


def math_pool(options: Problems) -> ProblemPool:
    """The training pool (MATH minus MATH500) and MATH500, with what was found on the way.

    Raises:
        ProblemError: no data, a record that cannot be used, or counts that are not the published ones
            while `strict_counts` is set.
    """
    source = _hub_source(options) if options.hub else _local_source(_folder(options))
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
    names = zip((options.hub, HUB_BENCHMARK), _revisions(options.hub_revision), strict=True)
    return {name: _commit(name, revision) for name, revision in names}


def math_files(options: Problems) -> list[Path]:
    """The local files; none where the source is the Hub.

    Raises:
        ProblemError: one is missing.
    """
    return [] if options.hub else [_part(_folder(options), part) for part in _PARTS]


def duplicate_report(
    pool: Sequence[Problem], benchmark: Sequence[Problem], easy_levels: Sequence[int]
) -> dict[str, Any]:
    """Duplicate groups within the pool, how many pool problems are benchmark problems, and near-duplicates
    of those. `crossing` are groups with an easy and a hard member: hard questions whose answer
    easy supervision shows. Ids and levels only, no answers."""
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
    _refuse_repeats([*train, *test], str(folder))
    _refuse_repeats(benchmark, str(folder / _PARTS[2]))
    return Source([*train, *test], benchmark)


def _read_part(path: Path) -> list[Problem]:
    problems = [
        _problem(record, field(record, "unique_id", str, path, line), path, line)
        for line, record in read_jsonl(path)
    ]
    if not problems:  # a file that was cut to nothing must not become an empty split
        raise ProblemError(f"{path}: no problem in it; put the whole file back")
    return problems


def _problem(record: dict[str, Any], problem_id: str, where: Path | str, line: int) -> Problem:
    """A record as a problem. `answer` may be missing (Hub): then it is the last box of the solution."""
    solution = field(record, "solution", str, where, line)
    if "answer" in record or "unique_id" in record:
        answer = field(record, "answer", str, where, line)
    else:
        answer = last_boxed(solution) or ""
    return Problem(
        problem_id=problem_id,
        level=_level(record, where, line),
        subject=field(
            record, "type" if "type" in record and "subject" not in record else "subject", str, where, line
        ),
        question=field(record, "problem", str, where, line),
        steps=split_steps(solution),
        answer=answer.strip(),
    )


def _level(record: dict[str, Any], where: Path | str, line: int) -> int:
    """1-5 from a number or "Level 3"; `UNKNOWN_LEVEL` for null and "Level ?"."""
    if "level" not in record:
        raise ProblemError(f"{where}:{line}: no field 'level'; give 1-5, or null where it is not known")
    value = record["level"]
    if value is None or value == "Level ?":
        return UNKNOWN_LEVEL
    match = _LEVEL_TEXT.fullmatch(f"Level {value}" if isinstance(value, int) else str(value))
    if not match:
        raise ProblemError(f"{where}:{line}: level {value!r} is not 1-5; use null where it is not known")
    return int(match[1])


def _refuse_repeats(problems: Iterable[Problem], where: str) -> None:
    repeated = [name for name, count in Counter(p.problem_id for p in problems).items() if count > 1]
    if repeated:
        raise ProblemError(
            f"{where}: unique_id {repeated[0]} is there more than once; keep one record of each"
        )


# Hub


def _hub_source(options: Problems) -> Source:
    assert options.hub is not None
    revision, benchmark_revision = _revisions(options.hub_revision)
    return read_hub(options.hub, HUB_BENCHMARK, revision, benchmark_revision)


def read_hub(
    name: str, benchmark: str, revision: str | None = None, benchmark_revision: str | None = None
) -> Source:
    """MATH and MATH500 through `datasets`, from Hub names or folders that `datasets` can read."""
    math = [
        problem
        for configuration, splits in _hub_tables(name, revision)
        for split in ("train", "test")
        for problem in _hub_problems(_split(splits, split, name), split, configuration, name)
    ]
    rows = [
        row
        for _, splits in _hub_tables(benchmark, benchmark_revision)
        for row in _split(splits, "test", benchmark)
    ]
    found = _hub_problems(rows, "test", "benchmark", benchmark)
    _refuse_repeats(math, name)
    _refuse_repeats(found, benchmark)
    return Source(math, found)


def _hub_tables(name: str, revision: str | None) -> list[tuple[str, Mapping[str, Iterable[Any]]]]:
    """(configuration, splits); `default` alone where a data set has it, for it holds all subjects."""
    from datasets import get_dataset_config_names, load_dataset

    try:
        names = get_dataset_config_names(name, revision=revision)
        chosen = ["default"] if "default" in names else sorted(names)
        return [(each, load_dataset(name, each, revision=revision)) for each in chosen]
    except (OSError, ValueError) as error:  # not found, no network, no such commit
        raise ProblemError(
            f"problems.hub: cannot load {name} ({type(error).__name__}: {error}); check name, commit and"
            " network, or set problems.path to a local folder"
        ) from None


def _split(splits: Mapping[str, Iterable[Any]], split: str, name: str) -> Iterable[Any]:
    if split not in splits:
        raise ProblemError(f"problems.hub: {name} has no split '{split}'; there are {', '.join(splits)}")
    return splits[split]


def _hub_problems(rows: Iterable[dict[str, Any]], split: str, configuration: str, name: str) -> list[Problem]:
    where = f"{name} {configuration}/{split} row"
    return [
        _problem(row, str(row.get("unique_id") or f"{split}/{configuration}/row-{number}"), where, number)
        for number, row in enumerate(rows)
    ]


def _revisions(text: str | None) -> tuple[str | None, str | None]:
    first, _, second = (text or "").partition("+")
    return first or None, second or None


def _commit(name: str, revision: str | None) -> str:
    """The commit itself; asks the Hub where a branch, or nothing, is given."""
    if revision and _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # no network, and what the Hub itself refuses

    try:
        return str(HfApi().dataset_info(name, revision=revision).sha)
    except (HTTPError, OSError, ValueError) as error:
        raise ProblemError(
            f"problems.hub: cannot ask the Hub for the commit of {name} ({type(error).__name__});"
            " set problems.hub_revision to commit+commit"
        ) from None
