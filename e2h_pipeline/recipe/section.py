"""TODO: docstring."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RecipeError(ValueError):
    """A recipe file, key or override that cannot be used; the message names the mend."""


class Section(BaseModel):
    """A part of a recipe. Unknown fields are refused; values never change after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True)
