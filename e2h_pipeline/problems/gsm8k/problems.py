"""GSM8K from a local folder or the Hub: its training set as the pool, its test set as the benchmark.

Local folder: `train` and `test`, each as `.jsonl` or `.jsonl.gz`, as OpenAI published them. Hub:
`problems.hub` names a data set with the same columns and splits (openai/gsm8k), and
`problems.hub_revision` its commit. GSM8K has no ids: a problem is called `train/N` or `test/N`, where
N counts the records from 0, as published samples do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.problems.files import file_hashes, part_file, parts_folder
from e2h_pipeline.problems.gsm8k.records import problem_of_record
from e2h_pipeline.problems.hub import commit_of, hub_tables, split_of
from e2h_pipeline.problems.jsonl import read_jsonl
from e2h_pipeline.problems.records import Problem, ProblemError, ProblemPool

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Gsm8kProblems

_PARTS = ("train", "test")
_CONFIGURATIONS = ("main", "default")  # not `socratic`: its solutions ask a question before each step
_PUBLISHED = {
    "train": {1: 1_961, 2: 2_149, 3: 1_659, 4: 955, 5: 749},
    "test": {1: 326, 2: 371, 3: 297, 4: 175, 5: 150},
}


class Gsm8kReader:
    """GSM8K's `ProblemReader`."""

    def pool(self, options: Gsm8kProblems) -> ProblemPool:
        """The training set and the test set.

        Raises:
            ProblemError: no data, a record that cannot be used, or counts that are not the
                published ones while `strict_counts` is set.
        """
        found = _from_hub(options) if options.hub else _from_folder(_folder(options))
        if options.strict_counts:
            _check_counts(found)
        train, test = (found[part] for part in _PARTS)
        return ProblemPool(
            train, test, {"train_by_steps": _by_steps(train), "test_by_steps": _by_steps(test)}
        )

    def fingerprint(self, options: Gsm8kProblems) -> Mapping[str, str]:
        """SHA-256 of each local file, or the commit of the Hub data set.

        Raises:
            ProblemError: no data.
        """
        if options.hub:
            return {options.hub: commit_of(options.hub, options.hub_revision)}
        return file_hashes(self.files(options))

    def files(self, options: Gsm8kProblems) -> Sequence[Path]:
        """The local files; none where the source is the Hub.

        Raises:
            ProblemError: one is missing.
        """
        return [] if options.hub else [part_file(_folder(options), part) for part in _PARTS]


def _folder(options: Gsm8kProblems) -> Path:
    return parts_folder(options.path, options.source, _PARTS)


def _from_folder(folder: Path) -> dict[str, list[Problem]]:
    files = {part: part_file(folder, part) for part in _PARTS}
    return {part: _problems(read_jsonl(path), part, path) for part, path in files.items()}


def _from_hub(options: Gsm8kProblems) -> dict[str, list[Problem]]:
    assert options.hub is not None
    commit = commit_of(options.hub, options.hub_revision)  # that of the fingerprint, not the newest
    return read_hub(options.hub, commit)


def read_hub(name: str, revision: str | None = None) -> dict[str, list[Problem]]:
    """The problems of each split through `datasets`, from a Hub name or a folder that `datasets` can
    read.

    Raises:
        ProblemError: they cannot be loaded, or a record cannot be used.
    """
    tables = [splits for _, splits in hub_tables(name, revision, _CONFIGURATIONS)]

    def rows(part: str) -> Iterator[tuple[int, dict[str, Any]]]:
        return enumerate(row for splits in tables for row in split_of(splits, part, name))

    return {part: _problems(rows(part), part, f"{name} {part} row") for part in _PARTS}


def _problems(records: Iterable[tuple[int, dict[str, Any]]], part: str, where: Path | str) -> list[Problem]:
    """Problems of numbered records.

    Raises:
        ProblemError: one cannot be used, or there is none: a file cut to nothing is no empty split.
    """
    found = [
        problem_of_record(record, f"{part}/{place}", where, number)
        for place, (number, record) in enumerate(records)
    ]
    if not found:
        raise ProblemError(f"{where}: no problem in it; put the whole data back")
    return found


def _by_steps(problems: Iterable[Problem]) -> dict[str, int]:
    """How many problems have solutions of so many steps: levels 1 and 5 pool several numbers."""
    counts = Counter(len(problem.steps) for problem in problems)
    return {str(steps): counts[steps] for steps in sorted(counts)}


def _check_counts(found: Mapping[str, Sequence[Problem]]) -> None:
    counts = {part: Counter(problem.level for problem in problems) for part, problems in found.items()}
    wrong = [
        f"{part} level {level}: {counts[part][level]} problems instead of {published}"
        for part, levels in _PUBLISHED.items()
        for level, published in levels.items()
        if counts[part][level] != published
    ]
    if wrong:
        raise ProblemError(
            f"not the published GSM8K: {'; '.join(wrong)}. Use the full data, or set problems.strict_counts: false"
        )
