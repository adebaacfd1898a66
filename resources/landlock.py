"""The kernel's part of `artifacts.reads`: in a worker process, files that a stage does not declare
cannot be read by any library, whatever language it is written in.

Landlock (Linux 5.19) lets a process give up rights for itself and all processes that it starts.
It needs no privileges. It has only permissions, no refusals: a folder on the way to a closed place
is opened entry by entry. Other kernels have nothing like it; there the audit hook remains.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress

from e2h_pipeline.artifacts.reads import Reads, hidden_folders, is_below, libraries

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls, the same on every architecture
_VERSION = 1  # flag: ask for the version of the interface
_PATH_BENEATH = 1
_READ_FILE = 1 << 2
_REFER = 1 << 13  # to link or move files between folders, which version 1 always refuses
_WITH_REFER = 2
_NO_NEW_PRIVILEGES = 38


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def available() -> bool:
    """Whether this kernel has Landlock, switched on."""
    return sys.platform == "linux" and _call(_CREATE, None, ctypes.c_size_t(0), _VERSION) >= _WITH_REFER


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
    rules = _checked(_CREATE, ctypes.byref(_Ruleset(_READ_FILE | _REFER)), ctypes.c_size_t(8), 0)
    try:
        _allow(rules, "/", _REFER)
        for path in dict.fromkeys((*reads.open, *_readable(reads))):
            _allow(rules, path, _READ_FILE)
        if ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        _checked(_RESTRICT, rules, 0)
    finally:
        os.close(rules)
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


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there
    try:
        rule = _PathBeneath(rights, handle)
        _checked(_ADD, rules, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(handle)


def _checked(number: int, *arguments: object) -> int:
    found = _call(number, *arguments)
    if found < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return found


def _call(number: int, *arguments: object) -> int:
    return int(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))
