"""The state that all rounds of a run share, and the files of a round."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.rl.algorithms import EVALUATOR, SFT_POLICY, RlJob
from e2h_pipeline.rl.metrics import easy_accuracy
from e2h_pipeline.rl.questions import Question

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.grading.verdicts import Grader
    from e2h_pipeline.recipe import RoundsRl
    from e2h_pipeline.rl.rounds.protocol import RoundsAlgorithm


METRICS_FILE, POLICY_FOLDER, PROBE = "round.json", "policy", "probe"


@dataclass(frozen=True)
class RoundsRun:
    """The state that all rounds share."""

    algorithm: RoundsAlgorithm[Any]
    job: RlJob[RoundsRl]
    grader: Grader
    questions: Sequence[Question]
    validation: Sequence[Question]

    @property
    def options(self) -> RoundsRl:
        """Section `rl` of the recipe."""
        return self.job.options

    @property
    def sft(self) -> Path:
        """Folder of the SFT policy."""
        return self.job.inputs[SFT_POLICY]

    @property
    def evaluator(self) -> Path:
        """Folder of the easy evaluator."""
        return self.job.inputs[EVALUATOR]

    @property
    def question_folder(self) -> Path:
        """Folder of the table of questions, for scoring their solutions."""
        return self.job.work.folder / "questions"

    @cached_property
    def asked(self) -> dict[str, Question]:
        """Questions by id."""
        return {question.problem_id: question for question in self.questions}

    def folder(self, number: int) -> Path:
        """Work folder of a round; number 0 is the SFT policy's probe."""
        return self.job.work.folder / f"round-{number:02d}"

    def reference(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The SFT policy, which KL is measured to."""
        from e2h_pipeline.models.load import load_policy

        return load_policy(self.sft)

    def accuracy(self, policy: Path) -> float:
        """Greedy accuracy on easy validation."""
        from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
        from e2h_pipeline.models.load import load_policy

        engine = TransformersEngine(*load_policy(policy))
        return easy_accuracy(
            engine, self.validation, self.options.max_new_tokens, self.grader, self.job.domain
        )


def read_metrics(file: Path) -> dict[str, float]:
    """Metrics that `write_metrics` wrote."""
    return dict(json.loads(file.read_text(encoding="utf-8")))


def write_metrics(file: Path, metrics: Mapping[str, float]) -> None:
    """Write metrics under a temporary name and rename the file, so that it is whole or absent."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(metrics), encoding="utf-8")
    temporary.rename(file)
