"""TODO: docstring."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.grading.graders import Verdict, verdicts
from e2h_pipeline.rl.metrics import easy_accuracy
from e2h_pipeline.rl.rollouts import Question, Rollout
from e2h_pipeline.rl.rounds.pairs import Classes
from e2h_pipeline.training.batches import Example
from e2h_pipeline.training.trainer import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.artifacts.shards import Runner
    from e2h_pipeline.grading.verdicts import Grader
    from e2h_pipeline.recipe import Rl, Rounds


METRICS_FILE, POLICY_FOLDER, PROBE = "round.json", "policy", "probe"


class Method(Protocol):
    """What is learned from drawn solutions.

    Attributes:
        name: as people write it.
    """

    name: str

    def rounds(self, options: Rl) -> Rounds:
        """Its part of the recipe."""
        ...

    def start(self, base: Path, current: Path) -> Path:
        """The model a round trains: the base model, or the policy that drew the solutions."""
        ...

    def choose(
        self, solved: Sequence[Rollout], classes: Classes, options: Rl, seed: int, number: int
    ) -> tuple[list[Example], Mapping[str, int]]:
        """Training examples, and counts of what became of the solutions.

        Args:
            solved: all solutions of some questions.
            classes: which answers to a question are the same.
            number: of the round, from 1.
        """
        ...

    def objective(self, options: Rl) -> Objective:
        """The loss over batches of these examples."""
        ...


@dataclass(frozen=True)
class RoundsRun:
    """What all rounds share."""

    method: Method
    base: Path
    sft: Path
    evaluator: Path
    questions: Sequence[Question]
    validation: Sequence[Question]
    work: Path
    options: Rl
    seed: int
    judge: Grader
    reporter: Reporter
    engine: str
    runner: Runner | None

    @cached_property
    def asked(self) -> dict[str, Question]:
        """Questions by id."""
        return {question.problem_id: question for question in self.questions}

    def grade(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each (gold, answer) is right."""
        return [verdict is Verdict.EQUAL for verdict in verdicts(self.judge, pairs)]

    def reference(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The SFT policy, which KL is measured to."""
        from e2h_pipeline.models.load import load_policy

        return load_policy(self.sft)

    def accuracy(self, policy: Path) -> float:
        """Greedy accuracy on easy validation."""
        from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
        from e2h_pipeline.models.load import load_policy

        engine = TransformersEngine(*load_policy(policy))
        return easy_accuracy(engine, self.grade, self.validation, self.options.max_new_tokens)


def round_folder(work: Path, number: int) -> Path:
    return work / f"round-{number:02d}"


def read_metrics(file: Path) -> dict[str, float]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def write_metrics(file: Path, metrics: Mapping[str, float]) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(metrics), encoding="utf-8")
    temporary.rename(file)
