"""One experiment is one recipe: typed, documented, named by a key a person can read.

A key is a recipe's file name plus overrides, `ladder/rl.updates=50/seed=1`. It is the Dagster
partition key and says all there is to say: the file, the key and the artifacts are the whole
experiment. Dagster does not validate dynamic partition keys, and keys become paths and tags, so
`Recipe.from_key` is strict. A stage sees only the sections it declares (`Recipe.slice`); what it
cannot read cannot shape its result, which is what makes the cache key honest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from e2h_pipeline.recipe.keys import (
    RECIPE_FOLDER,
    explain_validation,
    load_recipe_data,
    parse_value,
    set_override,
    split_key,
)
from e2h_pipeline.recipe.section import RecipeError, Section
from e2h_pipeline.recipe.sections.evaluation import Evaluation, Rerank
from e2h_pipeline.recipe.sections.policy import Base, EasySamples, Sampling, Sft
from e2h_pipeline.recipe.sections.problems import Problems, Solutions
from e2h_pipeline.recipe.sections.reward import EarlyStop, Labels, Reward, RewardTraining, Scoring
from e2h_pipeline.recipe.sections.rl import Rl

_REMOTE_CODE = "base.trust_remote_code"
_WHOSE_CODE = ("base.model", "base.revision")


class Recipe(Section):
    """All knobs of one experiment. `seed` moves every random draw that is not the world's."""

    name: str = Field(description="File name of the recipe, without .yaml.")
    description: str = Field("", description="One sentence for people.")
    strict: bool = Field(
        True,
        description="False marks runs that may see hard answers: ceilings, which feed only PGR, and controls.",
    )
    seed: int = Field(0, ge=0, description="Seed of training and sampling.")
    problems: Problems = Field(default_factory=Problems)
    base: Base = Field(default_factory=Base)
    solutions: Solutions = Field(default_factory=Solutions)
    sft: Sft = Field(default_factory=Sft)
    easy_samples: EasySamples = Field(default_factory=EasySamples)
    labels: Labels = Field(default_factory=Labels)
    reward: Reward = Field(default_factory=Reward)
    prm: RewardTraining = Field(default_factory=RewardTraining)
    orm: RewardTraining = Field(default_factory=RewardTraining)
    oprm: RewardTraining = Field(default_factory=RewardTraining)
    pairwise: RewardTraining = Field(default_factory=RewardTraining)
    sampling: Sampling = Field(default_factory=Sampling)
    scoring: Scoring = Field(default_factory=Scoring)
    early_stop: EarlyStop = Field(default_factory=EarlyStop)
    rerank: Rerank = Field(default_factory=Rerank)
    rl: Rl = Field(default_factory=Rl)
    evaluation: Evaluation = Field(default_factory=Evaluation)

    @model_validator(mode="after")
    def _firewall(self) -> Recipe:
        if self.strict and not set(self.problems.easy_levels) <= {1, 2, 3}:
            raise ValueError("levels 4-5 in problems.easy_levels need strict: false (a ceiling recipe)")
        if self.strict and self.problems.hard_answers:
            raise ValueError("problems.hard_answers needs strict: false (a control)")
        return self

    @classmethod
    def from_key(cls, key: str, folders: Iterable[Path] = ()) -> Recipe:
        """Parse `name/field=value/...` into a recipe.

        Recipe files are looked up in `folders` first, then among the shipped ones.

        Raises:
            RecipeError: unknown recipe or field, bad value, a key that is not well formed, or one that decides whose
                Python runs here.
        """
        name, overrides = split_key(key)
        data = load_recipe_data(name, [*folders, RECIPE_FOLDER])
        for field, text in overrides.items():
            set_override(data, field, parse_value(text), key)
        try:
            recipe = cls.model_validate({**data, "name": name})
        except ValidationError as error:
            raise RecipeError(f"recipe key '{key}': {explain_validation(error)}") from None
        _refuse_remote_code(recipe, overrides)
        return recipe

    def canonical_json(self) -> str:
        """The recipe as one sorted JSON text; equal recipes give equal texts."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def slice(self, sections: Iterable[str]) -> RecipeSlice:
        """The view a stage gets: only the named top-level fields can be read."""
        return RecipeSlice(self, tuple(sections))


class RecipeSlice:
    """The part of a recipe one stage may read. Reading anything else is an error, not a surprise."""

    def __init__(self, recipe: Recipe, sections: tuple[str, ...]) -> None:
        unknown = [s for s in sections if s not in Recipe.model_fields]
        if unknown:
            raise RecipeError(f"no such recipe section: {', '.join(unknown)}")
        self._recipe = recipe
        self.sections = sections

    def __getattr__(self, name: str) -> Any:
        if name in Recipe.model_fields:
            if name not in self.sections:
                raise RecipeError(
                    f"this stage reads recipe.{name}, which its slice {list(self.sections)} does not name; add it there"
                )
            return getattr(self._recipe, name)
        raise AttributeError(name)

    def as_dict(self) -> dict[str, Any]:
        """The slice as plain JSON data, for keys and manifests."""
        return self._recipe.model_dump(mode="json", include=set(self.sections))


def _refuse_remote_code(recipe: Recipe, overrides: Mapping[str, str]) -> None:
    """A file says whose Python runs here, and of which model; a key, which anyone who reaches Dagster's page may type,
    says neither."""
    named = _WHOSE_CODE if recipe.base.trust_remote_code else ()
    for field in (_REMOTE_CODE, *named):
        if field in overrides:
            raise RecipeError(
                f"{field} cannot be set in a key, because it decides whose Python runs here: write a recipe file that "
                f"says `extends: {recipe.name}` and sets it"
            )
