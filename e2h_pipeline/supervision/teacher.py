"""Evaluators that a label source trains for itself: a selector, a weak supervisor, a labeller.

They are trained by the functions that train `easy_evaluator` (`rewards.train.Training`), on step
labels. Each has a name and a folder in the source's work, where a finished one survives a kill and
an unfinished one goes on from its last checkpoint. `keep` puts it into the artifact, so that lineage
can show what labelled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.reporter import Part
from e2h_pipeline.recipe.sections.reward import INITIAL, PrmReward, RewardTraining
from e2h_pipeline.rewards.both_ways import (
    BothWaysPrm,
    load_both_ways,
    mark_both_ways,
    require_both_ways,
    score_both_ways,
)
from e2h_pipeline.rewards.kinds.prm import Prm
from e2h_pipeline.rewards.scoring import encode_for
from e2h_pipeline.rewards.train import Training
from e2h_pipeline.rewards.validate import figures_of, score_rows
from e2h_pipeline.supervision.rows import UNLABELLED, Rows

if TYPE_CHECKING:
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.solutions import TextFormat
    from e2h_pipeline.supervision.source import LabelJob

_DONE = "taught.json"
_KINDS: Mapping[bool, Any] = {True: Prm, False: BothWaysPrm}
"""By whether it reads in one direction."""


@dataclass(frozen=True)
class Lesson:
    """How an evaluator is taught.

    Attributes:
        name: of its folder.
        init: folder of the causal LM that it starts from.
        training: its section of the recipe.
        text: the domain's format.
        causal: False lets it read in both directions.
    """

    name: str
    init: Path
    training: RewardTraining
    text: TextFormat
    causal: bool = True


@dataclass(frozen=True)
class Teacher:
    """A trained evaluator.

    Attributes:
        folder: its model, in the work folder.
        summary: of its training.
    """

    lesson: Lesson
    folder: Path
    summary: dict[str, Any]

    def probabilities(self, rows: Rows) -> list[list[float]]:
        """Probability that each segment of each row is right."""
        import numpy as np

        from e2h_pipeline.reranking.aggregate import step_probabilities

        return [step_probabilities(np.array(logits)).tolist() for logits in self.logits(rows)]

    def logits(self, rows: Rows) -> list[list[float]]:
        """Raw logit of each segment of each row."""
        if self.lesson.causal:
            from e2h_pipeline.models.load import load_evaluator

            return score_rows(*load_evaluator(self.folder), rows, self.lesson.text)
        model, tokenizer = load_both_ways(self.folder)
        solutions = [(row["question"], row["completion"], row["finished"]) for row in rows]
        encoded = [encode_for(model, tokenizer, solution, self.lesson.text) for solution in solutions]
        return score_both_ways(model, encoded)

    def judged(self, rows: Rows) -> dict[str, Any]:
        """Its summary, with figures on rows with labels that it was not trained on."""
        if not rows:
            return self.summary
        return {**self.summary, **figures_of({"steps": rows}, {"steps": self.logits(rows)})}


def lesson_of(
    job: LabelJob, name: str, *, causal: bool = True, layers: int | None = None, init: Path | None = None
) -> Lesson:
    """The lesson that a source's options describe.

    Args:
        init: folder of the model to start from, where it is not the recipe's base.
        layers: keep this many layers instead of the number that the options say.
    """
    training: RewardTraining = job.options.training
    if layers is not None:
        training = training.model_copy(update={"layers": layers})
    init = init or job.inputs[INITIAL[training.init]]
    return Lesson(name, init, training, job.domain.text, causal)


def teach(lesson: Lesson, rows: Rows, work: Work) -> Teacher:
    """Train an evaluator on rows with labels, or take the one that an earlier run has finished.

    Raises:
        ValueError: no row has a label, or the model cannot read in both directions.
    """
    from e2h_pipeline.models.base import save_model

    folder = work.folder / lesson.name
    model_folder, done = folder / "model", folder / _DONE
    if done.is_file():
        return Teacher(lesson, model_folder, json.loads(done.read_text(encoding="utf-8")))
    if not any(label != UNLABELLED for row in rows for label in row["labels"]):
        raise ValueError(f"labels.source: no labels to train its {lesson.name} on; raise labels.budget")
    shutil.rmtree(model_folder, ignore_errors=True)
    inside = replace(
        work, out=model_folder, folder=folder / "training", reporter=Part(work.reporter, lesson.name)
    )
    options = PrmReward(training=lesson.training)
    text = lesson.text.headed(lesson.training.heading or lesson.text.question_heading)
    training = Training(lesson.init, _KINDS[lesson.causal](), options, text)
    if not lesson.causal:
        require_both_ways(training.fresh(work.seed))
    training = training.with_states({"steps": rows}, inside)
    model, tokenizer, _, summary = training.run({"steps": rows}, inside)
    if not lesson.causal:
        mark_both_ways(model)
    save_model(model, tokenizer, model_folder)
    written = done.with_suffix(".tmp")
    written.write_text(json.dumps(summary), encoding="utf-8")
    os.replace(written, done)
    shutil.rmtree(inside.folder, ignore_errors=True)
    return Teacher(lesson, model_folder, summary)


def keep(teachers: Sequence[Teacher], out: Path) -> None:
    """Put teachers into an artifact, each in a folder of its name."""
    for teacher in teachers:
        folder = out / teacher.lesson.name
        folder.mkdir(parents=True, exist_ok=True)
        for file in teacher.folder.iterdir():
            os.link(file, folder / file.name)
