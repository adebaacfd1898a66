"""The sample pool: completions of questions, drawn shard by shard; a kill loses no finished shard.

A shard is a block of questions with a block of their samples, `part-QQQQQ-SSSSSS.parquet` (number
of the question block, first sample). It depends on nothing but the arguments of `draw_shard`: a
pool that was killed, or grown from N to 4N, or drawn on several machines equals the pool that was
drawn in one go. Blocks lie on a grid that does not depend on N. Where N ends within a block, no
other N can reuse that block.

One shard is in memory at a time, so memory does not grow with N.

A method that searches has its costs beside each sample. Seconds are in a shard's schema metadata, so
that they are no part of its content: the same pool takes another time on another machine.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.shards import Call, complete_shards, shard_path
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.generation.engines.loading import cached_engine
from e2h_pipeline.generation.engines.protocol import Sample, SampleRequest, SamplingOptions, Watch
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.generation.search.protocol import Cost, Found, Scorer, SearchMethod, TokenJudge, Tools
from e2h_pipeline.recipe import Search

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.problems.domain import Domain
    from e2h_pipeline.recipe import Sampling

_Row = Mapping[str, Any]
_SUMS = ("samples", "tokens", "unfinished", "abandoned", "no_answer")
_COSTS = ("drawn_tokens", "scored_solutions", "dead_tokens", "read_tokens")
SECONDS = b"e2h.seconds"
"""Key of the wall time in a shard's schema metadata: JSON, what it was spent on -> seconds."""


@dataclass(frozen=True)
class Drawing:
    """How a pool is drawn. It is picklable, and is sent to the processes that draw shards.

    Attributes:
        policy: Hugging Face folder of the model.
        domain: of the questions; it formats prompts and finds answers.
        options: N, how tokens are drawn, and the size of shards.
        stage: names the stream of randomness: pools of two stages share no draw.
        method: finds the samples.
        search: the options of `method`.
        scorer: for a method that needs one.
        watch: gives samples up while they are drawn.
        token_judge: for a method that needs one.
    """

    policy: Path
    domain: Domain
    options: Sampling
    stage: str
    method: SearchMethod
    search: Search = field(default_factory=Search)
    scorer: Scorer | None = None
    watch: Watch | None = None
    token_judge: TokenJudge | None = None


@dataclass(frozen=True)
class Block:
    """The questions of a shard, and the samples `first` ... `first + count - 1` of each."""

    rows: Sequence[_Row]
    first: int
    count: int


def sample_pool(drawing: Drawing, questions: pa.Table, work: Work, unit: str = "samples") -> dict[str, Any]:
    """Draw N completions of each question, and link them into `work.out` as `part-*.parquet`.

    Args:
        questions: problem_id, level, question (and more); one row per question.
        work: its folder holds shards, of this and of other N. Whole ones are not drawn again.
        unit: what progress counts.

    Returns:
        "questions", "samples", "tokens", "unfinished" (cut off at the limit), "abandoned" (by the
        watch), "no_answer" (both included), "drawn" and "reused" samples, and "tokens_per_second"
        of those drawn; for a method that counts costs also their sums (`Cost`), and "seconds" by
        what they were spent on, of all shards.
    """
    rows = questions.select(["problem_id", "level", "question"]).to_pylist()
    calls = _calls(drawing, rows, work)
    tally = _Tally(work.folder, len(rows) * drawing.options.samples, unit, work.reporter)
    try:
        complete_shards(work.folder, calls, draw_shard, work.runner, work.reporter, tally.count)
    finally:
        cached_engine.cache_clear()
        for judge in (drawing.scorer, drawing.token_judge):
            if judge:
                judge.close()
    work.out.mkdir(parents=True, exist_ok=True)
    for name, _ in calls:
        os.link(shard_path(work.folder, name), shard_path(work.out, name.partition("+")[0]))
    return {"questions": len(rows), **tally.summary()}


def answers_pool(drawing: Drawing, questions: pa.Table, samples: int, work: Work) -> dict[str, Any]:
    """One greedy completion of each question, and `samples` drawn ones, in two pools below
    `work`."""
    one = {"samples": 1, "temperature": 0.0, "shard_questions": 256, "shard_samples": 1}
    pools = {
        "greedy": drawing.options.model_copy(update=one),
        "sampled": drawing.options.model_copy(update={"samples": samples}),
    }
    return {
        name: sample_pool(replace(drawing, options=options), questions, work.below(name), f"{name} answers")
        for name, options in pools.items()
    }


def sampling_options(options: Sampling) -> SamplingOptions:
    """The part of the recipe that an engine needs."""
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


def _calls(drawing: Drawing, rows: Sequence[_Row], work: Work) -> list[Call]:
    """The shards of a pool. Names of blocks that N cuts short end with a plus and the sample
    count."""
    options, calls = drawing.options, []
    together = drawing.search.together  # a block is made of whole searches
    size = -(-options.shard_samples // together) * together
    for number, start in enumerate(range(0, max(len(rows), 1), options.shard_questions)):
        shard = rows[start : start + options.shard_questions]
        for first, count in sample_blocks(options.samples, size):
            cut = "" if count == size else f"+{count}"
            arguments = (drawing, work.engine, work.seed, Block(shard, first, count))
            calls.append((f"part-{number:05d}-{first:06d}{cut}", arguments))
    return calls


def draw_shard(drawing: Drawing, engine: str, seed: int, block: Block) -> pa.Table:
    """The samples of a block, in order of question and sample.

    Raises:
        ValueError: the search method returned other samples than those asked for.
    """
    if not block.count:  # no samples are wanted, so the model is not loaded
        return pool_table([], drawing.domain)
    requests = [
        SampleRequest(
            row["question"],
            drawing.domain.text,
            stream_key(seed, drawing.stage, row["problem_id"]),
            block.count,
            block.first,
        )
        for row in block.rows
    ]
    tools = Tools(cached_engine(engine, drawing.policy), drawing.scorer, drawing.watch, drawing.token_judge)
    start = time.perf_counter()
    found = drawing.method.search(tools, requests, sampling_options(drawing.options), drawing.search)
    seconds = {**found.seconds, "all": time.perf_counter() - start}
    _require_all(drawing.method, requests, found)
    pairs = [(row, s) for row, own in zip(block.rows, found.samples, strict=True) for s in own]
    costs = None if found.costs is None else [cost for own in found.costs for cost in own]
    table = pool_table(pairs, drawing.domain, costs)
    return table if costs is None else table.replace_schema_metadata({SECONDS: json.dumps(seconds)})


def _require_all(method: SearchMethod, requests: Sequence[SampleRequest], found: Found) -> None:
    wanted = [list(range(r.first, r.first + r.count)) for r in requests]
    if [[sample.index for sample in own] for own in found.samples] != wanted:
        raise ValueError(f"{type(method).__name__}.search returned other samples than those asked for")
    if found.costs is not None and list(map(len, found.costs)) != list(map(len, wanted)):
        raise ValueError(f"{type(method).__name__}.search returned other costs than one for each sample")


def pool_table(
    pairs: Sequence[tuple[_Row, Sample]], domain: Domain, costs: Sequence[Cost] | None = None
) -> pa.Table:
    """Question rows and their samples as the pool's table.

    `stop_reason` is the stop string that ended a sample, null elsewhere; `answered` says whether
    the domain finds an answer in it. With `costs` there is a column for each of their fields.
    """
    import pyarrow as pa

    answered = [domain.answer_of(s.completion, s.finish_reason == "stop") is not None for _, s in pairs]
    columns = {
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
    if costs is not None:
        columns |= {name: pa.array([getattr(cost, name) for cost in costs], pa.int64()) for name in _COSTS}
    return pa.table(columns)


@dataclass
class _Tally:
    """Sums over the shards of a pool, taken when each is done, and reported as progress."""

    folder: Path
    total: int
    unit: str
    reporter: Reporter
    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0))
    reused: int = 0
    new_tokens: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self._report()

    def count(self, name: str, made: pa.Table | None) -> None:
        """A shard is done; `made` is None where an earlier run made it."""
        import pyarrow.parquet as pq

        path = shard_path(self.folder, name)
        schema = pq.read_schema(path)
        costs = [cost for cost in _COSTS if cost in schema.names]
        for work, spent in json.loads((schema.metadata or {}).get(SECONDS, b"{}")).items():
            self.seconds[work] = self.seconds.get(work, 0.0) + spent
        columns = ["finish_reason", "answered", "tokens", *costs]
        rows = read_table(path, columns) if made is None else made.select(columns)
        tokens, reasons = sum(rows["tokens"].to_pylist()), rows["finish_reason"].to_pylist()
        found = {
            "samples": rows.num_rows,
            "tokens": tokens,
            "unfinished": reasons.count("length"),
            "abandoned": reasons.count("abandoned"),
            "no_answer": rows["answered"].to_pylist().count(False),
            **{cost: sum(rows[cost].to_pylist()) for cost in costs},
        }
        self.sums = {key: self.sums.get(key, 0) + value for key, value in found.items()}
        if made is None:
            self.reused += rows.num_rows
            self.started = time.monotonic()  # shards that were there come first
        else:
            self.new_tokens += tokens
        self._report()

    def _report(self) -> None:
        self.reporter.progress(self.sums["samples"], self.total, self.unit, self.reused, self.new_tokens)

    def summary(self) -> dict[str, Any]:
        """Sums, samples drawn now and by earlier runs, and the speed."""
        elapsed = time.monotonic() - self.started
        return {
            **self.sums,
            "drawn": self.sums["samples"] - self.reused,
            "reused": self.reused,
            "tokens_per_second": round(self.new_tokens / elapsed, 1) if self.new_tokens else None,
            **({"seconds": self.seconds} if self.seconds else {}),
        }
