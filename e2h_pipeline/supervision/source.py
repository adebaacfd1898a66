"""The protocol of sources of labels and solutions of easy problems.

A label source is one file here, or one of an installed package (entry points `e2h.labels`), and one
line in the registry. A recipe may name several; `step_labels` puts their rows together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from e2h_pipeline.problems.supplied_files import Supplied
from e2h_pipeline.supervision.rows import Rows

if TYPE_CHECKING:
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.problems.domain import Domain
    from e2h_pipeline.recipe import Sampling


@dataclass(frozen=True)
class LabelJob:
    """The argument of a label source.

    Attributes:
        options: the section of the recipe that names this source.
        place: number of the source in the recipe, from 0.
        easy: rows of the easy problems by id: question, answer, steps, level and split.
        inputs: folders of the upstream artifacts that the recipe's sources read, by asset name.
        domain: of the problems; it defines the format of completions.
        sampling: how completions are drawn, for sources that draw with the engine.
        grader: judges answers; its name in the registry.
        work: this source's own folder, seed, reporter, engine and runner.
    """

    options: Any
    place: int
    easy: Mapping[str, dict[str, Any]]
    inputs: Mapping[str, Path]
    domain: Domain
    sampling: Sampling
    grader: str
    work: Work

    def stream(self, name: str) -> str:
        """Name of a random stream of this source. The first source has the same streams as a single
        one, so adding another source does not change its draws."""
        return f"{name}+{self.place}" if self.place else name


@dataclass(frozen=True)
class LabelledRows:
    """The result of a label source.

    Attributes:
        rows: from `rows.labelled_row`. A label per segment: 1 right, 0 wrong, soft in between, -1
            none; none after the first error. `sample` numbers the rows of a problem.
        counts: what was read, drawn and left out, for the summary. `labels_bought` only where the
            source asked for other labels than those of its rows (see `supervision.cost`).
    """

    rows: Rows
    counts: Mapping[str, Any]


STEP_CHECKER, GRADER = "problems.source/step_checker", "evaluation.grader"
METHODS = (STEP_CHECKER, GRADER)
"""Registries that label sources may load from."""
READABLE = ("easy_samples", "sft_policy", "base_model", "hard_questions")
"""Upstream assets that label sources may read besides `easy_problems`."""


class LabelSource(Supplied, Protocol):
    """Labels steps of solutions of easy problems. The registry's entry is the class; it is made
    without arguments.

    Attributes:
        samples: it draws with the engine, so the engine is in the key.
        methods: fields of the registries that it loads from, a subset of `METHODS`.
    """

    samples: bool = False
    methods: tuple[str, ...] = ()

    def reads(self, options: Any) -> tuple[str, ...]:
        """Upstream assets that it needs besides `easy_problems`: some of `READABLE`."""
        return ()

    def labels_hard(self, options: Any) -> bool:
        """Whether rows may be of hard questions. Their labels must then come from a model: no answer of theirs is
        known to any source."""
        return False

    def draws(self, options: Any) -> bool:
        """Whether it draws with the engine under these options."""
        return self.samples

    def draw(self, job: LabelJob) -> LabelledRows:
        """Labelled solutions of easy problems, in the same order each time.

        Raises:
            ValueError: this source cannot do what the recipe asks for; the message names the mend.
            ProblemError: files that cannot be used.
        """
        ...


class AskedSource(LabelSource, Protocol):
    """A source that labels the solutions it is asked about, and no others: labels can be bought from it."""

    def candidates(self, job: LabelJob) -> Rows:
        """Distinct solutions that it could label, without labels, by problem and number."""
        ...

    def label(self, job: LabelJob, rows: Rows) -> LabelledRows:
        """Labels of these candidates, in their order; without those that it cannot label."""
        ...
