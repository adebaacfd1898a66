"""The solutions of a round: drawn, scored, graded, and their divergence from the SFT policy."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import TABLE, read_table, write_table
from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.generation.sample_pool import Drawing, sample_pool
from e2h_pipeline.generation.search.independent import Independent
from e2h_pipeline.recipe import Sampling, Scoring
from e2h_pipeline.rewards.pool import score_pool
from e2h_pipeline.rl.batches import collate
from e2h_pipeline.rl.questions import Question
from e2h_pipeline.rl.rollouts import Rollout, answer_of, prompt_ids, right_answers
from e2h_pipeline.rl.rounds.own_process import for_drawing
from e2h_pipeline.rl.rounds.run import RoundsRun

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_KL_ROWS = 64  # solutions per forward pass that only measures


@dataclass(frozen=True)
class Pool:
    """A pool of solutions that a run draws.

    Attributes:
        folder: where it lies.
        samples: completions per question.
        stream: names its stream of randomness, with the algorithm's name.
        unit: what progress counts.
    """

    folder: Path
    samples: int
    stream: str
    unit: str


def draw_scored(run: RoundsRun, policy: Path, questions: pa.Table, pool: Pool) -> dict[str, float]:
    """Draw a policy's solutions and score them. Finished shards are not made again.

    Returns:
        Where the time went.
    """
    options, work, folder, began = run.options, run.job.work, pool.folder, time.monotonic()
    sampling = Sampling(
        samples=pool.samples,
        temperature=options.temperature,
        top_k=options.top_k,
        max_new_tokens=options.max_new_tokens,
    )
    stream = f"rl/{run.algorithm.name}/{pool.stream}"
    for linked in ("pool", "scores"):
        shutil.rmtree(folder / linked, ignore_errors=True)
    sample_pool(
        Drawing(policy, run.job.domain, sampling, stream, Independent()),
        questions,
        replace(for_drawing(work), out=folder / "pool", folder=folder / "samples"),
        pool.unit,
    )
    rolled_out = time.monotonic()
    score_pool(
        run.evaluator,
        folder / "pool",
        run.question_folder,
        Scoring(),
        run.job.domain.text,
        replace(work, out=folder / "scores", folder=folder / "scored"),
    )
    return {"seconds_rollout": rolled_out - began, "seconds_score": time.monotonic() - rolled_out}


def scored_parts(run: RoundsRun, folder: Path, tokenizer: PreTrainedTokenizerBase) -> Iterator[list[Rollout]]:
    """The solutions of each part of a pool, scored and, with a gold answer, graded.

    Args:
        folder: of the pool, as in `Pool`.
        tokenizer: the policy's.
    """
    domain = run.job.domain
    for part in sorted((folder / "pool").glob("part-*.parquet")):
        rows = read_table(part).to_pylist()
        logits = read_table(folder / "scores" / part.name, ["step_logits"])["step_logits"].to_pylist()
        completions = [(run.asked[row["problem_id"]], _sample(row)) for row in rows]
        rights = right_answers(completions, run.grader, domain)
        prompts = {q.problem_id: prompt_ids(tokenizer, q, domain) for q, _ in completions}
        solved = []
        for (question, sample), right, own in zip(completions, rights, logits, strict=True):
            steps = domain.text.parse(sample.completion).steps
            solved.append(
                Rollout(
                    question=question,
                    prompt_ids=prompts[question.problem_id],
                    sample=sample,
                    rewards=(),
                    evaluator_score=min((1 / (1 + math.exp(-logit)) for logit in own), default=0.0),
                    steps=len(steps),
                    answer=(answer := answer_of(sample, domain)),
                    right=right,
                    repeats_step=len(set(steps)) < len(steps),
                    blind=domain.blind(answer),
                )
            )
        yield solved


def _sample(row: Mapping[str, Any]) -> Sample:
    return Sample(
        row["sample"], row["completion"], tuple(row["token_ids"]), row["finish_reason"], row["logprob"]
    )


def measure_divergences(
    reference: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, solved: Sequence[Rollout]
) -> list[float | None]:
    """log policy - log SFT policy of the first solution of each question, None for the others.

    It takes one forward pass of the SFT policy (`reference`); the policy's own log-probability is
    known from the draw.
    """
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
    """Write the table of questions for drawing and scoring pools."""
    import pyarrow as pa

    columns = {
        "problem_id": pa.array([q.problem_id for q in questions], pa.string()),
        "level": pa.array([q.level for q in questions], pa.int8()),
        "question": pa.array([q.question for q in questions], pa.string()),
    }
    write_table(folder / TABLE, pa.table(columns))
