"""A small run of each algorithm, as tests make it in their own process and in ones that are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.models import base as models
from e2h_pipeline.problems.records import Problem, ProblemSplit, easy_table
from e2h_pipeline.recipe import Curriculum, Preference, RestEm, Rl
from e2h_pipeline.supervision.easy_solutions import reference_solutions, solution_table

SHIPPED = Path(models.__file__).parent / "shipped" / "ladder-base"  # right now and then, also without SFT
SMALL = Rl(
    updates=5,
    rollouts=12,
    samples_per_question=2,
    minibatch=4,
    max_new_tokens=40,
    checkpoint_every=2,
    learning_rate=1e-3,
    value_learning_rate=1e-3,
    warmup_updates=1,
    epochs=2,
    max_kl=100,
    rest=RestEm(rounds=2, samples=4, top_k=0, epochs=2, batch_size=16, learning_rate=1e-3),
    preference=Preference(rounds=2, samples=4, top_k=0, batch_size=8, learning_rate=1e-4, margin=0.0),
)
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
# With all that a run can carry from update to update beside its models.
STATEFUL = SMALL.model_copy(
    update={
        "curriculum": Curriculum(kind="learning_progress"),
        "kl_target": 0.01,
        "kl_horizon": 2 * SMALL.rollouts,
    }
)


class Recorder(Reporter):
    """Keeps what is reported.

    Attributes:
        points: step and values, in the order in which they came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[int, dict[str, float]]] = []

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """See `Reporter.metrics`."""
        self.points.append((step, dict(values)))


class Killer(Reporter):
    """Sends SIGKILL to its own process when work of the name is reported as done: so many of it, or so many steps."""

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


def train(
    algorithm: str,
    evaluator: Path,
    tables: Path,
    folder: Path,
    reporter: Reporter,
    options: Rl = SMALL,
    policy: Path = SHIPPED,
) -> dict[str, Any]:
    """Train a policy into `folder / "out"`, with `folder / "work"` to go on from."""
    if algorithm in ("rest", "dpo"):
        return _in_rounds(algorithm, evaluator, tables, folder, reporter, options, policy)
    from e2h_pipeline.rl.online.grpo import Grpo
    from e2h_pipeline.rl.online.loop import Algorithm, train_policy
    from e2h_pipeline.rl.online.ppo import Ppo

    algorithms: dict[str, type[Algorithm]] = {"ppo": Ppo, "grpo": Grpo}
    return train_policy(
        algorithms[algorithm](),
        policy,
        evaluator,
        tables / "easy_problems",
        tables / "hard_questions",
        folder / "out",
        folder / "work",
        options,
        0,
        "exact",
        reporter,
    )


def run(
    algorithm: str,
    policy: Path,
    evaluator: Path,
    tables: Path,
    folder: Path,
    options: Rl = SMALL,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """`train` a policy, and tell nobody where there is nobody to tell."""
    return train(algorithm, evaluator, tables, folder, reporter or Reporter(), options, policy)


def _in_rounds(
    algorithm: str, evaluator: Path, tables: Path, folder: Path, reporter: Reporter, options: Rl, policy: Path
) -> dict[str, Any]:
    from e2h_pipeline.rl.rounds.loop import train_in_rounds
    from e2h_pipeline.rl.rounds.preference import IterativePreference
    from e2h_pipeline.rl.rounds.rest_em import RestEm as RestMethod
    from e2h_pipeline.rl.rounds.run import Method

    methods: dict[str, type[Method]] = {"rest": RestMethod, "dpo": IterativePreference}
    return train_in_rounds(
        methods[algorithm](),
        SHIPPED,
        policy,
        evaluator,
        tables / "easy_problems",
        tables / "hard_questions",
        folder / "out",
        folder / "work",
        options,
        0,
        "exact",
        reporter,
    )


def write_solutions(folder: Path, problems: Sequence[Problem]) -> None:
    """`easy_solutions` of problems whose own solutions are learned."""
    easy = easy_table(ProblemSplit(tuple(problems), (), (), ())).to_pylist()
    write_table(folder / "data.parquet", solution_table(reference_solutions(easy)))
