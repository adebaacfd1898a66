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
    return {entry.name: entry.value for entry in entry_points(group=group)}


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
