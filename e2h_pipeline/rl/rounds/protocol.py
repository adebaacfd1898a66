"""The protocol of algorithms in rounds: the choice among drawn solutions, and the loss on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from e2h_pipeline.recipe import RoundsRl

if TYPE_CHECKING:
    from e2h_pipeline.rl.algorithms import RlJob
    from e2h_pipeline.rl.rollouts import Rollout
    from e2h_pipeline.training.batches import Example
    from e2h_pipeline.training.trainer import Objective

Classes = Callable[[Sequence[Sequence[str | None]], Sequence[str]], list[list[int | None]]]
"""Which answers to each problem are the same, and its questions (`grading.verdicts.Grader.classes`)."""

OptionsOf = TypeVar("OptionsOf", bound=RoundsRl, contravariant=True)


class RoundsAlgorithm(Protocol[OptionsOf]):
    """An algorithm that `loop.train_in_rounds` runs.

    Attributes:
        name: its usual spelling. It is part of the pools' random stream, so two algorithms share no
            draw.
    """

    name: str

    def start(self, job: RlJob[OptionsOf], current: Path) -> Path:
        """Folder of the model that a round trains: the base model, or the policy that drew,
        `current`."""
        ...

    def choose(
        self, solved: Sequence[Rollout], classes: Classes, options: OptionsOf, seed: int, number: int
    ) -> tuple[list[Example], Mapping[str, int]]:
        """Training examples, and counts of chosen and dropped solutions.

        Args:
            solved: all solutions of some questions.
            classes: which answers to a question are the same.
            number: of the round, from 1.
        """
        ...

    def objective(self, options: OptionsOf) -> Objective:
        """The loss over batches of these examples."""
        ...
