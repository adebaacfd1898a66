"""TODO: docstring."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.generation.sample_pool import sample_pool
from e2h_pipeline.recipe import Sampling, Scoring
from e2h_pipeline.rewards.scoring import score_pool
from e2h_pipeline.rl.rollouts import Question, Rollout, answer_of, collate
from e2h_pipeline.rl.rounds.run import (
    RoundsRun,
)
from e2h_pipeline.solutions import format_prompt, parse_completion

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_KL_ROWS = 64  # solutions of a forward pass that only measures


def draw_scored(
    run: RoundsRun, folder: Path, policy: Path, questions: pa.Table, samples: int, stream: str, unit: str
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


def scored_parts(run: RoundsRun, folder: Path, tokenizer: PreTrainedTokenizerBase) -> Iterator[list[Rollout]]:
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


def measure_divergences(
    reference: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, solved: Sequence[Rollout]
) -> list[float | None]:
    """log policy - log SFT policy of the first solution of each question, None of the others: one forward pass of
    the SFT policy, for the policy's own is known from the draw."""
    import torch

    from e2h_pipeline.rl.rounds.preference_losses import sequence_logprobs

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


def write_questions(folder: Path, questions: Sequence[Question]) -> None:
    import pyarrow as pa

    columns = {
        "problem_id": pa.array([q.problem_id for q in questions], pa.string()),
        "level": pa.array([q.level for q in questions], pa.int8()),
        "question": pa.array([q.question for q in questions], pa.string()),
    }
    write_table(folder / "data.parquet", pa.table(columns))
