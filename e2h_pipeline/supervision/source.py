"""Where labels and solutions of easy problems come from: what every source must say and do.

A label source is one file here, or one of an installed package (entry points `e2h.labels`), and one line in the registry. A
recipe may name several; `step_labels` puts their rows together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from e2h_pipeline.supervision.rows import Rows

if TYPE_CHECKING:
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.problems.domain import Domain
    from e2h_pipeline.recipe import Sampling


class SuppliedSource(Protocol):
    """A source that may read files which other people supply. A subclass that reads none need say nothing."""

    def files(self, options: Any) -> list[Path]:
        """The files that `draw` reads: to watch, and to fingerprint for the key; none where nothing is read from files.

        Args:
            options: the section of the recipe that names this source.

        Raises:
            ProblemError: nothing says where they are, or they are not there.
        """
        return []

    def read(self, options: Any) -> object:
        """Read all files once, so that what cannot be read is known before anything is made of it.

        Raises:
            ProblemError: they cannot be used; the message names file, line or field and the mend.
        """
        return None


@dataclass(frozen=True)
class LabelJob:
    """What a label source is handed.

    Attributes:
        options: the section of the recipe that names this source.
        place: of the source among those of the recipe, from 0.
        easy: rows of the easy problems by id: question, answer, steps, level and split.
        inputs: folders of upstream artifacts by asset name: those that `reads` named.
        domain: whose problems they are; its format is that of completions.
        sampling: how completions are drawn, for sources that draw with the engine.
        grader: what tells that an answer is right, by its name in the registry.
        work: a folder of this source's own, seed, reporter, engine and runner.
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
        """Name of a stream of random draws of this source alone. What the first source draws is what it draws alone, so
        that adding another changes nothing of it."""
        return f"{name}+{self.place}" if self.place else name


@dataclass(frozen=True)
class LabelledRows:
    """What a label source draws.

    Attributes:
        rows: as of `rows.labelled_row`. A label per segment: 1 right, 0 wrong, between the two soft, -1 none; none
            behind the first error. `sample` numbers the rows of a problem.
        counts: what was read, drawn and left out, for the summary.
    """

    rows: Rows
    counts: Mapping[str, Any]


class LabelSource(SuppliedSource, Protocol):
    """Labels steps of solutions of easy problems. The registry's entry is the class; it is made without arguments.

    Attributes:
        samples: it draws with the engine, which is in the key then.
    """

    samples: bool = False

    def reads(self, options: Any) -> tuple[str, ...]:
        """Upstream assets that it needs besides `easy_problems`: some of `easy_samples` and `sft_policy`."""
        return ()

    def draw(self, job: LabelJob) -> LabelledRows:
        """Labelled solutions of easy problems, in the same order each time.

        Raises:
            ValueError: the recipe asks for what this source cannot do; the message names the mend.
            ProblemError: files that cannot be used.
        """
        ...
