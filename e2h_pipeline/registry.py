"""Words of a recipe and what implements them.

A registry maps a word to `module:Name` as text, imported when it is asked for. A stage declares the
fields whose methods it uses (`@stage(methods=["rl.algorithm"])`), and the code version of the chosen
entry, and of no other, is part of its key. So a new or edited method re-makes only what uses it. A
new method of this project is one file and one line here.

Installed packages add methods by entry points: `my_word = "my_package.module:Name"` in the group
`e2h.algorithms`. Nothing that a key or a recipe says is ever loaded by path.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from e2h_pipeline.artifacts.code_version import Code, code_behind
from e2h_pipeline.recipe.plugins import installed
from e2h_pipeline.recipe.section import with_inner

ENGINE = "engine"
"""A registry whose word is no field of a recipe: the host chooses it (E2H_ENGINE)."""
_declared: ContextVar[frozenset[str] | None] = ContextVar("declared", default=None)


class RegistryError(ValueError):
    """A word that nothing implements, or a registry that a stage uses without saying so."""


@dataclass(frozen=True)
class Registry:
    """The methods of one field of the recipe.

    Attributes:
        field: of the recipe, as a stage declares it.
        group: entry points of installed packages.
        entries: word to `module:Name`, those of this project.
    """

    field: str
    group: str
    entries: Mapping[str, str]

    def words(self) -> tuple[str, ...]:
        """All words, this project's first."""
        return (*self.entries, *sorted(installed(self.group).keys() - self.entries.keys()))

    def target(self, word: str) -> str:
        """`module:Name` of a word.

        Raises:
            RegistryError: there is no such word.
        """
        if word in self.entries:
            return self.entries[word]
        plugins = installed(self.group)
        if word not in plugins:
            raise RegistryError(f"{self.field}: no '{word}'; there are {', '.join(self.words())}")
        return plugins[word]

    def load(self, word: str) -> Any:
        """What implements a word.

        Raises:
            RegistryError: there is no such word, or the stage that runs does not declare this registry.
        """
        declared = _declared.get()
        if declared is not None and self.field not in declared:
            raise RegistryError(
                f"this stage uses the methods of {self.field} without saying so: add it to `methods` of its @stage, or an "
                "edit of the method would not make the stage again"
            )
        return resolve(self.target(word))

    def code(self, word: str) -> Code:
        """The code behind a word."""
        return code_behind(self.target(word))


@dataclass(frozen=True)
class Part:
    """A part of a registry's entries with a code version of its own: an attribute that names `module:Name`, or None.

    A domain is read by nearly every stage, its reader of files by one: an edit of the reader must not re-make the others.
    """

    registry: Registry
    attribute: str

    @property
    def field(self) -> str:
        """As a stage declares it: `problems.source/reader`."""
        return f"{self.registry.field}/{self.attribute}"

    def words(self) -> tuple[str, ...]:
        """Those of the registry."""
        return self.registry.words()

    def load(self, word: str) -> Any:
        """What the attribute of a word's entry names; None where it names nothing.

        Raises:
            RegistryError: as of `Registry.load`.
        """
        declared = _declared.get()
        if declared is not None and self.field not in declared:
            raise RegistryError(
                f"this stage uses {self.field} without saying so: add it to `methods` of its @stage"
            )
        target = self._target(word)
        return None if target is None else resolve(target)

    def code(self, word: str) -> Code:
        """The code behind the attribute of a word's entry."""
        target = self._target(word)
        return Code("None", ()) if target is None else code_behind(target)

    def _target(self, word: str) -> str | None:
        target: str | None = getattr(resolve(self.registry.target(word)), self.attribute)
        return target


DOMAINS = Registry(
    "problems.source",
    "e2h.domains",
    {
        "ladder": "e2h_pipeline.problems.ladder.domain:LADDER",
        "math": "e2h_pipeline.problems.math.domain:MATH",
        "gsm8k": "e2h_pipeline.problems.gsm8k.domain:GSM8K",
        "code": "e2h_pipeline.problems.code.domain:CODE",
    },
)
PROBLEM_READERS = Part(DOMAINS, "reader")
STEP_CHECKERS = Part(DOMAINS, "step_checker")
CORPORA = Part(DOMAINS, "corpus")
SOLUTION_SOURCES = Registry(
    "solutions.source",
    "e2h.solutions",
    {
        "reference": "e2h_pipeline.supervision.solutions.reference:Reference",
        "prm800k": "e2h_pipeline.supervision.solutions.prm800k:RightSteps",
        "metamath": "e2h_pipeline.supervision.solutions.metamath:MetaMath",
    },
)
LABEL_SOURCES = Registry(
    "labels.source",
    "e2h.labels",
    {
        "checker": "e2h_pipeline.supervision.exact_checker:ExactChecker",
        "prm800k": "e2h_pipeline.supervision.prm800k:Prm800k",
        "shepherd": "e2h_pipeline.supervision.shepherd:Shepherd",
        "prmbench": "e2h_pipeline.supervision.prm_bench:PrmBenchSource",
        "monte_carlo": "e2h_pipeline.supervision.monte_carlo:MonteCarlo",
        "people": "e2h_pipeline.supervision.people:People",
        "active": "e2h_pipeline.supervision.active:Active",
        "weak_to_strong": "e2h_pipeline.supervision.weak_to_strong:WeakToStrong",
        "non_causal": "e2h_pipeline.supervision.non_causal:NonCausal",
    },
)
EVALUATOR_KINDS = Registry(
    "reward.kind",
    "e2h.evaluators",
    {
        "prm": "e2h_pipeline.rewards.kinds.prm:Prm",
        "orm": "e2h_pipeline.rewards.kinds.orm:Orm",
        "oprm": "e2h_pipeline.rewards.kinds.oprm:Oprm",
        "pairwise": "e2h_pipeline.rewards.kinds.pairwise:Pairwise",
        "goal_conditioned": "e2h_pipeline.rewards.kinds.goal_conditioned:GoalConditioned",
        "weak_to_strong": "e2h_pipeline.rewards.kinds.weak_to_strong:WeakToStrong",
        "generative": "e2h_pipeline.rewards.kinds.generative:Generative",
        "outside": "e2h_pipeline.rewards.kinds.outside:Outside",
    },
)
EVALUATOR_MAKERS = Part(EVALUATOR_KINDS, "maker")
EVALUATOR_READERS = Part(EVALUATOR_KINDS, "reader")
SAMPLE_SOURCES = Registry(
    "samples.source",
    "e2h.samples",
    {
        "policy": "e2h_pipeline.generation.sources.policy:Policy",
        "file": "e2h_pipeline.generation.sources.file:SuppliedSamples",
    },
)
SEARCH_METHODS = Registry(
    "search.method",
    "e2h.search",
    {
        "independent": "e2h_pipeline.generation.search.independent:Independent",
        "beam": "e2h_pipeline.generation.search.beam:Beam",
        "dvts": "e2h_pipeline.generation.search.beam:Dvts",
        "particle": "e2h_pipeline.generation.search.particle:Particle",
        "q_filter": "e2h_pipeline.generation.search.q_filter:QFilter",
    },
)
SEARCHES = replace(SEARCH_METHODS, field="searches.method")
"""The same methods, for a recipe's list of searches to compare."""
ALGORITHMS = Registry(
    "rl.algorithm",
    "e2h.algorithms",
    {
        "ppo": "e2h_pipeline.rl.online.ppo:Ppo",
        "grpo": "e2h_pipeline.rl.online.grpo:Grpo",
        "rest": "e2h_pipeline.rl.rounds.rest_em:RestEm",
        "dpo": "e2h_pipeline.rl.rounds.preference:IterativePreference",
    },
)
AGGREGATIONS = Registry(
    "rerank.aggregations",
    "e2h.aggregations",
    {
        "product": "e2h_pipeline.reranking.aggregate:product",
        "min": "e2h_pipeline.reranking.aggregate:minimum",
        "mean": "e2h_pipeline.reranking.aggregate:mean",
        "last": "e2h_pipeline.reranking.aggregate:last",
    },
)
GRADERS = Registry(
    "evaluation.grader",
    "e2h.graders",
    {
        "math": "e2h_pipeline.grading.mathematics.grader:MathGrader",
        "math-exact": "e2h_pipeline.grading.mathematics.unrounded:UnroundedMathGrader",
        "exact": "e2h_pipeline.grading.exact:ExactGrader",
        "unit-tests": "e2h_pipeline.grading.code.grader:UnitTestGrader",
        "math-verify": "e2h_pipeline.grading.published.math_verify:MathVerifyGrader",
        "prm800k": "e2h_pipeline.grading.published.compat:Prm800kGrader",
        "e2h-string": "e2h_pipeline.grading.published.compat:E2hStringGrader",
    },
)
ENGINES = Registry(
    ENGINE,
    "e2h.engines",
    {
        "transformers": "e2h_pipeline.generation.engines.embedded:Transformers",
        "vllm": "e2h_pipeline.generation.engines.vllm_engine:Vllm",
    },
)

LAYOUTS = Registry(
    "reward.layouts",
    "e2h.layouts",
    {
        "qwen-prm": "e2h_pipeline.rewards.outside.qwen_prm:QwenPrm",
        "math-shepherd": "e2h_pipeline.rewards.outside.signs:MathShepherd",
        "rlhflow": "e2h_pipeline.rewards.outside.signs:RlhFlow",
        "skywork": "e2h_pipeline.rewards.outside.skywork:Skywork",
        "trl": "e2h_pipeline.rewards.outside.trl:Trl",
        "implicit": "e2h_pipeline.rewards.outside.implicit:Implicit",
        "auto": "e2h_pipeline.rewards.outside.detected:told_layout",
    },
)

_ALL: tuple[Registry | Part, ...] = (
    DOMAINS,
    PROBLEM_READERS,
    STEP_CHECKERS,
    CORPORA,
    SOLUTION_SOURCES,
    LABEL_SOURCES,
    EVALUATOR_KINDS,
    EVALUATOR_MAKERS,
    EVALUATOR_READERS,
    SAMPLE_SOURCES,
    SEARCH_METHODS,
    SEARCHES,
    ALGORITHMS,
    AGGREGATIONS,
    GRADERS,
    ENGINES,
    LAYOUTS,
)
REGISTRIES: Mapping[str, Registry | Part] = {registry.field: registry for registry in _ALL}


def resolve(target: str) -> Any:
    """The object that `module:Name` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def chosen(field: str, recipe: Any, engine: str) -> tuple[str, ...]:
    """Words that a recipe chooses for a declared field; several where the field is a list, or of a list of sections,
    or where a method is composed of others.

    Args:
        recipe: a recipe or a slice of one.
        engine: name of the engine of this host.
    """
    if field == ENGINE:
        return (engine,)
    section, *inner = field.partition("/")[0].split(".")
    found = getattr(recipe, section)
    values = tuple(with_inner(found if isinstance(found, tuple) else (found,)))
    for name in inner:
        values = tuple(attrgetter(name)(value) for value in values)
    flat = tuple(word for value in values for word in (value if isinstance(value, tuple) else (value,)))
    return tuple(dict.fromkeys(map(str, flat)))


def chosen_code(fields: Collection[str], recipe: Any, engine: str) -> Iterator[tuple[str, Code]]:
    """Name and code of every entry that a recipe chooses for the declared fields."""
    for field in sorted(fields):
        for word in chosen(field, recipe, engine):
            yield f"{field}={word}", REGISTRIES[field].code(word)


@contextmanager
def only(fields: Collection[str]) -> Iterator[None]:
    """Within it, no other registry than those of the given fields can be loaded from."""
    token = _declared.set(frozenset(fields))
    try:
        yield
    finally:
        _declared.reset(token)
