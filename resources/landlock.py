"""The kernel's part of `artifacts.reads`: in a worker process, files that a stage does not declare
cannot be read by any library, whatever language it is written in.

Landlock (Linux 5.19) lets a process give up rights for itself and all processes that it starts.
It needs no privileges. It has only permissions, no refusals: a folder on the way to a closed place
is opened entry by entry. Other kernels have nothing like it; there the audit hook remains.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress

from e2h_pipeline.artifacts.reads import Reads, hidden_folders, is_below, libraries
from e2h_pipeline.grading.code.inside import landlock

_WITH_REFER = 2


def available() -> bool:
    """Whether this kernel has Landlock, switched on."""
    return landlock.interface() >= _WITH_REFER


def restrict(reads: Reads) -> bool:
    """Restrict this thread, and all threads and processes that it starts, to what `reads` allows.

    It cannot be undone. Call it before anything starts threads.

    Returns:
        False where the kernel has no Landlock; nothing is restricted then.

    Raises:
        OSError: the kernel refused.
    """
    if not available():
        return False
    readable = dict.fromkeys((*reads.open, *_readable(reads)), landlock.READ_FILE)
    landlock.restrict(landlock.READ_FILE | landlock.REFER, {"/": landlock.REFER, **readable})
    return True


def _readable(reads: Reads) -> Iterator[str]:
    """Places of libraries without the closed ones in them, the folders of modules, and hidden
    folders of the user."""
    everything = ("/", os.path.realpath(os.path.expanduser("~")))  # where a command was started, perhaps
    modules = (place for place in map(os.path.realpath, sys.path) if place not in everything)
    for place in (*libraries(), *hidden_folders(), *modules):
        yield from _without(place, reads.closed)


def _without(place: str, closed: Iterable[str]) -> Iterator[str]:
    """A folder; or its entries, where a closed place lies in it."""
    inside = [path for path in closed if is_below(path, [place])]
    if is_below(place, closed):
        return
    if not inside:
        yield place
        return
    with suppress(OSError):
        for entry in os.listdir(place):
            yield from _without(os.path.realpath(os.path.join(place, entry)), inside)
