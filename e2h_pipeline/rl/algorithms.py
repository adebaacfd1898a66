"""The protocol of algorithms that make `rl_policy`, and their argument.

An algorithm is a class that the registry names (`registry.ALGORITHMS`, or an entry point
`e2h.algorithms`). Its module must be light to import, without torch or transformers: planning asks
the class what it reads. Heavy imports belong into methods.

There are three ways to write one:

- learn from each batch of rollouts at once: `start` and `learn` (`online.protocol`), run by
  `online.loop.train_online`;
- train in rounds: `start`, `choose` and `objective` (`rounds.protocol`), run by
  `rounds.loop.train_in_rounds`;
- do everything in `train`.

An algorithm of an installed package may have `Options`, its section of the recipe: a subclass of
`OnlineRl`, `RoundsRl` or `Rl`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from e2h_pipeline.recipe import Rl

if TYPE_CHECKING:
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.problems.domain import Domain

SFT_POLICY, EVALUATOR, EASY_PROBLEMS, HARD_QUESTIONS, BASE_MODEL = (
    "sft_policy",
    "easy_evaluator",
    "easy_problems",
    "hard_questions",
    "base_model",
)
EVERY_INPUT = (SFT_POLICY, EVALUATOR, EASY_PROBLEMS, HARD_QUESTIONS)
"""Assets that every algorithm reads."""

OptionsOf = TypeVar("OptionsOf", bound=Rl, covariant=True)


@dataclass(frozen=True)
class RlJob(Generic[OptionsOf]):
    """The argument of an algorithm.

    Attributes:
        inputs: folders of `EVERY_INPUT` and of the other assets that the algorithm `reads`, by
            asset.
        options: section `rl` of the recipe.
        domain: of the problems.
        grader: word of `evaluation.grader`; it judges answers.
        work: folders, seed and reporter. The policy goes into `work.out`.
    """

    inputs: Mapping[str, Path]
    options: OptionsOf
    domain: Domain
    grader: str
    work: Work


class Algorithm(Protocol):
    """An algorithm that makes `rl_policy`.

    Attributes:
        reads: assets it reads besides `EVERY_INPUT`.
        samples: it always draws with the host's engine, so that engine's version is in the key.
            Online algorithms do so only where the host has rollout engines (`rl_policy`).
        distributed: `train` may run in several processes at once (`ranks`), each with the same job.
    """

    reads: tuple[str, ...]
    samples: bool
    distributed: bool

    def train(self, job: RlJob[Any]) -> dict[str, Any]:
        """Train a policy and save it to `job.work.out`.

        The folder also gets `curves.jsonl`, a line per update or round, and `rollouts.parquet`
        where there are rollouts.

        After a kill it resumes from `job.work.folder`, and ends with the same policy.

        Returns:
            The summary of the artifact: `best_update` (0 is the SFT policy),
            `easy_validation_accuracy` and more.
        """
        ...
