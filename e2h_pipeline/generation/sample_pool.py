"""The sample pool: completions of a set of questions, drawn shard by shard and lost by no kill.

A shard is a block of questions with a block of their samples, `part-QQQQQ-SSSSSS.parquet` (number of the question
block, first sample). Every draw is a hash of what is drawn and a shard depends on nothing but itself, so a
pool that was killed, extended from N to 4N or drawn elsewhere is the pool drawn in one go. Blocks lie on a
grid that does not depend on N; where N ends within a block, that block is of use to no other N.

One shard is in memory at a time: what is held does not grow with N.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.shards import Call, LocalRunner, Runner, complete_shards, shard_path
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.generation.engines.loading import cached_engine
from e2h_pipeline.generation.engines.protocol import Request, Sample, SamplingOptions, Watch
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.grading.mathematics.extract import final_answer

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.recipe import Evaluation, Sampling

_Row = Mapping[str, Any]
_SUMS = ("samples", "tokens", "unfinished", "abandoned", "no_answer")


def sample_pool(
    policy: Path,
    questions: pa.Table,
    out: Path,
    work: Path,
    options: Sampling,
    seed: int,
    stage: str,
    reporter: Reporter,
    engine: str = "transformers",
    runner: Runner | None = None,
    unit: str = "samples",
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Draw `options.samples` completions of each question and link them into `out` as `part-*.parquet`.

    Args:
        questions: problem_id, level, question (and more); one row per question.
        work: shards, of this and of other N; those that are there and whole are not drawn again.
        stage: names the stream of randomness, so that two pools never share draws.
        runner: who draws the shards; this process where unset.
        unit: what progress counts.
        watch: gives samples up on the way; picklable where a runner is given.

    Returns {"questions", "samples", "tokens", "unfinished" (cut by the limit), "abandoned" (by the watch), "no_answer"
    (both included), "drawn" and "reused" samples, "tokens_per_second" of those drawn}.
    """
    rows = questions.select(["problem_id", "level", "question"]).to_pylist()
    calls = _calls(policy, rows, options, seed, stage, engine, watch)
    tally = _Tally(work, len(rows) * options.samples, unit, reporter)
    try:
        complete_shards(work, calls, draw_shard, runner or LocalRunner(), reporter, tally.count)
    finally:
        cached_engine.cache_clear()
    out.mkdir(parents=True, exist_ok=True)
    for name, _ in calls:
        os.link(shard_path(work, name), shard_path(out, name.partition("+")[0]))
    return {"questions": len(rows), **tally.summary()}


def answers_pool(
    policy: Path,
    questions: pa.Table,
    out: Path,
    work: Path,
    sampling: Sampling,
    evaluation: Evaluation,
    seed: int,
    stage: str,
    reporter: Reporter,
    engine: str = "transformers",
    runner: Runner | None = None,
) -> dict[str, Any]:
    """One greedy completion of each question, and `evaluation.samples` drawn ones, in two pools."""
    one = {"samples": 1, "temperature": 0.0, "shard_questions": 256, "shard_samples": 1}
    pools = {
        "greedy": sampling.model_copy(update=one),
        "sampled": sampling.model_copy(update={"samples": evaluation.samples}),
    }
    return {
        name: sample_pool(
            policy,
            questions,
            out / name,
            work / name,
            options,
            seed,
            stage,
            reporter,
            engine,
            runner,
            f"{name} answers",
        )
        for name, options in pools.items()
    }


def sampling_options(options: Sampling) -> SamplingOptions:
    """The recipe's part that an engine is told."""
    return SamplingOptions(
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        top_k=options.top_k,
        top_p=options.top_p,
        batch_tokens=options.batch_tokens,
        stop=options.stop,
    )


def sample_blocks(samples: int, size: int) -> list[tuple[int, int]]:
    """(first, count) of the blocks of N samples; one without samples where N is 0."""
    return [(first, min(size, samples - first)) for first in range(0, max(samples, 1), size)]


def _calls(
    policy: Path,
    rows: Sequence[_Row],
    options: Sampling,
    seed: int,
    stage: str,
    engine: str,
    watch: Watch | None,
) -> list[Call]:
    """The shards of a pool. The name of a block that N cuts short tells its count behind a plus."""
    drawing, size = sampling_options(options), options.shard_samples
    calls: list[Call] = []
    for block, start in enumerate(range(0, max(len(rows), 1), options.shard_questions)):
        shard = rows[start : start + options.shard_questions]
        for first, count in sample_blocks(options.samples, size):
            cut = "" if count == size else f"+{count}"
            arguments = (engine, policy, shard, first, count, drawing, seed, stage, watch)
            calls.append((f"part-{block:05d}-{first:06d}{cut}", arguments))
    return calls


def draw_shard(
    engine: str,
    policy: Path,
    rows: Sequence[_Row],
    first: int,
    count: int,
    options: SamplingOptions,
    seed: int,
    stage: str,
    watch: Watch | None = None,
) -> pa.Table:
    """Samples `first` ... `first + count - 1` of some questions, in order of question and sample."""
    if not count:  # nobody wants any: the model is not even loaded
        return pool_table([])
    requests = [
        Request(row["question"], stream_key(seed, stage, row["problem_id"]), count, first) for row in rows
    ]
    drawn = cached_engine(engine, policy).sample(requests, options, watch)
    return pool_table([(row, sample) for row, own in zip(rows, drawn, strict=True) for sample in own])


def pool_table(pairs: Sequence[tuple[_Row, Sample]]) -> pa.Table:
    """Question rows and their samples as the pool's table.

    `stop_reason` is the stop string that ended a sample, null elsewhere; `answered` says whether a sample that ended
    by itself has a marked answer.
    """
    import pyarrow as pa

    answered = [final_answer(s.completion, s.finish_reason == "stop") is not None for _, s in pairs]
    return pa.table(
        {
            "problem_id": pa.array([row["problem_id"] for row, _ in pairs], pa.string()),
            "level": pa.array([row["level"] for row, _ in pairs], pa.int8()),
            "sample": pa.array([s.index for _, s in pairs], pa.int32()),
            "completion": pa.array([s.completion for _, s in pairs], pa.string()),
            "token_ids": pa.array([s.token_ids for _, s in pairs], pa.list_(pa.int32())),
            "finish_reason": pa.array([s.finish_reason for _, s in pairs], pa.string()),
            "stop_reason": pa.array([s.stop_reason for _, s in pairs], pa.string()),
            "answered": pa.array(answered, pa.bool_()),
            "logprob": pa.array([s.logprob for _, s in pairs], pa.float32()),
            "tokens": pa.array([len(s.token_ids) for _, s in pairs], pa.int32()),
        }
    )


@dataclass
class _Tally:
    """Sums over the shards of a pool, taken as they are done, and the progress told of them."""

    work: Path
    total: int
    unit: str
    reporter: Reporter
    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0))
    reused: int = 0
    new_tokens: int = 0

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self._tell()

    def count(self, name: str, made: pa.Table | None) -> None:
        """A shard is there; `made` is None where an earlier run left it."""
        columns = ["finish_reason", "answered", "tokens"]
        rows = read_table(shard_path(self.work, name), columns) if made is None else made.select(columns)
        tokens, reasons = sum(rows["tokens"].to_pylist()), rows["finish_reason"].to_pylist()
        found = {
            "samples": rows.num_rows,
            "tokens": tokens,
            "unfinished": reasons.count("length"),
            "abandoned": reasons.count("abandoned"),
            "no_answer": rows["answered"].to_pylist().count(False),
        }
        self.sums = {key: value + found[key] for key, value in self.sums.items()}
        if made is None:
            self.reused += rows.num_rows
            self.started = time.monotonic()  # shards that were there come first
        else:
            self.new_tokens += tokens
        self._tell()

    def _tell(self) -> None:
        self.reporter.progress(self.sums["samples"], self.total, self.unit, self.reused, self.new_tokens)

    def summary(self) -> dict[str, Any]:
        """Sums, what was drawn now and what an earlier run left, and how fast."""
        elapsed = time.monotonic() - self.started
        return {
            **self.sums,
            "drawn": self.sums["samples"] - self.reused,
            "reused": self.reused,
            "tokens_per_second": round(self.new_tokens / elapsed, 1) if self.new_tokens else None,
        }
