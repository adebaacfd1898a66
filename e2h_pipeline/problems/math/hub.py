"""MATH and MATH500 from the Hugging Face Hub: their records, and the commits that name their
versions."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from e2h_pipeline.problems.math.records import Source, problem_of_record, refuse_repeats
from e2h_pipeline.problems.records import Problem, ProblemError

if TYPE_CHECKING:
    from e2h_pipeline.recipe import MathProblems

HUB_BENCHMARK = "HuggingFaceH4/MATH-500"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECONDS = 60  # between two questions to the Hub for one commit: as often as the sensor `watch_files` looks


def hub_source(options: MathProblems) -> Source:
    """The records of `problems.hub` and of MATH500.

    Raises:
        ProblemError: they cannot be loaded, or a record cannot be used.
    """
    assert options.hub is not None
    names = options.hub, HUB_BENCHMARK
    commits = map(commit_of, names, revisions(options.hub_revision))  # of the fingerprint, not the newest
    return read_hub(*names, *commits)


def read_hub(
    name: str, benchmark: str, revision: str | None = None, benchmark_revision: str | None = None
) -> Source:
    """MATH and MATH500 through `datasets`, from Hub names or folders that `datasets` can read.

    Raises:
        ProblemError: they cannot be loaded, or a record cannot be used.
    """
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
    refuse_repeats(math, name)
    refuse_repeats(found, benchmark)
    return Source(math, found)


def _hub_tables(name: str, revision: str | None) -> list[tuple[str, Mapping[str, Iterable[Any]]]]:
    """(configuration, splits); `default` alone where a data set has it, for it holds all
    subjects."""
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
        problem_of_record(
            row, str(row.get("unique_id") or f"{split}/{configuration}/row-{number}"), where, number
        )
        for number, row in enumerate(rows)
    ]


def revisions(text: str | None) -> tuple[str | None, str | None]:
    """Commits of MATH and of MATH500 from `problems.hub_revision`: `commit`, `commit+commit` or
    nothing."""
    first, _, second = (text or "").partition("+")
    return first or None, second or None


def commit_of(name: str, revision: str | None) -> str:
    """The commit itself. Where a branch, or nothing, is given, the Hub is asked, at most once a
    minute.

    Raises:
        ProblemError: the Hub does not answer, or has no such data set.
    """
    if revision and _COMMIT.fullmatch(revision):
        return revision
    found = _asked(name, revision, int(time.monotonic() / _SECONDS))
    if isinstance(found, ProblemError):
        raise found
    return found


@lru_cache(maxsize=256)
def _asked(name: str, revision: str | None, _minute: int) -> str | ProblemError:
    """The commit, or why there is none. Plans of a sweep ask for every member, so a refusal is
    remembered too."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # no network, and what the Hub itself refuses

    try:
        return str(HfApi().dataset_info(name, revision=revision).sha)
    except (HTTPError, OSError, ValueError) as error:
        return ProblemError(
            f"problems.hub: cannot ask the Hub for the commit of {name} ({type(error).__name__});"
            " set problems.hub_revision to commit+commit"
        )
