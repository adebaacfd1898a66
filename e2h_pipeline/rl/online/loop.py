"""The loop that all reinforcement learning here runs in: roll out, reward, learn, validate, save.

An algorithm says what is learned from a batch of rewarded rollouts (`Algorithm`); the rest is the same for
all: questions of both kinds, rewards from the easy evaluator, checkpoints chosen on easy validation, never on hard
answers. Killed, a run goes on from its last checkpoint and ends with the same weights on a CPU: every draw is
counted, so models, optimizers and `Progress` are the whole state.

A run is one process on one device. It draws with the embedded engine, whatever the pipeline samples with: that one
samples from the weights that learn, and gives the log-probability of each token, which the ratio needs.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.rl.curricula import State, draw_questions, observe
from e2h_pipeline.rl.guards import VALIDATION, trouble
from e2h_pipeline.rl.metrics import describe, easy_accuracy
from e2h_pipeline.rl.online.advantages import masked_mean
from e2h_pipeline.rl.online.kl_controller import next_coefficient
from e2h_pipeline.rl.online.models import Run
from e2h_pipeline.rl.online.passes import by_rows, token_logprobs
from e2h_pipeline.rl.progress import Progress, finish, rollouts_of
from e2h_pipeline.rl.questions import read_questions
from e2h_pipeline.rl.rollouts import (
    Batch,
    Grade,
    Question,
    Rollout,
    collate,
    draw,
    drawn_logprobs,
    rewarded,
    rollout_table,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.recipe import Rl


@dataclass(frozen=True)
class Update:
    """One batch of rewarded rollouts, of which an algorithm learns.

    Attributes:
        number: updates before this one.
        rollouts: in the order of the batch's rows.
        old, reference: (batch, length) log-probabilities of the tokens under the policy that drew them, and under
            the policy of the start.
        kl: coefficient of the KL to the policy of the start.
    """

    number: int
    seed: int
    rollouts: Sequence[Rollout]
    batch: Batch
    old: Tensor
    reference: Tensor
    kl: float


class Algorithm(Protocol):
    """What is learned from rollouts.

    Attributes:
        name: as people write it.
    """

    name: str

    def start(self, policy: Path, evaluator: Path, options: Rl) -> Run:
        """The models of a run and their optimizers."""
        ...

    def learn(self, run: Run, update: Update) -> dict[str, float]:
        """The optimizer steps of one rollout batch.

        Returns:
            Metrics, `gradient_norm` among them: one that is not finite stops the run.
        """
        ...


def train_policy(
    algorithm: Algorithm,
    policy: Path,
    evaluator: Path,
    easy_problems: Path,
    hard_questions: Path,
    out: Path,
    work: Path,
    options: Rl,
    seed: int,
    grader: str,
    reporter: Reporter,
) -> dict[str, Any]:
    """Train the policy in `policy` and save the checkpoint that is best on easy validation to `out`.

    Args:
        algorithm: makes a run of the two folders, and does its updates.

    `out` also gets `curves.jsonl`, one line per rollout batch, and `rollouts.parquet`, one row per rollout. Killed,
    it goes on from its last checkpoint in `work` and ends with the same weights.
    """
    from e2h_pipeline.grading.graders import Verdict, verdicts
    from e2h_pipeline.grading.graders import grader as open_grader

    questions, validation = read_questions(easy_problems, hard_questions, options)
    run = algorithm.start(policy, evaluator, options)
    work.mkdir(parents=True, exist_ok=True)
    checkpoints = sorted(work.glob("update-*"))
    progress = run.restore(checkpoints[-1]) if checkpoints else None
    with ExitStack() as stack:
        judge = stack.enter_context(open_grader(grader))

        def grade(pairs: Sequence[tuple[str, str]]) -> list[bool]:
            return [verdict is Verdict.EQUAL for verdict in verdicts(judge, pairs)]

        if progress is None:  # the SFT policy is the first candidate: a run that only harms it returns it
            progress = Progress(
                best_accuracy=easy_accuracy(run.engine, grade, validation, options.max_new_tokens),
                kl_coefficient=options.kl,
            )
        ahead: _Drawn | None = None
        while progress.update < options.updates and progress.stopped is None:
            started = time.monotonic()
            drawn = ahead or _draw(run, grade, questions, seed, progress)
            ahead = None
            metrics, seconds = _learn(algorithm, run, drawn)
            progress.stopped = _trouble(progress, [metrics], options)
            if progress.stopped is None:  # else its rollouts and what it learned from them do not count
                progress.update += 1
                progress.curriculum = observe(drawn.curriculum, drawn.update.rollouts, options)
                progress.kl_coefficient = next_coefficient(
                    progress.kl_coefficient, metrics["kl"], len(drawn.update.rollouts), options
                )
                write_table(rollouts_of(work, progress.update), drawn.table)
                if progress.update % options.checkpoint_every == 0 or progress.update == options.updates:
                    accuracy = easy_accuracy(run.engine, grade, validation, options.max_new_tokens)
                    # A checkpoint is judged by its own rollouts: those of the next update, behind the last by some more.
                    ahead = _draw(run, grade, questions, seed, progress)
                    seen = [metrics, ahead.metrics | {VALIDATION: accuracy}]
                    progress.stopped = _trouble(progress, seen, options)
                    metrics[VALIDATION] = accuracy
            progress.curves.append(metrics)
            at = len(progress.curves)
            reporter.metrics({**metrics, **seconds, "seconds": time.monotonic() - started}, at)
            if progress.stopped:
                if ahead:  # what the guard saw
                    progress.curves.append(ahead.metrics)
                    reporter.metrics(ahead.metrics, at + 1)
                reporter.message(
                    f"{algorithm.name} stops at update {progress.update}: {progress.stopped}; the last good policy is kept"
                )
                break
            reporter.progress(progress.update, options.updates, f"{algorithm.name} updates")
            if VALIDATION in metrics:
                progress.note(metrics[VALIDATION])
                run.save(work / f"update-{progress.update:06d}", progress)
                _drop_old(work, progress)
    best = work / f"update-{progress.best_update:06d}" / "policy" if progress.best_update else policy
    return finish(progress, best, out, work)


def _trouble(progress: Progress, latest: Sequence[dict[str, float]], options: Rl) -> str | None:
    return trouble([*progress.curves, *latest], options, progress.best_update, progress.best_accuracy)


@dataclass(frozen=True)
class _Drawn:
    """A rollout batch of the policy as it is, not learned from yet.

    Attributes:
        metrics: what people and guards watch of the policy that drew.
        seconds: where the time went.
        curriculum: its state behind the draw.
        table: what is kept of the rollouts.
    """

    update: Update
    metrics: dict[str, float]
    seconds: dict[str, float]
    curriculum: State
    table: pa.Table


def _draw(run: Run, grade: Grade, questions: Sequence[Question], seed: int, progress: Progress) -> _Drawn:
    """The rollout batch that comes next."""
    options, update, began = run.options, progress.update, time.monotonic()
    drawn, curriculum = draw_questions(questions, options, progress.curriculum, seed, update)
    completions = draw(run.engine, drawn, options, seed, update)
    rolled_out = time.monotonic()
    rollouts = rewarded(completions, run.tokenizer, run.evaluator, run.evaluator_tokenizer, grade, options)
    seconds = {"seconds_rollout": rolled_out - began, "seconds_score": time.monotonic() - rolled_out}
    rollouts.sort(key=lambda r: len(r.prompt_ids) + len(r.sample.token_ids))
    batch = collate(rollouts, run.tokenizer.pad_token_id, run.policy.device)
    if run.policy.dtype == torch.float32:
        old = drawn_logprobs(rollouts, batch)
    else:  # in 16 bits the products of drawing and of learning round apart, and the first ratio must be 1
        old = by_rows(batch, options, lambda part: token_logprobs(run.policy, part, options.temperature)[0])
    reference = by_rows(
        batch, options, lambda part: token_logprobs(run.reference, part, options.temperature)[0]
    )
    divergence = (old - reference) * batch.mask
    return _Drawn(
        Update(update, seed, rollouts, batch, old, reference, progress.kl_coefficient),
        {**describe(rollouts), "kl": masked_mean(divergence, batch.mask).item()},
        seconds,
        curriculum,
        rollout_table(rollouts, update + 1, divergence.sum(1).tolist()),
    )


def _learn(algorithm: Algorithm, run: Run, drawn: _Drawn) -> tuple[dict[str, float], dict[str, float]]:
    """The optimizer steps of a rollout batch: metrics, and where the time went."""
    began = time.monotonic()
    run.set_learning_rates(drawn.update.number)
    with run.recomputing():
        learned = algorithm.learn(run, drawn.update)
    metrics = drawn.metrics | learned | {"kl_coefficient": drawn.update.kl}
    return metrics, drawn.seconds | {"seconds_update": time.monotonic() - began}


def _drop_old(work: Path, progress: Progress) -> None:
    kept = {f"update-{progress.update:06d}", f"update-{progress.best_update:06d}"}
    for folder in work.glob("update-*"):
        if folder.name not in kept:
            shutil.rmtree(folder)
