"""The loop that online algorithms run in: roll out, reward, learn, validate, save.

An algorithm says what is learned from a batch of rewarded rollouts (`OnlineAlgorithm`). The rest is
the same for all: questions of both kinds, rewards from the easy evaluator, checkpoints chosen on
easy validation, never on hard answers. Killed, a run goes on from its last checkpoint and ends with
the same weights on a CPU: draws are counter-based, so models, optimizers and `Progress` are the
whole state.

Under `accelerate launch` the loop runs in every process (see `rl.ranks`); only rank 0 writes.

Rollouts come from the embedded engine, or from engines in processes of their own
(`rollout_engines`). The ratio's log-probabilities are always the trainer's. Where the engine has
its own, their gap is measured, and tokens are weighted for it (`rl.importance_cap`).

With `rl.lag` the rollouts of the next update are drawn while an update is scored and learned, with
the weights from before it. The ratio is still to the trainer's policy at the start of an update;
tokens are weighted for having been drawn by an older one (the decoupled objective of Hilton et al.
2022, arXiv 2110.00641, with truncated weights). The update after a checkpoint learns from rollouts
of the checkpoint's own weights, because they judge it. So a checkpoint holds no rollouts, and a run
that goes on from it draws what an undisturbed one does.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.grading.verdicts import Grader
from e2h_pipeline.recipe import OnlineRl
from e2h_pipeline.rl import ranks
from e2h_pipeline.rl.algorithms import SFT_POLICY, RlJob
from e2h_pipeline.rl.batches import Batch, collate, drawn_logprobs
from e2h_pipeline.rl.curricula import State, draw_questions, observe
from e2h_pipeline.rl.guards import VALIDATION, trouble
from e2h_pipeline.rl.metrics import describe, easy_accuracy
from e2h_pipeline.rl.online.advantages import masked_mean
from e2h_pipeline.rl.online.kl_controller import next_coefficient
from e2h_pipeline.rl.online.losses import sampler_gap
from e2h_pipeline.rl.online.models import Run
from e2h_pipeline.rl.online.passes import by_rows, token_logprobs
from e2h_pipeline.rl.online.protocol import OnlineAlgorithm, Update
from e2h_pipeline.rl.online.rollout_engines import RolloutEngine, require_version, rollout_engine
from e2h_pipeline.rl.progress import Progress, finish, rollouts_of
from e2h_pipeline.rl.questions import Question, read_questions
from e2h_pipeline.rl.ranks import together, told
from e2h_pipeline.rl.rollouts import (
    Completion,
    Judges,
    Rollout,
    completions,
    requests,
    rewarded,
    rollout_table,
)
from e2h_pipeline.rl.speed import Speed
from e2h_pipeline.training.trainer import is_main_process, process_count

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

OptionsOf = TypeVar("OptionsOf", bound=OnlineRl)


def train_online(algorithm: OnlineAlgorithm[OptionsOf], job: RlJob[OptionsOf]) -> dict[str, Any]:
    """Train the SFT policy; save the checkpoint that is best on easy validation to `job.work.out`.

    The folder also gets `curves.jsonl`, one line per rollout batch, and `rollouts.parquet`, one row
    per rollout.
    """
    questions, validation = read_questions(job.inputs, job.options)
    job.work.folder.mkdir(parents=True, exist_ok=True)
    with together(), grader(job.grader) as judge:
        run = algorithm.start(job)
        run.split_frozen()
        if process_count() > 1:
            how = "in shards" if run.sharded else "whole"
            job.work.reporter.message(f"{process_count()} processes train together, models {how}")
        with rollout_engine(job, run) as run.engine:
            training = _Training(algorithm, job, run, judge, questions, validation)
            training.begin()
            while training.progress.update < job.options.updates and training.progress.stopped is None:
                training.update()
            summary: dict[str, Any] = told(
                lambda: finish(training.progress, training.best_policy(), job.work)
            )
            speed = training.speed.summary(run, job.work.engine)
    return summary | run.notes | speed


@dataclass(frozen=True)
class _Drawn:
    """A rollout batch, not learned from yet.

    Attributes:
        metrics: measures of the policy that drew, for people and guards.
        seconds: where the time went.
        table: the rollouts as rows to keep.
    """

    update: Update
    metrics: dict[str, float]
    seconds: dict[str, float]
    table: pa.Table


@dataclass(frozen=True)
class _Begun:
    """Rollouts of an update that the engine draws.

    Attributes:
        update: the update that will learn from them, from 0.
        version: of the weights that draw.
    """

    update: int
    version: int
    questions: Sequence[Question]


@dataclass
class _Training:
    """A run from its start or its last checkpoint to its end.

    Attributes:
        ahead: the rollout batch of the next update, if it was drawn early to judge a checkpoint.
        begun: the rollouts that the engine draws at the moment.
        curriculum: its state after all draws and updates so far.
        speed: of the updates of this process.
    """

    algorithm: OnlineAlgorithm[Any]
    job: RlJob[OnlineRl]
    run: Run[Any]
    grader: Grader
    questions: Sequence[Question]
    validation: Sequence[Question]
    progress: Progress = field(default_factory=Progress)
    ahead: _Drawn | None = None
    begun: _Begun | None = None
    curriculum: State = field(default_factory=dict)
    speed: Speed = field(default_factory=Speed)

    def begin(self) -> None:
        """Resume from the last checkpoint, or begin.

        At the start the SFT policy is the first candidate: a run without improvement returns it.
        """
        last = told(lambda: max(map(str, self.job.work.folder.glob("update-*")), default=None))
        if last:
            self.progress = self.run.restore(Path(last))
        else:
            self.progress = Progress(best_accuracy=self._accuracy(), kl_coefficient=self.job.options.kl)
        self.curriculum = self.progress.curriculum

    def update(self) -> None:
        """One update: draw, learn, ask the guards; at a checkpoint validate and save."""
        started, reporter, progress = time.monotonic(), self.job.work.reporter, self.progress
        talked, sent = ranks.seconds(), self.run.engine.sending
        drawn, self.ahead = self.ahead or self._draw(), None
        metrics, seconds = self._learn(drawn)
        progress.stopped = self._trouble([metrics])
        if progress.stopped is None:  # else the update does not count
            self._count(drawn, metrics)
            if self._at_checkpoint():
                self._validate(metrics)
        progress.curves.append(metrics)
        seconds["seconds"] = time.monotonic() - started
        if process_count() > 1:
            seconds["seconds_ranks"] = ranks.seconds() - talked
        if self.run.engine.sending > sent:
            seconds["seconds_send"] = self.run.engine.sending - sent
        reporter.metrics({**metrics, **seconds}, len(progress.curves))
        self.speed.count(len(drawn.update.rollouts), {**metrics, **seconds})
        if progress.stopped:
            self._tell_stop()
            return
        reporter.progress(progress.update, self.job.options.updates, f"{self.algorithm.name} updates")
        if VALIDATION in metrics:
            progress.note(metrics[VALIDATION])
            self.run.save(self._checkpoint(progress.update), progress)
            if is_main_process():
                self._drop_old()

    def best_policy(self) -> Path:
        """Folder of the policy that is best on easy validation."""
        best = self.progress.best_update
        return self.run.whole_policy(self._checkpoint(best)) if best else self.job.inputs[SFT_POLICY]

    def _draw(self) -> _Drawn:
        """The rollout batch of the next update. With `rl.lag` the one after it is begun."""
        began, update, options = time.monotonic(), self.progress.update, self.job.options
        begun = self.begun or self._begin(update)
        found = self._completions(begun)
        after = update + 1
        early = options.lag and after < options.updates and after % options.checkpoint_every
        self.begun = self._begin(after) if early else None
        return self._scored(begun, found, time.monotonic() - began)

    def _begin(self, update: int) -> _Begun:
        """Let the engine draw for an update, with the present weights."""
        options, seed = self.job.options, self.job.work.seed
        questions, self.curriculum = draw_questions(self.questions, options, self.curriculum, seed, update)
        self._engine().begin(*requests(questions, self.job.domain.text, options, seed, update))
        return _Begun(update, self.progress.update, questions)

    def _completions(self, begun: _Begun) -> list[Completion]:
        """What the engine has drawn."""
        found = completions(begun.questions, self.run.engine.drawn())
        require_version([sample for _, sample in found], begun.version, begun.update)
        return found

    def _scored(self, begun: _Begun, found: Sequence[Completion], seconds: float) -> _Drawn:
        """Rewards of a rollout batch, and its log-probabilities under the present weights.

        Args:
            seconds: spent on drawing.
        """
        run, options, progress, began = self.run, self.job.options, self.progress, time.monotonic()
        with run.judge() as evaluator:
            judges = Judges(evaluator, self.grader, self.job.domain)
            rollouts = rewarded(found, run.tokenizer, judges, options)
        spent = {"seconds_rollout": seconds, "seconds_score": time.monotonic() - began}
        rollouts.sort(key=lambda r: len(r.prompt_ids) + len(r.sample.token_ids))
        batch = collate(rollouts, run.tokenizer.pad_token_id, run.policy.device)
        exact = run.engine.exact and begun.version == progress.update
        old, reference = _logprobs(run, rollouts, batch, exact)
        sampler = None if exact else drawn_logprobs(rollouts, batch)
        divergence = (old - reference) * batch.mask
        seed, kl = self.job.work.seed, progress.kl_coefficient
        return _Drawn(
            Update(begun.update, seed, rollouts, batch, old, reference, kl, sampler),
            {
                **describe(rollouts),
                "kl": masked_mean(divergence, batch.mask).item(),
                **({} if sampler is None else sampler_gap(old, sampler, batch.mask)),
            },
            spent,
            rollout_table(rollouts, begun.update + 1, divergence.sum(1).tolist()),
        )

    def _learn(self, drawn: _Drawn) -> tuple[dict[str, float], dict[str, float]]:
        """The optimizer steps of a rollout batch: metrics, and where the time went."""
        began = time.monotonic()
        self.run.set_learning_rates(drawn.update.number)
        with self.run.recomputing():
            learned = self.algorithm.learn(self.run, drawn.update)
        metrics = drawn.metrics | learned | {"kl_coefficient": drawn.update.kl}
        metrics = told(lambda: metrics)  # so that all ranks decide alike, however they round
        return metrics, drawn.seconds | {"seconds_update": time.monotonic() - began}

    def _count(self, drawn: _Drawn, metrics: dict[str, float]) -> None:
        """Record a finished update: the state and rollouts that the next one builds on."""
        progress, options, rollouts = self.progress, self.job.options, drawn.update.rollouts
        progress.update += 1
        self.curriculum = progress.curriculum = observe(self.curriculum, rollouts, options)
        progress.kl_coefficient = next_coefficient(
            progress.kl_coefficient, metrics["kl"], len(rollouts), options
        )
        if is_main_process():
            write_table(rollouts_of(self.job.work.folder, progress.update), drawn.table)

    def _at_checkpoint(self) -> bool:
        done, options = self.progress.update, self.job.options
        return done % options.checkpoint_every == 0 or done == options.updates

    def _validate(self, metrics: dict[str, float]) -> None:
        """Measure a checkpoint, and judge it by its own rollouts.

        Those are the rollouts of the next update; after the last update they are drawn only for
        this.
        """
        accuracy = self._accuracy()
        self.ahead = self._draw()
        self.progress.stopped = self._trouble([metrics, self.ahead.metrics | {VALIDATION: accuracy}])
        metrics[VALIDATION] = accuracy

    def _accuracy(self) -> float:
        """Greedy accuracy of the present policy on easy validation."""
        limit = self.job.options.max_new_tokens
        return easy_accuracy(self._engine(), self.validation, limit, self.grader, self.job.domain)

    def _engine(self) -> RolloutEngine:
        """The engine, with the present weights."""
        self.run.engine.take_weights(self.progress.update)
        return self.run.engine

    def _trouble(self, latest: Sequence[dict[str, float]]) -> str | None:
        progress = self.progress
        history = [*progress.curves, *latest]
        return trouble(history, self.job.options, progress.best_update, progress.best_accuracy)

    def _tell_stop(self) -> None:
        """Report the stop, and the rollouts of a checkpoint where a guard saw them."""
        reporter, progress = self.job.work.reporter, self.progress
        if self.ahead:
            progress.curves.append(self.ahead.metrics)
            reporter.metrics(self.ahead.metrics, len(progress.curves))
        reporter.message(
            f"{self.algorithm.name} stops at update {progress.update}: {progress.stopped}; the last good policy is kept"
        )

    def _checkpoint(self, update: int) -> Path:
        return self.job.work.folder / f"update-{update:06d}"

    def _drop_old(self) -> None:
        """Remove all checkpoints but the last and the best."""
        kept = {self._checkpoint(self.progress.update), self._checkpoint(self.progress.best_update)}
        for folder in self.job.work.folder.glob("update-*"):
            if folder not in kept:
                shutil.rmtree(folder)


def _logprobs(run: Run[Any], rollouts: Sequence[Rollout], batch: Batch, exact: bool) -> tuple[Tensor, Tensor]:
    """Log-probabilities under the present policy and under the SFT policy, (batch, length) each.

    Args:
        exact: the log-probabilities of the draw are those of the present policy.
    """
    options = run.options
    if exact:
        old = drawn_logprobs(rollouts, batch)
    else:  # the first ratio must be 1
        with run.measuring("policy") as policy:
            old = by_rows(batch, options, lambda part: token_logprobs(policy, part, options.temperature)[0])
    with run.reference() as sft:
        reference = by_rows(batch, options, lambda part: token_logprobs(sft, part, options.temperature)[0])
    return old, reference
