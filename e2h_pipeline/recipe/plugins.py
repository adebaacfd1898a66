"""Methods that installed packages add, by their entry points: names only, until one is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any


@cache
def installed(group: str) -> Mapping[str, str]:
    """Word to `module:Name` of the entry points of a group (`e2h.algorithms`). Nothing is imported."""
    return {entry.name: entry.value for entry in entry_points(group=group)}


def options_of(group: str, word: str) -> Any:
    """The recipe section of an installed method, None where it has none of its own.

    It is `Options` of the class that its entry point names, or `options` of the value, as domains have it.

    Raises:
        KeyError: no package has that word.
    """
    module, _, name = installed(group)[word].partition(":")
    entry = getattr(importlib.import_module(module), name)
    return getattr(entry, "Options", None) or getattr(entry, "options", None)
