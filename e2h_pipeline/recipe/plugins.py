"""Methods that installed packages add, by entry point; modules are imported only when used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any


@cache
def installed(group: str) -> Mapping[str, str]:
    """Word to `module:Name` of a group's entry points (`e2h.algorithms`). Imports nothing."""
    return {entry.name: entry.value for entry in _entries().select(group=group)}


@cache
def _entries() -> Any:  # its type is another in Python 3.12
    """Of all installed packages. Their files are looked through once, which takes 0.04 s a time."""
    return entry_points()


def forget() -> None:
    """Look for installed packages anew, after one was added to this process."""
    _entries.cache_clear()
    installed.cache_clear()


def options_of(group: str, word: str) -> Any:
    """The recipe section of an installed method, None where it has none of its own.

    An entry point that names a class has it as `Options`, one that names a value (a domain) as
    `options`.

    Raises:
        KeyError: no package has that word.
    """
    module, _, name = installed(group)[word].partition(":")
    entry = getattr(importlib.import_module(module), name)
    return getattr(entry, "Options", None) or getattr(entry, "options", None)
