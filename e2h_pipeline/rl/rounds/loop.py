"""Training in rounds: draw solutions of all questions, choose, train on the chosen ones, repeat.

An algorithm chooses solutions and has the loss on them (`RoundsAlgorithm`). The rest is the same
for all: the resumable sample pool, scores of the easy evaluator, guards, and a policy chosen on
easy validation. Questions are those of the online loop. A killed run keeps what its round had
drawn, scored, chosen or trained, and goes on from there.

Under `accelerate launch` the processes train together; all else rank 0 does alone (see `rl.ranks`).

Guards look at the policy that a round ends with, the last round's too, and compare it with the SFT
policy: each answers the same `probe_questions` questions once (`_probe`).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import TABLE, read_table, write_table
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.recipe import RoundsRl
from e2h_pipeline.rl.algorithms import RlJob
from e2h_pipeline.rl.guards import VALIDATION, trouble
from e2h_pipeline.rl.metrics import means, measures
from e2h_pipeline.rl.progress import Progress, finish, rollouts_of
from e2h_pipeline.rl.questions import read_questions
from e2h_pipeline.rl.ranks import alone, together
from e2h_pipeline.rl.rollouts import Rollout, rollout_table
from e2h_pipeline.rl.rounds.drawing import (
    Pool,
    draw_scored,
    measure_divergences,
    scored_parts,
    write_questions,
)
from e2h_pipeline.rl.rounds.protocol import RoundsAlgorithm
from e2h_pipeline.rl.rounds.run import (
    METRICS_FILE,
    POLICY_FOLDER,
    PROBE,
    RoundsRun,
    read_metrics,
    write_metrics,
)
from e2h_pipeline.training.adapters import whole
from e2h_pipeline.training.batches import Example
from e2h_pipeline.training.trainer import Settings, is_main_process, process_count, train

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OptionsOf = TypeVar("OptionsOf", bound=RoundsRl)

_DRAWN, _CHOSEN = "drawn.json", "chosen.parquet"  # metrics of a round's solutions; its examples
_AFTER = "after_"  # prefix of a probe's metrics; a round's own metrics are those of the policy before it
_TRAINED = ("loss", VALIDATION)  # metrics without the prefix that guards look at too


def train_in_rounds(algorithm: RoundsAlgorithm[OptionsOf], job: RlJob[OptionsOf]) -> dict[str, Any]:
    """Train from the SFT policy; save the round's policy that is best on easy validation.

    The folder also gets `curves.jsonl`, one line per round, and `rollouts.parquet`, one row per
    drawn solution.
    """
    Settings.of(job.options, job.work.seed).micro_batch(process_count())  # an error now, not after hours
    questions, validation = read_questions(job.inputs, job.options)
    with together(), grader(job.grader) as judge:
        run = RoundsRun(algorithm, job, judge, questions, validation)
        job.work.folder.mkdir(parents=True, exist_ok=True)
        if is_main_process():
            write_questions(run.question_folder, questions)
        progress = _all_rounds(run)
        best = run.folder(progress.best_update) / POLICY_FOLDER if progress.best_update else run.sft
        summary: dict[str, Any] = alone(lambda: finish(progress, best, job.work))
    return summary


def _all_rounds(run: RoundsRun) -> Progress:
    """Round after round, until the last or until a guard stops the run."""
    reporter, name, total = run.job.work.reporter, run.algorithm.name, run.options.rounds
    one = run.options.guards.model_copy(update={"window": 1, "hack_window": 1})
    guarded = run.options.model_copy(update={"guards": one})
    watched = [alone(lambda: _probe(run, 0, run.sft))]
    progress, current = Progress(best_accuracy=watched[0][VALIDATION]), run.sft
    while progress.update < total:
        started, number = time.monotonic(), progress.update + 1
        metrics, seconds = _round(run, number, current)
        progress.curves.append(metrics)
        reporter.metrics({**metrics, **seconds, "seconds": time.monotonic() - started}, number)
        progress.stopped = _nothing_chosen(metrics)
        if progress.stopped is None:
            progress.update = number
            watched.append(_watched(metrics))
            best, accuracy = progress.best_update, progress.best_accuracy
            progress.stopped = trouble(watched, guarded, best, accuracy, begins=0)
        if progress.stopped:
            reporter.message(
                f"{name} stops in round {number}: {progress.stopped}; the last good policy is kept"
            )
            break
        reporter.progress(number, total, f"{name} rounds")
        progress.note(metrics[VALIDATION])
        current = run.folder(number) / POLICY_FOLDER
    return progress


def _nothing_chosen(metrics: Mapping[str, float]) -> str | None:
    if metrics["chosen"]:
        return None
    return "no solutions were chosen to train on; raise rl.samples or rl.temperature"


def _watched(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics for the guards: those of the policy that a round ended with."""
    after = {name.removeprefix(_AFTER): value for name, value in metrics.items() if name.startswith(_AFTER)}
    return after | {name: metrics[name] for name in _TRAINED}


def _round(run: RoundsRun, number: int, current: Path) -> tuple[dict[str, float], dict[str, float]]:
    """One round: its metrics, and where the time of this process went.

    The file of metrics is written last: where it is, policy and rollouts are too.

    Args:
        current: the policy that draws.
    """
    folder = run.folder(number)
    finished = folder / METRICS_FILE
    if alone(finished.exists):
        return read_metrics(finished), {}
    seconds: dict[str, float] = alone(lambda: _choose_once(run, number, current))
    metrics = read_metrics(folder / _DRAWN)
    if metrics["chosen"]:
        began = time.monotonic()
        trained = _train(run, number, run.algorithm.start(run.job, current), read_table(folder / _CHOSEN))
        seconds["seconds_update"] = time.monotonic() - began
        seen = alone(lambda: _probe(run, number, folder / POLICY_FOLDER))
        metrics |= trained | {VALIDATION: seen.pop(VALIDATION)}
        metrics |= {f"{_AFTER}{name}": value for name, value in seen.items()}
    if is_main_process():
        write_metrics(finished, metrics)
        _clear(folder)
    return metrics, seconds


def _choose_once(run: RoundsRun, number: int, current: Path) -> dict[str, float]:
    """Draw a round's solutions and choose among them, unless that was done; where the time went."""
    folder = run.folder(number)
    if (folder / _CHOSEN).exists():
        return {}
    pool = Pool(folder, run.options.samples, f"round-{number}", f"round {number} samples")
    seconds = draw_scored(run, current, read_table(run.question_folder / TABLE), pool)
    found, examples = _choose(run, number)
    (folder / _DRAWN).write_text(json.dumps(found), encoding="utf-8")
    write_table(folder / _CHOSEN, examples)
    return seconds


def _clear(folder: Path) -> None:
    """Remove the largest files, which are no longer needed."""
    for part in ("pool", "samples", "scores", "scored", "training"):
        shutil.rmtree(folder / part, ignore_errors=True)


def _probe(run: RoundsRun, number: int, policy: Path) -> dict[str, float]:
    """Metrics for the guards, of a round's policy or of the SFT policy (number 0).

    Greedy accuracy on easy validation, and the means over one solution each of some questions.
    Questions and randomness are the same in every round.
    """
    folder = run.folder(number) / PROBE
    finished = folder / METRICS_FILE
    if finished.exists():
        return read_metrics(finished)
    most = min(len(run.questions), run.options.probe_questions)
    rng = random.Random(f"rl/probe/{run.job.work.seed}")
    rows = sorted(rng.sample(range(len(run.questions)), most))
    table = read_table(run.question_folder / TABLE).take(rows)
    draw_scored(run, policy, table, Pool(folder, 1, PROBE, f"round {number} policy samples"))
    reference = run.reference()

    def solutions() -> Iterator[dict[str, float]]:
        for solved in scored_parts(run, folder, reference[1]):
            yield from _measures(solved, measure_divergences(*reference, solved))

    found = dict(sorted(means(solutions()).items())) | {VALIDATION: run.accuracy(policy)}
    write_metrics(finished, found)
    _clear(folder)
    return found


def _choose(run: RoundsRun, number: int) -> tuple[dict[str, float], pa.Table]:
    """Metrics of all drawn solutions, and the examples that the round trains on.

    One part of the pool is in memory at a time.
    """
    reference, seed = run.reference(), run.job.work.seed
    examples: list[Example] = []
    counts: Counter[str] = Counter()
    kept: list[pa.Table] = []

    def solutions() -> Iterator[dict[str, float]]:
        for solved in scored_parts(run, run.folder(number), reference[1]):
            divergences = measure_divergences(*reference, solved)
            kept.append(rollout_table(solved, number, divergences))
            found, became = run.algorithm.choose(solved, run.grader.classes, run.options, seed, number)
            examples.extend(found)
            counts.update(became)
            yield from _measures(solved, divergences)

    metrics = dict(sorted(means(solutions()).items()))
    write_table(rollouts_of(run.job.work.folder, number), _together(kept))
    return {**metrics, **counts, "chosen": len(examples)}, _example_table(examples)


def _measures(solved: Sequence[Rollout], divergences: Sequence[float | None]) -> Iterator[dict[str, float]]:
    """Measures of each solution, with KL per token where it was measured."""
    for rollout, kl in zip(solved, divergences, strict=True):
        per_token = {} if kl is None else {"kl": kl / max(1, len(rollout.sample.token_ids))}
        yield measures(rollout) | per_token


def _train(run: RoundsRun, number: int, start: Path, examples: pa.Table) -> dict[str, float]:
    """Train on the chosen examples, all processes together, and save the policy of the round."""
    from e2h_pipeline.models.load import load_policy

    policy, training = run.folder(number) / POLICY_FOLDER, run.folder(number) / "training"
    model, tokenizer = load_policy(start)
    stored_as = model.dtype
    work = run.job.work
    summary = train(
        model.train(),
        _Examples(examples),
        run.algorithm.objective(run.options),
        Settings.of(run.options, work.seed * 100 + number),
        tokenizer.pad_token_id,
        replace(work, out=training, folder=training, reporter=_OfRound(work.reporter, number)),
    )
    if is_main_process():
        _save(whole(model, training, _weights).to(stored_as), tokenizer, policy)
    return {"loss": summary["final_loss"], "optimizer_steps": summary["updates"]}


def _weights(folder: Path) -> PreTrainedModel:
    """A language model that was saved without its tokenizer."""
    from transformers import AutoModelForCausalLM

    from e2h_pipeline.models.strict import load_strictly

    return load_strictly(AutoModelForCausalLM, folder)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, policy: Path) -> None:
    """Write the policy of a round under a temporary name and rename it: it is whole or absent."""
    from e2h_pipeline.models.base import save_model

    temporary = policy.with_name(f".{policy.name}.{os.getpid()}.tmp")
    save_model(model, tokenizer, temporary)
    shutil.rmtree(policy, ignore_errors=True)
    temporary.rename(policy)


class _Examples:
    """Rows of a table as a data set; a row becomes Python lists when it is asked for."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table.combine_chunks()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int, /) -> Example:
        return {name: self._table[name][index].as_py() for name in self._table.column_names}


class _OfRound(Reporter):
    """Curves of one round's training, under its number: each round counts its steps from 1."""

    def __init__(self, inner: Reporter, number: int) -> None:
        super().__init__()
        self._inner, self._number = inner, number

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """See `Reporter.metrics`."""
        self._inner.metrics({f"round_{self._number}/{name}": value for name, value in values.items()}, step)

    def message(self, text: str) -> None:
        """See `Reporter.message`."""
        self._inner.message(f"round {self._number}: {text}")


def _example_table(examples: Sequence[Example]) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: [list(e[name]) for e in examples] for name in (examples[0] if examples else ())})


def _together(tables: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables)
