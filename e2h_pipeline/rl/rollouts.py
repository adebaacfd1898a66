"""Completions of the live policy and their rewards, shared by all algorithms.

Questions are easy or hard. Rewards use the gold answer of an easy one; a hard one has none, except
in controls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2h_pipeline.generation.engines.protocol import Sample, SampleRequest, SamplingOptions
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.grading.verdicts import Grader, Verdict, decide
from e2h_pipeline.rl.questions import Question
from e2h_pipeline.rl.ranks import gather, share, told
from e2h_pipeline.rl.shaping import step_rewards, terminal_reward, without_steps
from e2h_pipeline.solutions import prompt_tokens, segment_ends, token_offsets

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.problems.domain import Domain
    from e2h_pipeline.recipe import OnlineRl
    from e2h_pipeline.rewards.evaluators import Evaluator
    from e2h_pipeline.solutions import TextFormat

Completion = tuple[Question, Sample]


@dataclass(frozen=True)
class Rollout:
    """One completion, and its rewards where it was drawn to learn from them.

    Attributes:
        rewards: one per completion token; none in rounds.
        evaluator_score: lowest score of a step, a probability.
        steps: how many steps it has.
        answer: None where it has none, or was cut off.
        right: the verdict; None where the gold answer is hidden.
        repeats_step: a step comes twice, word for word.
        ends: completion tokens that carry the reward of a step, in order; the last token where
            there is no step.
        terminal: the non-step part of the last token's reward: verdict, constant or penalty.
        blind: the answer does not look at what it is asked; None where a domain has no such answers.
    """

    question: Question
    prompt_ids: tuple[int, ...]
    sample: Sample
    rewards: tuple[float, ...]
    evaluator_score: float
    steps: int
    answer: str | None
    right: bool | None
    repeats_step: bool = False
    ends: tuple[int, ...] = ()
    terminal: float = 0.0
    blind: bool | None = None


@dataclass(frozen=True)
class Judges:
    """What completions are judged by.

    Attributes:
        evaluator: scores steps.
        grader: judges answers.
        domain: finds steps and answer of a completion.
    """

    evaluator: Evaluator
    grader: Grader
    domain: Domain


def requests(
    questions: Sequence[Question], text: TextFormat, options: OnlineRl, seed: int, update: int
) -> tuple[list[SampleRequest], SamplingOptions]:
    """What an engine is asked for the rollouts of an update.

    Nothing is cut by top-k or top-p: the ratio is that of whole distributions.
    """
    asked = [
        # By place too: a question that comes twice in an update gets new samples.
        SampleRequest(
            q.question,
            text,
            stream_key(seed, f"rl/{update}/{i}", q.problem_id),
            options.samples_per_question,
        )
        for i, q in enumerate(questions)
    ]
    return asked, SamplingOptions(options.temperature, options.max_new_tokens, token_logprobs=True)


def completions(questions: Sequence[Question], drawn: Sequence[Sequence[Sample]]) -> list[Completion]:
    """Each sample with its question."""
    return [(q, sample) for q, samples in zip(questions, drawn, strict=True) for sample in samples]


def rewarded(
    completions: Sequence[Completion], tokenizer: PreTrainedTokenizerBase, judges: Judges, options: OnlineRl
) -> list[Rollout]:
    """Rewards of completions, by the evaluator's scores and, with a gold answer, by verdicts.

    Args:
        tokenizer: the policy's.
    """
    scores = _scores(completions, judges)
    rights = right_answers(completions, judges.grader, judges.domain)
    return [
        reward(completion, logits, right, tokenizer, judges.domain, options)
        for completion, logits, right in zip(completions, scores, rights, strict=True)
    ]


def _scores(completions: Sequence[Completion], judges: Judges) -> list[list[float]]:
    """Logits of the segments of each completion; every rank scores the samples of some
    questions."""
    of: dict[str, list[int]] = {}
    for i, (q, _) in enumerate(completions):
        of.setdefault(q.question, []).append(i)
    questions = list(of.values())
    own = share([sum(len(completions[i][1].token_ids) for i in samples) for samples in questions])
    places = [i for question in own for i in questions[question]]
    scored = judges.evaluator.logits(
        [(q.question, s.completion, _finished(s)) for q, s in (completions[i] for i in places)],
        judges.domain.text,
    )
    return gather(dict(zip(places, scored, strict=True)), len(completions))


def right_answers(completions: Sequence[Completion], grader: Grader, domain: Domain) -> list[bool | None]:
    """Whether each answer is right; a missing one is wrong. None where the gold answer is
    hidden."""
    answers = [answer_of(sample, domain) for _, sample in completions]
    pairs = [
        None if q.gold is None or answer is None else (q.gold, answer)
        for (q, _), answer in zip(completions, answers, strict=True)
    ]
    found = told(lambda: decide(grader, pairs).verdicts)
    return [
        None if q.answer is None else verdict == Verdict.EQUAL
        for (q, _), verdict in zip(completions, found, strict=True)
    ]


def answer_of(sample: Sample, domain: Domain) -> str | None:
    """The answer of a completion that ended by itself; a truncated one has none."""
    return domain.answer_of(sample.completion, _finished(sample))


def reward(
    completion: Completion,
    logits: Sequence[float],
    right: bool | None,
    tokenizer: PreTrainedTokenizerBase,
    domain: Domain,
    options: OnlineRl,
) -> Rollout:
    """Place step rewards on the tokens that end the segments, and the terminal reward on the last.

    Args:
        logits: the evaluator's of each segment.
        tokenizer: the policy's.
    """
    question, sample = completion
    solution, answer = domain.text.parse(sample.completion), answer_of(sample, domain)
    scores = [1 / (1 + math.exp(-max(-30.0, min(30.0, logit)))) for logit in logits]
    rewards = [0.0] * len(sample.token_ids)
    if solution.steps:
        ends = segment_ends(token_offsets(tokenizer, *_text_tokens(sample)), solution.spans)
        for end, value in zip(ends, step_rewards(scores, options), strict=True):
            rewards[end] += options.process_scale * value
    else:
        ends = [len(rewards) - 1]
        rewards[-1] += options.process_scale * without_steps(options)
    terminal = terminal_reward(right, answer is not None, options)
    rewards[-1] += terminal
    return Rollout(
        question=question,
        prompt_ids=prompt_ids(tokenizer, question, domain),
        sample=sample,
        rewards=tuple(rewards),
        evaluator_score=min(scores, default=0.0),
        steps=len(solution.steps),
        answer=answer,
        right=right,
        repeats_step=len(set(solution.steps)) < len(solution.steps),
        ends=tuple(ends),
        terminal=terminal,
        blind=domain.blind(answer),
    )


def prompt_ids(tokenizer: PreTrainedTokenizerBase, question: Question, domain: Domain) -> tuple[int, ...]:
    """Tokens of the prompt of a question."""
    return tuple(prompt_tokens(tokenizer, question.question, domain.text))


def _finished(sample: Sample) -> bool:
    return sample.finish_reason == "stop"


def _text_tokens(sample: Sample) -> tuple[Sequence[int], str]:
    """The tokens that spell the completion: all but the end-of-sequence token."""
    ids = sample.token_ids[:-1] if _finished(sample) else sample.token_ids
    return ids, sample.completion


def rollout_table(rollouts: Sequence[Rollout], update: int, divergences: Sequence[float | None]) -> pa.Table:
    """An update's rollouts for audits: no texts, and no verdicts that training did not see.

    Args:
        update: the number of the update, from 1.
        divergences: of each rollout, the sum over its tokens of log policy - log SFT policy; None
            where not measured.
    """
    import pyarrow as pa

    columns = {
        "update": ([update] * len(rollouts), pa.int32()),
        "problem_id": ([r.question.problem_id for r in rollouts], pa.string()),
        "level": ([r.question.level for r in rollouts], pa.int8()),
        "right": ([r.right for r in rollouts], pa.bool_()),
        "answer": ([r.answer for r in rollouts], pa.string()),
        "evaluator_score": ([r.evaluator_score for r in rollouts], pa.float32()),
        "reward": ([sum(r.rewards) if r.rewards else None for r in rollouts], pa.float32()),
        "kl": (list(divergences), pa.float32()),
        "steps": ([r.steps for r in rollouts], pa.int32()),
        "tokens": ([len(r.sample.token_ids) for r in rollouts], pa.int32()),
        "weights": ([r.sample.version for r in rollouts], pa.int32()),
    }
    return pa.table({name: pa.array(values, kind) for name, (values, kind) in columns.items()})
