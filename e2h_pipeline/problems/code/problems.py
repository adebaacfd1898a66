"""Programming problems from a local folder: `train` is the pool and `test` the benchmark, each as `.jsonl` or
`.jsonl.gz`, in any of the formats of `records`.

A problem is called by its `problem_id`, `question_id` or `task_id`, after the name of its part. Problems
without tests are left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.problems.code.records import NoTests, problem_of_record
from e2h_pipeline.problems.files import file_hashes, part_file, parts_folder
from e2h_pipeline.problems.jsonl import read_jsonl
from e2h_pipeline.problems.records import Problem, ProblemError, ProblemPool

if TYPE_CHECKING:
    from e2h_pipeline.recipe import CodeProblems

_PARTS = ("train", "test")
_NAMES = ("problem_id", "question_id", "task_id", "id")


class CodeReader:
    """The domain's `ProblemReader`."""

    def pool(self, options: CodeProblems) -> ProblemPool:
        """Both files.

        Raises:
            ProblemError: no data, a record that cannot be used, or a name that is there twice.
        """
        left_out: Counter[str] = Counter()
        train, test = (
            _problems(file, part, left_out) for file, part in zip(self.files(options), _PARTS, strict=True)
        )
        return ProblemPool(train, test, {"without_tests": dict(left_out)})

    def fingerprint(self, options: CodeProblems) -> Mapping[str, str]:
        """SHA-256 of each file."""
        return file_hashes(self.files(options))

    def files(self, options: CodeProblems) -> Sequence[Path]:
        """The files.

        Raises:
            ProblemError: one is missing.
        """
        folder = parts_folder(options.path, options.source, _PARTS)
        return [part_file(folder, part) for part in _PARTS]


def _problems(path: Path, part: str, left_out: Counter[str]) -> list[Problem]:
    found: dict[str, Problem] = {}
    for line, record in read_jsonl(path):
        given = next((record[name] for name in _NAMES if record.get(name) not in (None, "")), line)
        name = f"{part}/{given}"
        if name in found:
            raise ProblemError(f"{path}:{line}: {name} is there more than once; keep one record of each")
        try:
            found[name] = problem_of_record(record, name, path, line)
        except NoTests:
            left_out[part] += 1
    if not found:
        raise ProblemError(f"{path}: no problem with tests in it; put the whole data back")
    return list(found.values())
