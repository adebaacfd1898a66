"""One experiment is one recipe: typed, documented, named by a key a person can read.

A key is a recipe's file name plus overrides, `ladder/rl.updates=50/seed=1`. It is the Dagster
partition key. The file, the key and the artifacts are the whole experiment. Dagster does not
validate dynamic partition keys, and keys become paths and tags, so `Recipe.from_key` is strict. A
stage sees only the sections it declares (`Recipe.slice`). Other fields cannot shape its result, so
the cache key is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from e2h_pipeline.recipe.errors import explained, last_to_set
from e2h_pipeline.recipe.families import (
    AnyProblems,
    AnyReward,
    AnyRl,
    AnySamples,
    AnySearch,
    AnySolutions,
    LabelSources,
    Searches,
)
from e2h_pipeline.recipe.keys import (
    RECIPE_FOLDER,
    canonical_key,
    joined_key,
    split_key,
)
from e2h_pipeline.recipe.layers import (
    FileLayer,
    Layer,
    laid_together,
    origins,
    override_layer,
    recipe_files,
)
from e2h_pipeline.recipe.old_spellings import new_spelling
from e2h_pipeline.recipe.scalars import usual_number
from e2h_pipeline.recipe.section import RecipeError, Section
from e2h_pipeline.recipe.sections.evaluation import Evaluation, Rerank
from e2h_pipeline.recipe.sections.human_steps import HumanSteps
from e2h_pipeline.recipe.sections.labels import CheckerLabels
from e2h_pipeline.recipe.sections.policy import Base, EasySamples, Sampling, Sft
from e2h_pipeline.recipe.sections.problems import LadderProblems, ReferenceSolutions
from e2h_pipeline.recipe.sections.reward import EarlyStop, OutsideReward, PrmReward, Scoring
from e2h_pipeline.recipe.sections.rl import PpoRl
from e2h_pipeline.recipe.sections.samples import PolicySamples
from e2h_pipeline.recipe.sections.search import IndependentSearch, SearchComparison

_COMPACT = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_REMOTE_CODE = "base.trust_remote_code"
_WHOSE_CODE = ("base.model", "base.revision")


class Recipe(Section):
    """All fields of one experiment. `seed` is the seed of every random draw except the world's."""

    name: str = Field(description="File name of the recipe, without .yaml.")
    description: str = Field("", description="One sentence for people.")
    strict: bool = Field(
        True,
        description="False marks runs that may see hard answers: ceilings, which feed only PGR, and controls.",
    )
    seed: int = Field(0, ge=0, description="Seed of training and sampling.")
    scope: Literal["evaluator", "reranking", "pipeline"] = Field(
        "pipeline",
        description="How far the experiment goes. evaluator: labels, evaluator, and its judgement of steps that people "
        "labelled; no policy and no samples. reranking: also the sample pool and its reranking. pipeline: everything.",
    )
    problems: AnyProblems = Field(default_factory=LadderProblems)
    base: Base = Field(default_factory=Base)
    solutions: AnySolutions = Field(default_factory=ReferenceSolutions)
    sft: Sft = Field(default_factory=Sft)
    easy_samples: EasySamples = Field(default_factory=EasySamples)
    labels: LabelSources = Field(default_factory=lambda: (CheckerLabels(),))
    reward: AnyReward = Field(default_factory=PrmReward)
    samples: AnySamples = Field(default_factory=PolicySamples)
    sampling: Sampling = Field(default_factory=Sampling)
    search: AnySearch = Field(default_factory=IndependentSearch)
    searches: Searches = ()
    search_comparison: SearchComparison = Field(default_factory=SearchComparison)
    scoring: Scoring = Field(default_factory=Scoring)
    early_stop: EarlyStop = Field(default_factory=EarlyStop)
    human_steps: HumanSteps = Field(default_factory=HumanSteps)
    rerank: Rerank = Field(default_factory=Rerank)
    rl: AnyRl = Field(default_factory=PpoRl)
    evaluation: Evaluation = Field(default_factory=Evaluation)

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        """What sections ask of each other, all of it at once."""
        rules = (
            self._firewall,
            self._named_evaluators,
            self._something_to_judge,
            self._nothing_is_drawn,
            self._search_fits,
            self._searches_compare,
        )
        if found := [why for rule in rules for why in rule()]:
            lines = [
                InitErrorDetails(type=PydanticCustomError("rule", "{why}", {"why": why}), input=None)
                for why in found
            ]
            raise ValidationError.from_exception_data("Recipe", lines)
        return self

    def _firewall(self) -> Iterator[str]:
        beyond = sorted(set(self.problems.easy_levels) - set(self.problems.supervisable_levels))
        if self.strict and beyond:
            yield (
                f"level {', '.join(map(str, beyond))} in problems.easy_levels needs strict: false (a ceiling recipe)"
            )
        if self.strict and self.problems.hard_answers:
            yield "problems.hard_answers needs strict: false (a control)"
        if self.strict and not self.reward.easy_only:
            yield (
                f"reward.kind={self.reward.kind} needs strict: false, because nobody here knows what others trained it on"
            )

    def _named_evaluators(self) -> Iterator[str]:
        if isinstance(self.reward, OutsideReward) and not self.reward.evaluator:
            yield "reward.evaluator: name a folder or a Hub name"

    def _something_to_judge(self) -> Iterator[str]:
        if self.scope == "evaluator" and not self.human_steps.sources:
            yield ("scope: evaluator judges steps that people labelled: name some in human_steps.sources")

    def _nothing_is_drawn(self) -> Iterator[str]:
        """Samples that are supplied are not our policy's: they are reranked, and that is all."""
        if self.samples.drawn:
            return
        source = f"with samples.source={self.samples.source} nothing is drawn"
        if self.scope == "pipeline":
            yield f"{source} by our policy, so there is none to go on with: set scope: reranking"
        if self.early_stop.enabled:
            yield f"{source}, and early_stop.enabled gives samples up while they are drawn"
        if self.search.method != IndependentSearch().method:
            yield f"{source}, and search.method={self.search.method} is a way to draw"

    def _search_fits(self) -> Iterator[str]:
        method, together, samples = self.search.method, self.search.together, self.sampling.samples
        if samples % together:
            yield (
                f"search.method={method} finds {together} samples together, and sampling.samples={samples} is no "
                f"multiple of {together}"
            )
        for section in (self.search, *self.searches):
            if section.reward_kinds and self.reward.kind not in section.reward_kinds:
                yield (
                    f"search method {section.method} asks an evaluator of reward.kind={' or '.join(section.reward_kinds)}, "
                    f"and this recipe has {self.reward.kind}"
                )
        if self.search.prunes and self.early_stop.enabled:
            yield (
                f"search.method={method} drops beginnings itself: set early_stop.enabled=false, or "
                "search.method=independent"
            )

    def _searches_compare(self) -> Iterator[str]:
        options, labels = self.search_comparison, [search.label for search in self.searches]
        if len(set(labels)) < len(labels):
            yield "searches: two of them are the same"
        for search in self.searches:
            if options.samples % search.together:
                yield (
                    f"searches: {search.label} finds {search.together} samples together, and "
                    f"search_comparison.samples={options.samples} is no multiple of {search.together}"
                )
        if self.searches and (self.scope == "evaluator" or not self.samples.drawn):
            yield "searches: nothing is drawn by our policy here, so there is nothing to search"
        if self.searches and options.policy == "rl" and self.scope != "pipeline":
            yield "search_comparison.policy=rl needs scope: pipeline, which makes that policy"

    @model_validator(mode="after")
    def _domain_decides(self) -> Recipe:
        """The domain sets the fields that the evaluation leaves open."""
        evaluation, problems = self.evaluation, self.problems
        open_fields = {
            "grader": evaluation.grader or problems.grader,
            "easy_levels": evaluation.easy_levels or problems.supervisable_levels,
        }
        self.__dict__["evaluation"] = evaluation.model_copy(update=open_fields)  # the model is frozen
        return self

    @classmethod
    def from_key(cls, key: str, folders: Iterable[Path] = ()) -> Recipe:
        """Parse `name/field=value/...` into a recipe.

        Recipe files are looked up in `folders` first, then among the shipped ones.

        Raises:
            RecipeError: unknown recipe or field, bad value, malformed key, or a key that sets a
                field which can run a model's Python.
        """
        name, overrides = split_key(key)
        files, layers = _layers(key, folders)
        data, wrong = laid_together([layer for _, layer in layers])
        named = [str(file.path) for file in files]
        problems = [
            *(f"{file.path}: {field} is now {new_spelling(field)}" for file in files for field in file.moved),
            *(last_to_set(section, layers, named) + why for section, why in wrong.items()),
        ]
        try:
            recipe = cls.model_validate({**data, "name": name})
        except ValidationError as error:
            problems += explained(error, cls, data, origins(layers), named, whole=not wrong)
        if problems:
            raise RecipeError(*(f"recipe key '{key}': {why}" for why in dict.fromkeys(problems)))
        _refuse_remote_code(recipe, overrides)
        return recipe

    def canonical_json(self) -> str:
        """The recipe as one sorted JSON text; equal recipes give equal texts."""
        return _COMPACT.encode(self.model_dump(mode="json"))

    def texts(self) -> Mapping[str, str]:
        """Each top-level field as JSON text; equal fields give equal texts."""
        return {name: _COMPACT.encode(value) for name, value in self.model_dump(mode="json").items()}

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def slice(self, sections: Iterable[str]) -> RecipeSlice:
        """The view a stage gets: only the named top-level fields can be read."""
        return RecipeSlice(self, tuple(sections))


def _layers(key: str, folders: Iterable[Path]) -> tuple[list[FileLayer], list[tuple[str, Layer]]]:
    """The files of a key, and the layers of its recipe, each with its name: a file, or the key."""
    name, overrides = split_key(key)
    files = recipe_files(name, [*folders, RECIPE_FOLDER])
    return files, [*((str(file.path), file.data) for file in files), (key, override_layer(overrides, key))]


def sources_of(key: str, folders: Iterable[Path] = ()) -> Layer:
    """Where each value of a key's recipe comes from, for `layers.origin`: a file, or the key. Defaults have no
    source.

    Raises:
        RecipeError: see `Recipe.from_key`.
    """
    return origins(_layers(key, folders)[1])


def one_spelling(key: str, folders: Iterable[Path] = ()) -> str:
    """The one spelling of a key: overrides sorted by field, numbers as people write them.

    `0.10` and `1e-1` become `0.1` where the recipe stays equal; a revision `0.10` stays as it is.

    Raises:
        RecipeError: see `Recipe.from_key`.
    """
    name, overrides = split_key(canonical_key(key))
    digest = ""
    for field, text in overrides.items():
        usual = ",".join(map(usual_number, text.split(",")))
        if usual != text:
            digest = digest or Recipe.from_key(key, folders).digest()
            with suppress(RecipeError):  # an integer field takes no exponent
                if Recipe.from_key(joined_key(name, {**overrides, field: usual}), folders).digest() == digest:
                    overrides[field] = usual
    return joined_key(name, overrides)


class RecipeSlice:
    """The part of a recipe one stage may read. Reading anything else is an error."""

    def __init__(self, recipe: Recipe, sections: tuple[str, ...]) -> None:
        unknown = set(sections) - Recipe.model_fields.keys()
        if unknown:
            raise RecipeError(f"no such recipe section: {', '.join(sorted(unknown))}")
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
    """Only a file may allow a model's own Python and name that model: anyone who reaches Dagster's
    page may type a key."""
    named = _WHOSE_CODE if recipe.base.trust_remote_code else ()
    for field in (_REMOTE_CODE, *named):
        if field in overrides:
            raise RecipeError(
                f"{field} cannot be set in a key, because a model's own Python could run: write a recipe file that "
                f"says `extends: {recipe.name}` and sets it"
            )
