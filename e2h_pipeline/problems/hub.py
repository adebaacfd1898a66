"""Data sets of the Hugging Face Hub as sources of problems: their tables, and the commits that name
their versions."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from e2h_pipeline.problems.records import ProblemError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECONDS = 60  # between two questions to the Hub for one commit: as often as the sensor `watch_files` looks


def hub_tables(
    name: str, revision: str | None, whole: Sequence[str]
) -> list[tuple[str, Mapping[str, Iterable[Any]]]]:
    """(configuration, splits) of a Hub name or of a folder that `datasets` can read.

    Args:
        whole: configurations that hold all problems by themselves. The first that the data set has is
            read alone; without one, all its configurations are read.

    Raises:
        ProblemError: it cannot be loaded.
    """
    from datasets import get_dataset_config_names, load_dataset

    try:
        names = get_dataset_config_names(name, revision=revision)
        chosen = [each for each in whole if each in names][:1] or sorted(names)
        return [(each, load_dataset(name, each, revision=revision)) for each in chosen]
    except (OSError, ValueError) as error:  # not found, no network, no such commit
        raise ProblemError(
            f"problems.hub: cannot load {name} ({type(error).__name__}: {error}); check name, commit and"
            " network, or set problems.path to a local folder"
        ) from None


def split_of(splits: Mapping[str, Iterable[Any]], split: str, name: str) -> Iterable[Any]:
    """A split of a data set.

    Raises:
        ProblemError: there is none of this name.
    """
    if split not in splits:
        raise ProblemError(f"problems.hub: {name} has no split '{split}'; there are {', '.join(splits)}")
    return splits[split]


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
            " set problems.hub_revision to the commit (40 digits) of each data set"
        )
