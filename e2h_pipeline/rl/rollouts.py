"""Draw completions from the live policy and reward them: the part every RL algorithm shares.

Questions of both kinds are drawn; the gold answer of an easy one is looked at, a hard one has none (but in controls).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from e2h_pipeline.generation.engines.protocol import Request, Sample, SamplingOptions
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.grading.mathematics.extract import final_answer
from e2h_pipeline.rewards.scoring import score_solutions
from e2h_pipeline.rl.shaping import step_rewards, terminal_reward, without_steps
from e2h_pipeline.solutions import format_prompt, parse_completion, segment_ends, token_offsets

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
    from e2h_pipeline.recipe import Rl

Grade = Callable[[Sequence[tuple[str, str]]], list[bool]]


@dataclass(frozen=True)
class Question:
    """A question to roll out on; `answer` is None where nobody may look at it, `level` 0 where it is unknown."""

    problem_id: str
    question: str
    answer: str | None
    level: int = 0
    hard: bool = False


@dataclass(frozen=True)
class Rollout:
    """One completion with its rewards, one per completion token.

    Attributes:
        ends: completion tokens that carry the reward of a step, in order; the last token where there is no step.
        terminal: what of the last token's reward is no step's: verdict, constant or penalty.
    """

    question: Question
    prompt_ids: tuple[int, ...]
    sample: Sample
    rewards: tuple[float, ...]
    evaluator_score: float
    steps: int
    answered: bool
    right: bool | None
    ends: tuple[int, ...] = ()
    terminal: float = 0.0


@dataclass(frozen=True)
class Batch:
    """Rollouts as padded tensors, (batch, length) each; `mask` is 1 on completion tokens.

    Position t of `rewards`, `mask` and of log-probabilities belongs to token t of `ids`.
    """

    ids: Tensor
    attention: Tensor
    mask: Tensor
    rewards: Tensor


def roll_out(
    engine: TransformersEngine,
    evaluator: PreTrainedModel,
    evaluator_tokenizer: PreTrainedTokenizerBase,
    grade: Grade,
    questions: Sequence[Question],
    options: Rl,
    seed: int,
    update: int,
) -> list[Rollout]:
    """Completions of the questions under the live policy, rewarded."""
    drawn = draw(engine, questions, options, seed, update)
    return rewarded(drawn, engine.tokenizer, evaluator, evaluator_tokenizer, grade, options)


def draw(
    engine: TransformersEngine, questions: Sequence[Question], options: Rl, seed: int, update: int
) -> list[tuple[Question, Sample]]:
    """Completions of the questions under the live policy."""
    requests = [
        # By place too: a question that comes twice in an update is answered anew.
        Request(q.question, stream_key(seed, f"rl/{update}/{i}", q.problem_id), options.samples_per_question)
        for i, q in enumerate(questions)
    ]
    asked = SamplingOptions(options.temperature, options.max_new_tokens, token_logprobs=True)
    drawn = engine.sample(requests, asked)
    return [(q, sample) for q, samples in zip(questions, drawn, strict=True) for sample in samples]


def rewarded(
    pairs: Sequence[tuple[Question, Sample]],
    tokenizer: PreTrainedTokenizerBase,
    evaluator: PreTrainedModel,
    evaluator_tokenizer: PreTrainedTokenizerBase,
    grade: Grade,
    options: Rl,
) -> list[Rollout]:
    """Rewards of completions: the evaluator's scores of their steps, and verdicts where an answer may be looked at."""
    scores = score_solutions(
        evaluator,
        evaluator_tokenizer,
        [(q.question, sample.completion, sample.finish_reason == "stop") for q, sample in pairs],
    )
    verdicts = _verdicts(pairs, grade)
    return [
        reward(tokenizer, q, sample, logits, right, options)
        for (q, sample), logits, right in zip(pairs, scores, verdicts, strict=True)
    ]


def _verdicts(pairs: Sequence[tuple[Question, Sample]], grade: Grade) -> list[bool | None]:
    """Right or wrong on easy questions that were answered, None on hard ones."""
    asked = {
        i: (q.answer, answer)
        for i, (q, sample) in enumerate(pairs)
        if q.answer is not None and (answer := answer_of(sample)) is not None
    }
    graded = dict(zip(asked, grade(list(asked.values())), strict=True))
    return [None if q.answer is None else graded.get(i, False) for i, (q, _) in enumerate(pairs)]


def answer_of(sample: Sample) -> str | None:
    """The answer of a completion that ended by itself; a truncated one has none."""
    return final_answer(sample.completion, finished=sample.finish_reason == "stop")


def reward(
    tokenizer: PreTrainedTokenizerBase,
    question: Question,
    sample: Sample,
    logits: Sequence[float],
    right: bool | None,
    options: Rl,
) -> Rollout:
    """Place step rewards on the tokens that end the segments and the terminal reward on the last token."""
    solution = parse_completion(sample.completion)
    answered = answer_of(sample) is not None
    scores = [1 / (1 + math.exp(-max(-30.0, min(30.0, logit)))) for logit in logits]
    rewards = [0.0] * len(sample.token_ids)
    if solution.steps:
        ends = segment_ends(token_offsets(tokenizer, *_text_tokens(sample)), solution.spans)
        for end, value in zip(ends, step_rewards(scores, options), strict=True):
            rewards[end] += options.process_scale * value
    else:
        ends = [len(rewards) - 1]
        rewards[-1] += options.process_scale * without_steps(options)
    terminal = terminal_reward(
        right=right,
        answered=answered,
        outcome_reward=options.outcome_reward,
        hard_constant=options.hard_constant,
        unfinished_penalty=options.unfinished_penalty,
    )
    rewards[-1] += terminal
    return Rollout(
        question=question,
        prompt_ids=tuple(tokenizer(format_prompt(question.question))["input_ids"]),
        sample=sample,
        rewards=tuple(rewards),
        evaluator_score=min(scores, default=0.0),
        steps=len(solution.steps),
        answered=answered,
        right=right,
        ends=tuple(ends),
        terminal=terminal,
    )


def _text_tokens(sample: Sample) -> tuple[Sequence[int], str]:
    """The tokens that spell the completion: all but the end-of-sequence token."""
    ids = sample.token_ids[:-1] if sample.finish_reason == "stop" else sample.token_ids
    return ids, sample.completion


def collate(rollouts: Sequence[Rollout], pad_id: int, device: torch.device) -> Batch:
    """Pad rollouts to the longest."""
    longest = max(len(r.prompt_ids) + len(r.sample.token_ids) for r in rollouts)

    def pad(rows: Sequence[Sequence[float]], fill: float, dtype: torch.dtype) -> Tensor:
        return torch.tensor(
            [[*row, *[fill] * (longest - len(row))] for row in rows], dtype=dtype, device=device
        )

    ids = [[*r.prompt_ids, *r.sample.token_ids] for r in rollouts]
    silent = [[0.0] * len(r.prompt_ids) for r in rollouts]
    return Batch(
        ids=pad(ids, pad_id, torch.long),
        attention=pad([[1] * len(row) for row in ids], 0, torch.long),
        mask=pad(
            [[*s, *[1.0] * len(r.sample.token_ids)] for s, r in zip(silent, rollouts, strict=True)],
            0,
            torch.float,
        ),
        rewards=pad([[*s, *r.rewards] for s, r in zip(silent, rollouts, strict=True)], 0, torch.float),
    )


def rollout_table(rollouts: Sequence[Rollout], update: int, divergences: Sequence[float | None]) -> pa.Table:
    """What is kept of an update's rollouts, for audits: no text, and no verdict that training did not see.

    Args:
        update: the number of the update, from 1.
        divergences: of each rollout, the sum over its tokens of log policy - log SFT policy; None where not measured.
    """
    import pyarrow as pa

    columns = {
        "update": ([update] * len(rollouts), pa.int32()),
        "problem_id": ([r.question.problem_id for r in rollouts], pa.string()),
        "level": ([r.question.level for r in rollouts], pa.int8()),
        "right": ([r.right for r in rollouts], pa.bool_()),
        "answer": ([answer_of(r.sample) for r in rollouts], pa.string()),
        "evaluator_score": ([r.evaluator_score for r in rollouts], pa.float32()),
        "reward": ([sum(r.rewards) if r.rewards else None for r in rollouts], pa.float32()),
        "kl": (list(divergences), pa.float32()),
        "steps": ([r.steps for r in rollouts], pa.int32()),
        "tokens": ([len(r.sample.token_ids) for r in rollouts], pa.int32()),
    }
    return pa.table({name: pa.array(values, kind) for name, (values, kind) in columns.items()})


def drawn_logprobs(rollouts: Sequence[Rollout], batch: Batch) -> Tensor:
    """(batch, length): log-probabilities of completion tokens as they were drawn, 0 elsewhere."""
    found = torch.zeros_like(batch.rewards)
    for row, rollout in enumerate(rollouts):
        start, drawn = len(rollout.prompt_ids), rollout.sample.token_logprobs
        found[row, start : start + len(drawn)] = torch.tensor(drawn, device=found.device)
    return found


def step_ends(rollouts: Sequence[Rollout], batch: Batch) -> Tensor:
    """(batch, length), 1 on the tokens that carry the reward of a step, be it 0."""
    ends = torch.zeros_like(batch.mask)
    for row, rollout in enumerate(rollouts):
        ends[row, [len(rollout.prompt_ids) + end for end in rollout.ends]] = 1.0
    return ends


def terminal_rewards(rollouts: Sequence[Rollout], batch: Batch) -> Tensor:
    """(batch, length): what of `batch.rewards` is no step's, on the last token of each completion."""
    terminal = torch.zeros_like(batch.rewards)
    for row, rollout in enumerate(rollouts):
        terminal[row, len(rollout.prompt_ids) + len(rollout.sample.token_ids) - 1] = rollout.terminal
    return terminal


def group_ids(rollouts: Sequence[Rollout], device: torch.device) -> Tensor:
    """(batch,) integers, the same for rollouts of the same question."""
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(r.question.problem_id, len(numbers)) for r in rollouts]
    return torch.tensor(ids, device=device)
