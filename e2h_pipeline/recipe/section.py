"""Sections of a recipe, and sections that are a union keyed by the method's name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from e2h_pipeline.recipe.plugins import installed, options_of
from e2h_pipeline.recipe.scalars import kinds, typed


class RecipeError(ValueError):
    """A recipe file, key or override that cannot be used: all that is wrong, each with its mend.

    `args` has one line for each.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class Section(BaseModel):
    """A part of a recipe. Unknown fields are refused; values never change after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def composed_of(self) -> tuple[Section, ...]:
        """Sections of the same family inside this one: the methods that its method is made of."""
        return ()

    @model_validator(mode="before")
    @classmethod
    def _typed_by_field(cls, data: Any) -> Any:
        """Text of files and keys as the type of its field."""
        if not isinstance(data, Mapping):
            return data
        found, wrong = {}, {}
        for name, value in data.items():
            try:
                found[name] = typed(value, _kinds(cls, name))
            except ValueError as error:
                wrong[name] = PydanticCustomError("scalar", "{why}", {"why": str(error)})
        return found if not wrong else refuse(cls, data, wrong)


S = TypeVar("S", bound=Section)


def with_inner(sections: Iterable[S]) -> Iterator[S]:
    """Sections of a family, each followed by those that it is composed of, however deep."""
    for section in sections:
        yield section
        yield from with_inner(cast(tuple[S, ...], section.composed_of()))


@dataclass(frozen=True)
class Family:
    """A section with different fields for each method: a union keyed by the method's name.

    A field of another method is an error. Installed packages add methods: their entry point names
    an object whose `Options` is the section, a subclass of `base`; without `Options` the method has
    the fields of `plain` alone.

    Attributes:
        section: name in the recipe.
        tag: field that names the method.
        default: the method where the recipe names none.
        group: entry points of installed packages.
        base: fields that every method has.
        members: method to section, those of this project.
        plain: section of an installed method without `Options`; `base` where None.
    """

    section: str
    tag: str
    default: str
    group: str
    base: type[Section]
    members: Mapping[str, type[Section]]
    plain: type[Section] | None = None

    def words(self) -> tuple[str, ...]:
        """All methods, this project's first."""
        return (*self.members, *sorted(installed(self.group).keys() - self.members.keys()))

    def member(self, word: str) -> type[Section]:
        """The section of a method.

        Raises:
            RecipeError: there is no such method, or an installed one whose options do not fit.
        """
        if word in self.members:
            return self.members[word]
        if word not in installed(self.group):
            raise RecipeError(
                f"no '{word}'{did_you_mean(word, self.words())}; there are {', '.join(self.words())}"
            )
        try:
            options = options_of(self.group, word) or self.plain or self.base
        except Exception as error:  # noqa: BLE001 -- a package that breaks must stop its own recipes only
            why = f"{type(error).__name__}: {error}"
            raise RecipeError(f"'{word}' ({self.group}) cannot be loaded: {why}") from None
        if not (isinstance(options, type) and issubclass(options, self.base)):
            raise RecipeError(
                f"Options of '{word}' ({self.group}) must be a subclass of {self.base.__name__}"
            )
        return options

    def parse(self, value: Any) -> Any:
        """A mapping as the section of the method that it names; for pydantic."""
        if isinstance(value, self.base):
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError("mapping", "a mapping of fields is expected")
        word = value.get(self.tag, self.default)
        try:
            section = self.member(str(word))
        except RecipeError as error:
            raise PydanticCustomError(
                "method", "{tag}: {why}", {"tag": self.tag, "why": str(error)}
            ) from None
        data = {**value, self.tag: word}
        wrong = {
            field: PydanticCustomError(
                "other_method",
                "{field} is a field of {tag}={owners}, not of {tag}={word}",
                {"field": field, "tag": self.tag, "owners": _listed(owners), "word": word},
            )
            for field in value
            if field not in section.model_fields and (owners := self._owners(field))
        }
        return section.model_validate(data) if not wrong else refuse(section, data, wrong)

    def shared(self, one: str, other: str) -> frozenset[str]:
        """Fields that two methods inherit from the same section; a recipe keeps them when its
        method changes."""
        first, second = self.member(one), self.member(other)
        for ancestor in first.__mro__:
            if issubclass(ancestor, Section) and issubclass(second, ancestor):
                return frozenset(ancestor.model_fields)
        return frozenset()

    def _owners(self, field: str) -> list[str]:
        return [word for word, section in self.members.items() if field in section.model_fields]


def refuse(
    section: type[BaseModel], data: Mapping[str, Any], wrong: Mapping[str, PydanticCustomError]
) -> NoReturn:
    """Refuse the data of a section for all its errors at once.

    Args:
        wrong: field -> what was found before pydantic has seen the data; it is asked about the others.
    """
    lines = [InitErrorDetails(type=why, loc=(name,), input=data[name]) for name, why in wrong.items()]
    try:
        section.model_validate({name: value for name, value in data.items() if name not in wrong})
    except ValidationError as error:
        for one in error.errors():
            if one["loc"] and one["loc"][0] not in wrong:  # a field left out is no error of the file
                why = PydanticCustomError(
                    cast(Any, one["type"]), "{why}", {"why": one["msg"]} | one.get("ctx", {})
                )
                lines.append(InitErrorDetails(type=why, loc=one["loc"], input=one["input"]))
    raise ValidationError.from_exception_data(section.__name__, lines)


@cache
def _kinds(section: type[Section], name: str) -> frozenset[type]:
    field = section.model_fields.get(name)
    return kinds(field.annotation) if field else frozenset()


def known_word(word: str, own: tuple[str, ...], group: str) -> str:
    """A word, if this project or an installed package has it.

    Args:
        own: words of this project.
        group: entry points of installed packages.

    Raises:
        ValueError: nothing has it.
    """
    known = (*own, *sorted(installed(group)))
    if word not in known:
        raise ValueError(f"no '{word}'{did_you_mean(word, known)}; there are {', '.join(known)}")
    return word


def did_you_mean(word: str, known: Any) -> str:
    """`; did you mean ...?` where a known word is close, else an empty text."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def _listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
