"""Training in rounds: draw solutions of all questions, choose among them, train on what was chosen, and again.

A method says what is chosen and what is learned from it (`Method`); the rest is the same for all: the resumable
sample pool, scores of the easy evaluator, guards, and a policy chosen on easy validation. Questions are read from
the same place as in `loop`. What a killed round had drawn, scored, chosen or trained is there when it goes on.

Guards look at the policy that a round ends with, the last one's too, and compare it with the SFT policy: each answers
the same questions once, as many as `rl.guards.window` updates of the online algorithms (`_probe`).
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.generation.engine import Sample
from e2h_pipeline.generation.pool import sample_pool
from e2h_pipeline.grading.equivalence import Verdict, grader, verdicts
from e2h_pipeline.recipe import Sampling, Scoring
from e2h_pipeline.reporter import Reporter
from e2h_pipeline.rewards.scoring import score_pool
from e2h_pipeline.rl.guards import VALIDATION, trouble
from e2h_pipeline.rl.loop import Progress, easy_accuracy, finish, means, measures, read_questions, rollouts_of
from e2h_pipeline.rl.pairs import Classes
from e2h_pipeline.rl.rollouts import Question, Rollout, answer_of, collate, rollout_table
from e2h_pipeline.solutions import format_prompt, parse_completion
from e2h_pipeline.training.batches import Example
from e2h_pipeline.training.trainer import Objective, Settings, train

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.artifacts.shards import Runner
    from e2h_pipeline.grading.verdicts import Grader
    from e2h_pipeline.recipe import Rl, Rounds

_METRICS, _POLICY, _PROBE = "round.json", "policy", "probe"
_AFTER = "after_"  # before the names of what a probe measured, for the round's pool is of the policy before
_TRAINED = ("loss", VALIDATION)  # what guards look at beside it
_KL_ROWS = 64  # solutions of a forward pass that only measures


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
class _Run:
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
        from e2h_pipeline.generation.transformers_engine import TransformersEngine
        from e2h_pipeline.models.load import load_policy

        engine = TransformersEngine(*load_policy(policy))
        return easy_accuracy(engine, self.grade, self.validation, self.options.max_new_tokens)


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
    _write_questions(work / "questions", questions)
    one = options.guards.model_copy(update={"window": 1, "hack_window": 1})
    guarded = options.model_copy(update={"guards": one})
    total = method.rounds(options).rounds
    with grader(grader_name) as judge:
        run = _Run(
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
            current = _folder(work, number) / _POLICY
            if progress.best_update == number:
                best = current
    return finish(progress, best, out, work)


def _nothing_chosen(metrics: Mapping[str, float]) -> str | None:
    if metrics["chosen"]:
        return None
    return (
        "nothing was chosen to train on: no question has solutions that are told apart; draw more, or hotter"
    )


def _folder(work: Path, number: int) -> Path:
    return work / f"round-{number:02d}"


def _watched(metrics: Mapping[str, float]) -> dict[str, float]:
    """What guards look at of a round: the policy that it ended with."""
    after = {name.removeprefix(_AFTER): value for name, value in metrics.items() if name.startswith(_AFTER)}
    return after | {name: metrics[name] for name in _TRAINED}


def _round(run: _Run, number: int, current: Path) -> tuple[dict[str, float], dict[str, float]]:
    """One round: its metrics, and where the time of this process went. The metrics are written last, and are there if and
    only if its policy and rollouts are."""
    folder = _folder(run.work, number)
    finished = folder / _METRICS
    if finished.exists():
        return _read(finished), {}
    chosen = folder / "chosen.parquet"
    drawn = folder / "drawn.json"
    seconds: dict[str, float] = {}
    if not chosen.exists():
        seconds = _draw(
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
    metrics = _read(drawn)
    if metrics["chosen"]:
        began = time.monotonic()
        trained = _train(run, number, run.method.start(run.base, current), read_table(chosen))
        seconds["seconds_update"] = time.monotonic() - began
        seen = _probe(run, number, folder / _POLICY)
        metrics |= trained | {VALIDATION: seen.pop(VALIDATION)}
        metrics |= {f"{_AFTER}{name}": value for name, value in seen.items()}
    _write(finished, metrics)
    _clear(folder)
    return metrics, seconds


def _read(file: Path) -> dict[str, float]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _write(file: Path, metrics: Mapping[str, float]) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(metrics), encoding="utf-8")
    temporary.rename(file)


def _clear(folder: Path) -> None:
    """Remove what is largest, and no longer of use."""
    for part in ("pool", "samples", "scores", "scored", "training"):
        shutil.rmtree(folder / part, ignore_errors=True)


def _probe(run: _Run, number: int, policy: Path) -> dict[str, float]:
    """What guards look at of a round's policy, of the SFT policy where the number is 0: greedy accuracy on easy validation,
    and the means over one solution each of some questions. Questions and randomness are the same in every round."""
    folder = _folder(run.work, number) / _PROBE
    finished = folder / _METRICS
    if finished.exists():
        return _read(finished)
    most = min(len(run.questions), run.options.rollouts * run.options.guards.window)
    rows = sorted(random.Random(f"rl/probe/{run.seed}").sample(range(len(run.questions)), most))
    table = read_table(run.work / "questions" / "data.parquet").take(rows)
    _draw(run, folder, policy, table, 1, _PROBE, f"round {number} policy samples")
    reference = run.reference()

    def solutions() -> Iterator[dict[str, float]]:
        for solved in _parts(run, folder, reference[1]):
            yield from _measures(solved, _divergences(*reference, solved))

    found = dict(sorted(means(solutions()).items())) | {VALIDATION: run.accuracy(policy)}
    _write(finished, found)
    _clear(folder)
    return found


def _draw(
    run: _Run, folder: Path, policy: Path, questions: pa.Table, samples: int, stream: str, unit: str
) -> dict[str, float]:
    """A pool of a policy's solutions and its scores, and where the time went; shards that are there are not made again."""
    rounds, began = run.method.rounds(run.options), time.monotonic()
    drawing = Sampling(
        samples=samples,
        temperature=rounds.temperature,
        top_k=rounds.top_k,
        max_new_tokens=run.options.max_new_tokens,
    )
    for linked in ("pool", "scores"):
        shutil.rmtree(folder / linked, ignore_errors=True)
    sample_pool(
        policy,
        questions,
        folder / "pool",
        folder / "samples",
        drawing,
        run.seed,
        f"rl/{run.method.name}/{stream}",
        run.reporter,
        run.engine,
        run.runner,
        unit=unit,
    )
    rolled_out = time.monotonic()
    score_pool(
        run.evaluator,
        folder / "pool",
        run.work / "questions",
        folder / "scores",
        folder / "scored",
        Scoring(),
        run.reporter,
        run.runner,
    )
    return {"seconds_rollout": rolled_out - began, "seconds_score": time.monotonic() - rolled_out}


def _choose(run: _Run, number: int) -> tuple[dict[str, float], pa.Table]:
    """What the round trains on, and metrics of all that was drawn. One part of the pool is in memory at a time."""
    reference = run.reference()
    examples: list[Example] = []
    counts: Counter[str] = Counter()
    kept: list[pa.Table] = []

    def solutions() -> Iterator[dict[str, float]]:
        for solved in _parts(run, _folder(run.work, number), reference[1]):
            divergences = _divergences(*reference, solved)
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


def _parts(run: _Run, folder: Path, tokenizer: PreTrainedTokenizerBase) -> Iterator[list[Rollout]]:
    """The solutions of each part of a pool, scored and, where the answer may be looked at, graded."""
    for part in sorted((folder / "pool").glob("part-*.parquet")):
        rows = read_table(part).to_pylist()
        logits = read_table(folder / "scores" / part.name, ["step_logits"])["step_logits"].to_pylist()
        pairs = [(run.asked[row["problem_id"]], _sample(row)) for row in rows]
        answers = [answer_of(sample) for _, sample in pairs]
        asked = [
            (i, (question.answer, answer))
            for i, ((question, _), answer) in enumerate(zip(pairs, answers, strict=True))
            if question.answer is not None and answer is not None
        ]
        graded = dict(zip([i for i, _ in asked], run.grade([pair for _, pair in asked]), strict=True))
        prompts = {q.problem_id: tuple(tokenizer(format_prompt(q.question))["input_ids"]) for q, _ in pairs}
        yield [
            Rollout(
                question=question,
                prompt_ids=prompts[question.problem_id],
                sample=sample,
                rewards=(),
                evaluator_score=min((1 / (1 + math.exp(-logit)) for logit in own), default=0.0),
                steps=len(parse_completion(sample.completion).steps),
                answered=answer is not None,
                right=None if question.answer is None else graded.get(i, False),
            )
            for i, ((question, sample), answer, own) in enumerate(zip(pairs, answers, logits, strict=True))
        ]


def _sample(row: Mapping[str, Any]) -> Sample:
    return Sample(
        row["sample"], row["completion"], tuple(row["token_ids"]), row["finish_reason"], row["logprob"]
    )


def _divergences(
    reference: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, solved: Sequence[Rollout]
) -> list[float | None]:
    """log policy - log SFT policy of the first solution of each question, None of the others: one forward pass of
    the SFT policy, for the policy's own is known from the draw."""
    import torch

    from e2h_pipeline.rl.preference import sequence_logprobs

    found: list[float | None] = [None] * len(solved)
    first = sorted(
        (i for i, r in enumerate(solved) if r.sample.index == 0 and r.sample.token_ids),
        key=lambda i: len(solved[i].prompt_ids) + len(solved[i].sample.token_ids),
    )
    for start in range(0, len(first), _KL_ROWS):
        rows = first[start : start + _KL_ROWS]
        batch = collate([solved[i] for i in rows], tokenizer.pad_token_id, reference.device)
        with torch.no_grad():
            sums = sequence_logprobs(reference, batch.ids, batch.attention, batch.mask)
        for i, logprob in zip(rows, sums.tolist(), strict=True):
            found[i] = solved[i].sample.logprob - logprob
    return found


def _train(run: _Run, number: int, start: Path, examples: pa.Table) -> dict[str, float]:
    """Train on what was chosen and save the policy of the round."""
    from e2h_pipeline.models.base import save_model
    from e2h_pipeline.models.load import load_policy

    policy = _folder(run.work, number) / _POLICY
    model, tokenizer = load_policy(start)
    summary = train(
        model.train(),
        _Examples(examples),
        run.method.objective(run.options),
        Settings.of(run.method.rounds(run.options), run.seed * 100 + number),
        pad_id=tokenizer.pad_token_id,
        work=_folder(run.work, number) / "training",
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


def _write_questions(folder: Path, questions: Sequence[Question]) -> None:
    import pyarrow as pa

    columns = {
        "problem_id": pa.array([q.problem_id for q in questions], pa.string()),
        "level": pa.array([q.level for q in questions], pa.int8()),
        "question": pa.array([q.question for q in questions], pa.string()),
    }
    write_table(folder / "data.parquet", pa.table(columns))


def _example_table(examples: Sequence[Example]) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: [list(e[name]) for e in examples] for name in (examples[0] if examples else ())})


def _together(tables: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables)
