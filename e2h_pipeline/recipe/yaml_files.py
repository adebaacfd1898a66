"""The one reader of YAML that people write: recipes and sweeps.

Scalars stay text until their field types them (`scalars`). The file is built from the parser's
events, with bounds on its size, depth and expanded aliases, so that any file gives data or one
error in bounded time. Sensors read these files every minute for all experiments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from e2h_pipeline.recipe.scalars import Plain
from e2h_pipeline.recipe.section import RecipeError

_MOST_BYTES = 1 << 16
_MOST_DEPTH = 32
_MOST_VALUES = 5_000
_LONGEST_NAME = 200
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


class _Refused(Exception):
    """YAML that people's files may not have."""


def yaml_files(folders: Iterable[Path]) -> list[Path]:
    """All NAME.yaml in some folders, by folder and name; whatever else has such a name is left out."""
    return [path for folder in folders for path in sorted(Path(folder).glob("*.yaml")) if path.is_file()]


def read_yaml(path: Path) -> Any:
    """The data of a file: mappings, lists and text.

    Raises:
        RecipeError: it cannot be read, is not UTF-8 or YAML, or is too large; in one line.
    """
    return parse_yaml(path, read_text(path))


def parse_yaml(path: Path, text: str) -> Any:
    """The data of a file's text: mappings, lists and text.

    Raises:
        RecipeError: it is not YAML, or has too much; in one line that names the file.
    """
    try:
        builder = _built(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise RecipeError(f"{path}: not valid YAML ({where}{error.problem or error.context})") from None
    except _Refused as error:
        raise RecipeError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter: PyYAML's int(), chr()
        raise RecipeError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not builder.documents or builder.root == "":
        raise RecipeError(f"{path}: the file is empty")
    return deepcopy(builder.root)


@lru_cache(maxsize=256)
def _built(text: str) -> _Builder:
    """YAML is most of the time of a recipe, and thousands of experiments share a file."""
    builder = _Builder()
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        builder.take(event)
    return builder


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        RecipeError: it cannot be read, is not UTF-8, or is too large; in one line.
    """
    if path.exists() and not path.is_file():
        raise RecipeError(f"{path}: {'a folder' if path.is_dir() else 'not a file'}; rename it")
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise RecipeError(f"{path}: larger than {_MOST_BYTES >> 10} KiB")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); mend its permissions") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None


@dataclass
class _Open:
    """A mapping or list that has not ended yet.

    Attributes:
        before: number of values in the file before it.
        name: the mapping's field that waits for its value.
    """

    value: dict[str, Any] | list[Any]
    anchor: str | None
    before: int
    name: str | None = None


@dataclass
class _Builder:
    """Builds data from YAML events, without recursion."""

    root: Any = None
    documents: int = 0
    _open: list[_Open] = field(default_factory=list)
    _anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    _values: int = 0

    def take(self, event: yaml.Event) -> None:
        """Take the next event."""
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise _refusal(event, "a second document; write one file for each")
            case yaml.ScalarEvent():
                self._take_scalar(event)
            case yaml.AliasEvent():
                if event.anchor not in self._anchors:
                    raise _refusal(event, f"*{event.anchor} stands for nothing before it")
                value, size = self._anchors[event.anchor]
                self._add(event, value, size)
            case yaml.CollectionStartEvent():
                self._begin(event)
            case yaml.CollectionEndEvent():
                done = self._open.pop()
                self._remember(done.anchor, done.value, self._values - done.before)

    def _take_scalar(self, event: yaml.ScalarEvent) -> None:
        _refuse_tag(event)
        if _UNPRINTABLE.search(event.value):
            raise _refusal(event, "a control character in a text")
        value = Plain(event.value) if event.style is None else str(event.value)
        self._add(event, value, 1)
        self._remember(event.anchor, value, 1)

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        _refuse_tag(event)
        if len(self._open) == _MOST_DEPTH:
            raise _refusal(event, f"nested deeper than {_MOST_DEPTH}")
        value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        before = self._values
        self._add(event, value, 1)
        self._open.append(_Open(value, event.anchor, before))

    def _add(self, event: yaml.Event, value: Any, size: int) -> None:
        """Put a value where it belongs: at the top, into a list, or as a field or its value."""
        self._values += size
        if self._values > _MOST_VALUES:
            raise _refusal(event, f"more than {_MOST_VALUES} values, counting what aliases repeat")
        if not self._open:
            self.root = value
            return
        parent = self._open[-1]
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.name is None:
            parent.name = _field_name(event, value, parent.value)
        else:
            parent.value[parent.name] = value
            parent.name = None

    def _remember(self, anchor: str | None, value: Any, size: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = (value, size)


def _field_name(event: yaml.Event, name: Any, fields: dict[str, Any]) -> str:
    if not isinstance(name, str):
        raise _refusal(event, "a field's name is a word")
    if len(name) > _LONGEST_NAME:
        raise _refusal(event, f"a field's name has more than {_LONGEST_NAME} characters")
    if name == "<<":
        raise _refusal(event, "merge keys (<<) are not YAML 1.2; write the fields, or use extends")
    if name in fields:
        raise _refusal(event, f"field '{name}' is given twice")
    return str(name)


def _refuse_tag(event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
    if event.tag not in (None, "!"):
        raise _refusal(event, f"the tag {event.tag}; leave it out, the field decides the type")


def _refusal(event: yaml.Event, why: str) -> _Refused:
    mark = event.start_mark
    return _Refused(f"line {mark.line + 1}, column {mark.column + 1}: {why}" if mark else why)
