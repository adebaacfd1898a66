"""The sample pool: completions of a set of questions, drawn shard by shard and lost by no kill.

A shard is a few questions with all their samples, written to its end under another name and then
renamed; a run that comes back finds the shards that are there and draws the rest. Because every
draw is a hash of what is drawn, the pool is the same as if nothing had happened.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.generation.engine import Engine, Request, Sample, SamplingOptions
from e2h_pipeline.generation.noise import stream_key

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.recipe import Evaluation, Sampling
    from e2h_pipeline.reporter import Reporter


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
) -> dict[str, Any]:
    """Draw `options.samples` completions of each question and write them to `out/part-*.parquet`.

    Args:
        questions: problem_id, level, question (and more); one row per question.
        stage: names the stream of randomness, so that two pools never share draws.

    Returns {"questions", "samples", "tokens", "unfinished", "tokens_per_second"}.
    """
    rows = questions.select(["problem_id", "level", "question"]).to_pylist()
    shards = [rows[i : i + options.shard_questions] for i in range(0, len(rows), options.shard_questions)]
    work.mkdir(parents=True, exist_ok=True)
    loaded: Engine | None = None
    started, drawn_tokens = time.monotonic(), 0
    for number, shard in enumerate(shards):
        part = work / f"part-{number:05d}.parquet"
        if not part.exists():
            if options.samples:
                loaded = loaded or load_engine(engine, policy)
                table = _draw_shard(loaded, shard, options, seed, stage)
            else:  # nobody wants any: the model is not even loaded
                table = pool_table([])
            write_table(part, table)
            drawn_tokens += sum(table.column("tokens").to_pylist())
        reporter.progress(
            min((number + 1) * options.shard_questions, len(rows)),
            len(rows),
            f"questions x {options.samples}",
        )
    elapsed = time.monotonic() - started
    out.mkdir(parents=True, exist_ok=True)
    for part in sorted(work.glob("part-*.parquet")):
        os.link(part, out / part.name)
    return {
        **_describe(read_table(out, ["finish_reason", "tokens"])),
        "questions": len(rows),
        "tokens_per_second": round(drawn_tokens / elapsed, 1) if drawn_tokens else None,
    }


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
) -> dict[str, Any]:
    """One greedy completion of each question, and `evaluation.samples` drawn ones, in two pools."""
    greedy = sampling.model_copy(update={"samples": 1, "temperature": 0.0, "shard_questions": 256})
    drawn = sampling.model_copy(update={"samples": evaluation.samples})
    return {
        "greedy": sample_pool(
            policy, questions, out / "greedy", work / "greedy", greedy, seed, stage, reporter, engine
        ),
        "sampled": sample_pool(
            policy, questions, out / "sampled", work / "sampled", drawn, seed, stage, reporter, engine
        ),
    }


def load_engine(name: str, model: Path) -> Engine:
    """The engine named by the recipe or the resource, over a Hugging Face folder.

    Raises:
        ValueError: there is no such engine.
    """
    if name == "transformers":
        from e2h_pipeline.generation.transformers_engine import TransformersEngine
        from e2h_pipeline.models.load import load_policy

        return TransformersEngine(*load_policy(model))
    raise ValueError(f"no engine '{name}': there is transformers")


def _draw_shard(
    engine: Engine, shard: Sequence[dict[str, Any]], options: Sampling, seed: int, stage: str
) -> pa.Table:
    requests = [
        Request(row["question"], stream_key(seed, stage, row["problem_id"]), options.samples) for row in shard
    ]
    drawn = engine.sample(
        requests,
        SamplingOptions(
            temperature=options.temperature,
            max_new_tokens=options.max_new_tokens,
            top_k=options.top_k,
            top_p=options.top_p,
            batch_tokens=options.batch_tokens,
        ),
    )
    return pool_table(
        [(row, sample) for row, samples in zip(shard, drawn, strict=True) for sample in samples]
    )


def pool_table(pairs: Sequence[tuple[dict[str, Any], Sample]]) -> pa.Table:
    """Question rows and their samples as the pool's table."""
    import pyarrow as pa

    return pa.table(
        {
            "problem_id": pa.array([row["problem_id"] for row, _ in pairs], pa.string()),
            "level": pa.array([row["level"] for row, _ in pairs], pa.int8()),
            "sample": pa.array([s.index for _, s in pairs], pa.int32()),
            "completion": pa.array([s.completion for _, s in pairs], pa.string()),
            "token_ids": pa.array([s.token_ids for _, s in pairs], pa.list_(pa.int32())),
            "finish_reason": pa.array([s.finish_reason for _, s in pairs], pa.string()),
            "logprob": pa.array([s.logprob for _, s in pairs], pa.float32()),
            "tokens": pa.array([len(s.token_ids) for _, s in pairs], pa.int32()),
        }
    )


def _describe(pool: pa.Table) -> dict[str, Any]:
    reasons = pool.column("finish_reason").to_pylist()
    return {
        "samples": len(reasons),
        "tokens": sum(pool.column("tokens").to_pylist()),
        "unfinished": reasons.count("length"),
    }
