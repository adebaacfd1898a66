"""System calls of Landlock: a process gives up rights to files, for itself and all that it starts.

Landlock (Linux 5.13) needs no privileges, and one restriction can be put inside another. It has
permissions only, no refusals.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

CREATE, ADD, RESTRICT = 444, 445, 446  # system calls, the same on every architecture
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REMOVE_FILE, MAKE_REG = 1 << 5, 1 << 8
REFER, TRUNCATE = 1 << 13, 1 << 14
"""REFER: to link or move files between folders, which version 1 always refuses."""
_VERSION = 1  # flag: ask for the version of the interface
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # version of the interface -> number of rights to files
_NETWORK, _SCOPES = 4, 6  # versions that brought them


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def interface() -> int:
    """Version of the kernel's Landlock; 0 where there is none, or it is switched off."""
    return max(0, _call(CREATE, None, ctypes.c_size_t(0), _VERSION)) if sys.platform == "linux" else 0


def restrict(handled: int, allowed: Mapping[str, int]) -> None:
    """Give up the `handled` rights to files, but for those `allowed` at a path and below it.

    Paths that are not there are left out.

    Raises:
        OSError: the kernel refused.
    """
    _restrict(_Ruleset(handled, 0, 0), 8, allowed)


def restrict_all(allowed: Mapping[str, int]) -> None:
    """Give up every right that this kernel's Landlock knows, to files, ports, sockets and signals, but for
    those `allowed`.

    Raises:
        OSError: the kernel refused, or has no Landlock.
    """
    version = interface()
    handled = (1 << _RIGHTS.get(version, _RIGHTS[5])) - 1
    network = 3 if version >= _NETWORK else 0
    scopes = 3 if version >= _SCOPES else 0
    size = 24 if version >= _SCOPES else 16 if version >= _NETWORK else 8
    kept = {path: rights & handled for path, rights in allowed.items()}
    _restrict(_Ruleset(handled, network, scopes), size, kept)


def _restrict(ruleset: _Ruleset, size: int, allowed: Mapping[str, int]) -> None:
    rules = _checked(CREATE, ctypes.byref(ruleset), ctypes.c_size_t(size), 0)
    try:
        for path, rights in allowed.items():
            _allow(rules, path, rights)
        if ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        _checked(RESTRICT, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there
    try:
        if not os.path.isdir(path):
            rights &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
        rule = _PathBeneath(rights, handle)
        _checked(ADD, rules, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(handle)


def _checked(number: int, *arguments: object) -> int:
    found = _call(number, *arguments)
    if found < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return found


def _call(number: int, *arguments: object) -> int:
    return int(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))
