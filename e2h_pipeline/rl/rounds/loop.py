"""Training in rounds: draw solutions of all questions, choose among them, train on what was chosen, and again.

A method says what is chosen and what is learned from it (`Method`); the rest is the same for all: the resumable
sample pool, scores of the easy evaluator, guards, and a policy chosen on easy validation. Questions are read from
the same place as in `loop`. What a killed round had drawn, scored, chosen or trained is there when it goes on.

Guards look at the policy that a round ends with, the last one's too, and compare it with the SFT policy: each answers
the same questions once, as many as `rl.guards.window` updates of the online algorithms (`_probe`).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.rl.guards import VALIDATION, trouble
from e2h_pipeline.rl.metrics import means, measures
from e2h_pipeline.rl.progress import Progress, finish, rollouts_of
from e2h_pipeline.rl.questions import read_questions
from e2h_pipeline.rl.rollouts import Rollout, rollout_table
from e2h_pipeline.rl.rounds.drawing import draw_scored, measure_divergences, scored_parts, write_questions
from e2h_pipeline.rl.rounds.run import (
    METRICS_FILE,
    POLICY_FOLDER,
    PROBE,
    Method,
    RoundsRun,
    read_metrics,
    round_folder,
    write_metrics,
)
from e2h_pipeline.training.batches import Example
from e2h_pipeline.training.trainer import Settings, train

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.artifacts.shards import Runner
    from e2h_pipeline.recipe import Rl

_AFTER = "after_"  # before the names of what a probe measured, for the round's pool is of the policy before
_TRAINED = ("loss", VALIDATION)  # what guards look at beside it


def train_in_rounds(
    method: Method,
    base: Path,
    policy: Path,
    evaluator: Path,
    easy_problems: Path,
    hard_questions: Path,
    out: Path,
    work: Path,
    options: Rl,
    seed: int,
    grader_name: str,
    reporter: Reporter,
    engine: str = "transformers",
    runner: Runner | None = None,
) -> dict[str, Any]:
    """Train from the policy in `policy` and save the round's policy that is best on easy validation to `out`.

    Args:
        base: the pretrained model, for methods that start over in each round.
        engine, runner: who draws the solutions.

    `out` also gets `curves.jsonl`, one line per round, and `rollouts.parquet`, one row per drawn solution. Killed, it
    goes on where it was and ends with the same weights.
    """
    questions, validation = read_questions(easy_problems, hard_questions, options)
    work.mkdir(parents=True, exist_ok=True)
    write_questions(work / "questions", questions)
    one = options.guards.model_copy(update={"window": 1, "hack_window": 1})
    guarded = options.model_copy(update={"guards": one})
    total = method.rounds(options).rounds
    with grader(grader_name) as judge:
        run = RoundsRun(
            method,
            base,
            policy,
            evaluator,
            questions,
            validation,
            work,
            options,
            seed,
            judge,
            reporter,
            engine,
            runner,
        )
        watched = [_probe(run, 0, policy)]
        progress = Progress(best_accuracy=watched[0][VALIDATION])
        current = best = policy
        while progress.update < total:
            started, number = time.monotonic(), progress.update + 1
            metrics, seconds = _round(run, number, current)
            progress.curves.append(metrics)
            reporter.metrics({**metrics, **seconds, "seconds": time.monotonic() - started}, number)
            progress.stopped = _nothing_chosen(metrics)
            if progress.stopped is None:
                progress.update = number
                watched.append(_watched(metrics))
                progress.stopped = trouble(
                    watched, guarded, progress.best_update, progress.best_accuracy, begins=0
                )
            if progress.stopped:
                reporter.message(
                    f"{method.name} stops in round {number}: {progress.stopped}; the last good policy is kept"
                )
                break
            reporter.progress(number, total, f"{method.name} rounds")
            progress.note(metrics[VALIDATION])
            current = round_folder(work, number) / POLICY_FOLDER
            if progress.best_update == number:
                best = current
    return finish(progress, best, out, work)


def _nothing_chosen(metrics: Mapping[str, float]) -> str | None:
    if metrics["chosen"]:
        return None
    return (
        "nothing was chosen to train on: no question has solutions that are told apart; draw more, or hotter"
    )


def _watched(metrics: Mapping[str, float]) -> dict[str, float]:
    """What guards look at of a round: the policy that it ended with."""
    after = {name.removeprefix(_AFTER): value for name, value in metrics.items() if name.startswith(_AFTER)}
    return after | {name: metrics[name] for name in _TRAINED}


def _round(run: RoundsRun, number: int, current: Path) -> tuple[dict[str, float], dict[str, float]]:
    """One round: its metrics, and where the time of this process went. The metrics are written last, and are there if and
    only if its policy and rollouts are."""
    folder = round_folder(run.work, number)
    finished = folder / METRICS_FILE
    if finished.exists():
        return read_metrics(finished), {}
    chosen = folder / "chosen.parquet"
    drawn = folder / "drawn.json"
    seconds: dict[str, float] = {}
    if not chosen.exists():
        seconds = draw_scored(
            run,
            folder,
            current,
            read_table(run.work / "questions" / "data.parquet"),
            run.method.rounds(run.options).samples,
            f"round-{number}",
            f"round {number} samples",
        )
        found, examples = _choose(run, number)
        drawn.write_text(json.dumps(found), encoding="utf-8")
        write_table(chosen, examples)
    metrics = read_metrics(drawn)
    if metrics["chosen"]:
        began = time.monotonic()
        trained = _train(run, number, run.method.start(run.base, current), read_table(chosen))
        seconds["seconds_update"] = time.monotonic() - began
        seen = _probe(run, number, folder / POLICY_FOLDER)
        metrics |= trained | {VALIDATION: seen.pop(VALIDATION)}
        metrics |= {f"{_AFTER}{name}": value for name, value in seen.items()}
    write_metrics(finished, metrics)
    _clear(folder)
    return metrics, seconds


def _clear(folder: Path) -> None:
    """Remove what is largest, and no longer of use."""
    for part in ("pool", "samples", "scores", "scored", "training"):
        shutil.rmtree(folder / part, ignore_errors=True)


def _probe(run: RoundsRun, number: int, policy: Path) -> dict[str, float]:
    """What guards look at of a round's policy, of the SFT policy where the number is 0: greedy accuracy on easy validation,
    and the means over one solution each of some questions. Questions and randomness are the same in every round."""
    folder = round_folder(run.work, number) / PROBE
    finished = folder / METRICS_FILE
    if finished.exists():
        return read_metrics(finished)
    most = min(len(run.questions), run.options.rollouts * run.options.guards.window)
    rows = sorted(random.Random(f"rl/probe/{run.seed}").sample(range(len(run.questions)), most))
    table = read_table(run.work / "questions" / "data.parquet").take(rows)
    draw_scored(run, folder, policy, table, 1, PROBE, f"round {number} policy samples")
    reference = run.reference()

    def solutions() -> Iterator[dict[str, float]]:
        for solved in scored_parts(run, folder, reference[1]):
            yield from _measures(solved, measure_divergences(*reference, solved))

    found = dict(sorted(means(solutions()).items())) | {VALIDATION: run.accuracy(policy)}
    write_metrics(finished, found)
    _clear(folder)
    return found


def _choose(run: RoundsRun, number: int) -> tuple[dict[str, float], pa.Table]:
    """What the round trains on, and metrics of all that was drawn. One part of the pool is in memory at a time."""
    reference = run.reference()
    examples: list[Example] = []
    counts: Counter[str] = Counter()
    kept: list[pa.Table] = []

    def solutions() -> Iterator[dict[str, float]]:
        for solved in scored_parts(run, round_folder(run.work, number), reference[1]):
            divergences = measure_divergences(*reference, solved)
            kept.append(rollout_table(solved, number, divergences))
            found, became = run.method.choose(solved, run.judge.classes, run.options, run.seed, number)
            examples.extend(found)
            counts.update(became)
            yield from _measures(solved, divergences)

    metrics = dict(sorted(means(solutions()).items()))
    write_table(rollouts_of(run.work, number), _together(kept))
    return {**metrics, **counts, "chosen": len(examples)}, _example_table(examples)


def _measures(solved: Sequence[Rollout], divergences: Sequence[float | None]) -> Iterator[dict[str, float]]:
    """What people and guards watch, of each solution; KL, per token, of those that have it."""
    for rollout, kl in zip(solved, divergences, strict=True):
        per_token = {} if kl is None else {"kl": kl / max(1, len(rollout.sample.token_ids))}
        yield measures(rollout) | per_token


def _train(run: RoundsRun, number: int, start: Path, examples: pa.Table) -> dict[str, float]:
    """Train on what was chosen and save the policy of the round."""
    from e2h_pipeline.models.base import save_model
    from e2h_pipeline.models.load import load_policy

    policy = round_folder(run.work, number) / POLICY_FOLDER
    model, tokenizer = load_policy(start)
    summary = train(
        model.train(),
        _Examples(examples),
        run.method.objective(run.options),
        Settings.of(run.method.rounds(run.options), run.seed * 100 + number),
        pad_id=tokenizer.pad_token_id,
        work=round_folder(run.work, number) / "training",
        reporter=_OfRound(run.reporter, number),
    )
    temporary = policy.with_name(f".{policy.name}.{os.getpid()}.tmp")
    save_model(model, tokenizer, temporary)
    shutil.rmtree(policy, ignore_errors=True)
    temporary.rename(policy)
    return {"loss": summary["final_loss"], "optimizer_steps": summary["updates"]}


class _Examples:
    """Rows of a table as a data set; a row becomes Python lists when it is asked for."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table.combine_chunks()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int, /) -> Example:
        return {name: self._table[name][index].as_py() for name in self._table.column_names}


class _OfRound(Reporter):
    """Curves of one round's training, under its number: each round counts its optimizer steps from 1."""

    def __init__(self, inner: Reporter, number: int) -> None:
        super().__init__()
        self._inner, self._number = inner, number

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._inner.metrics({f"round_{self._number}/{name}": value for name, value in values.items()}, step)

    def message(self, text: str) -> None:
        self._inner.message(f"round {self._number}: {text}")


def _example_table(examples: Sequence[Example]) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: [list(e[name]) for e in examples] for name in (examples[0] if examples else ())})


def _together(tables: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables)
