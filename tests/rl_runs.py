"""A small run of each algorithm, for tests in their own process and in processes that are
killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.engines.protocol import Sampler
from e2h_pipeline.models import base as models
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.records import Problem, ProblemSplit, easy_table
from e2h_pipeline.recipe import Curriculum, GrpoRl, Guards, OnlineRl, PpoRl, PreferenceRl, RestEmRl, Rl
from e2h_pipeline.registry import ALGORITHMS
from e2h_pipeline.rl.algorithms import (
    BASE_MODEL,
    EASY_PROBLEMS,
    EVALUATOR,
    HARD_QUESTIONS,
    SFT_POLICY,
    Algorithm,
    RlJob,
)
from e2h_pipeline.rl.questions import Question
from e2h_pipeline.rl.rollouts import Completion, completions, requests
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.supervision.easy_solutions import solution_table
from e2h_pipeline.supervision.solutions.reference import reference_solutions

if TYPE_CHECKING:
    from torch import Tensor

SHIPPED = Path(models.__file__).parent / "shipped" / "ladder-base"  # sometimes right, even without SFT
_ONLINE: dict[str, Any] = {
    "updates": 5,
    "rollouts": 12,
    "samples_per_question": 2,
    "minibatch": 4,
    "max_new_tokens": 40,
    "checkpoint_every": 2,
    "learning_rate": 1e-3,
    "warmup_updates": 1,
    "epochs": 2,
    "max_kl": 100,
}
_ROUNDS: dict[str, Any] = {
    "rounds": 2,
    "samples": 4,
    "top_k": 0,
    "max_new_tokens": 40,
    "max_kl": 100,
    "probe_questions": 60,
}
PPO = PpoRl(**_ONLINE, value_learning_rate=1e-3)
GRPO = GrpoRl(**_ONLINE)
REST = RestEmRl(**_ROUNDS, epochs=2, batch_size=16, learning_rate=1e-3)
DPO = PreferenceRl(**_ROUNDS, batch_size=8, learning_rate=1e-4, margin=0.0)
# What people watch in the curves of every algorithm.
WATCHED = {
    "evaluator_easy",
    "evaluator_hard",
    "kl",
    "steps",
    "tokens",
    "no_answer",
    "seconds_rollout",
    "seconds_score",
    "seconds_update",
}
# With all state that a run carries from update to update besides its models.
STATEFUL = PPO.model_copy(
    update={
        "curriculum": Curriculum(kind="learning_progress"),
        "kl_target": 0.01,
        "kl_horizon": 2 * PPO.rollouts,
    }
)
# Adapters on weights that are shared.
_ADAPTERS = {"lora_rank": 2, "learning_rate": 1e-2, "value_learning_rate": 1e-2}
LORA = STATEFUL.model_copy(update={**_ADAPTERS, "epochs": 1, "max_new_tokens": 16})
# Rollouts by the weights before the last update, where no checkpoint comes between; the gap of
# log-probabilities is then that of a large step.
LAG = {"lag": 1, "guards": Guards(sampler_gap=10.0)}
LAGGED = LORA.model_copy(update={**LAG, "checkpoint_every": 3})


class Recorder(Reporter):
    """Keeps reported metrics.

    Attributes:
        points: step and values, in order of arrival.
    """

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[int, dict[str, float]]] = []

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """See `Reporter.metrics`."""
        self.points.append((step, dict(values)))


class Killer(Reporter):
    """Sends SIGKILL to its own process when this count of the named work, or this many steps, are
    reported."""

    def __init__(self, name: str, done: int) -> None:
        super().__init__()
        self._name, self._done = name, done

    def progress(self, done: int, total: int, unit: str, reused: int = 0, tokens: int | None = None) -> None:
        """See `Reporter.progress`."""
        self._perhaps(unit, done)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """See `Reporter.metrics`."""
        for name in values:
            self._perhaps(name, step)

    def _perhaps(self, name: str, done: int) -> None:
        if name == self._name and done >= self._done:
            os.kill(os.getpid(), signal.SIGKILL)


def job(
    options: Rl, policy: Path, evaluator: Path, tables: Path, folder: Path, reporter: Reporter | None = None
) -> RlJob[Any]:
    """The job of an algorithm that trains `policy` into `folder / "out"`, with `folder / "work"` to
    resume from.

    Args:
        tables: folder of `easy_problems` and `hard_questions`.
    """
    inputs = {
        SFT_POLICY: policy,
        EVALUATOR: evaluator,
        EASY_PROBLEMS: tables / "easy_problems",
        HARD_QUESTIONS: tables / "hard_questions",
        BASE_MODEL: SHIPPED,
    }
    work = Work(folder / "out", folder / "work", 0, reporter or Reporter())
    return RlJob(inputs, options, LADDER, "exact", work)


def run(
    options: Rl, policy: Path, evaluator: Path, tables: Path, folder: Path, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Train by the algorithm of the options; arguments as for `job`."""
    algorithm: Algorithm = ALGORITHMS.load(options.algorithm)()
    return algorithm.train(job(options, policy, evaluator, tables, folder, reporter))


Train = Callable[..., None]
"""Makes the run of a name into a folder; a reporter may be given."""


def trainer(runs: Mapping[str, Rl], evaluator: Path, tables: Path) -> Train:
    """What makes runs of the shipped policy."""

    def train(name: str, folder: Path, reporter: Reporter | None = None) -> None:
        run(runs[name], SHIPPED, evaluator, tables, folder, reporter)

    return train


def draw(
    engine: Sampler, questions: Sequence[Question], options: OnlineRl, update: int = 0
) -> list[Completion]:
    """Completions of questions, as an update draws them; seed 0."""
    return completions(questions, engine.sample(*requests(questions, MARKED, options, 0, update)))


def learned_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Float32 weights that learned, whole, by model and number: `policy/0/master`. Rows of several
    ranks are put together."""
    import torch
    from safetensors.torch import load_file

    found: dict[str, list[Tensor]] = {}
    for file in sorted(checkpoint.glob("rank-*.safetensors")):
        for name, part in load_file(file).items():
            if name.endswith("/master"):
                found.setdefault(name, []).append(part)
    return {name: torch.cat(parts) for name, parts in found.items()}


def write_solutions(folder: Path, problems: Sequence[Problem]) -> None:
    """Write `easy_solutions` with the problems' own solutions."""
    easy = easy_table(ProblemSplit(tuple(problems), (), (), ())).to_pylist()
    write_table(folder / "data.parquet", solution_table(reference_solutions(easy, MARKED)))
