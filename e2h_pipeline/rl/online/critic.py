"""The critic of a run at its start: a head of zeros on the evaluator, or on the SFT policy.

The evaluator is the better start: its features tell whether steps are right. But a critic reads
the policy's token ids. Where the evaluator's tokenizer gives them other meanings, or the evaluator is
no single model with a score per token (`TokenScorer`), the critic starts as the SFT policy. The
evaluator itself reads text, so that it judges any policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2h_pipeline.models.classifier import score_head, scoring_over
from e2h_pipeline.models.load import load_evaluator, new_evaluator
from e2h_pipeline.models.tokenizer_fit import same_tokens
from e2h_pipeline.rewards.evaluators import TokenScorer
from e2h_pipeline.rl.algorithms import EVALUATOR, SFT_POLICY

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from e2h_pipeline.recipe import PpoRl
    from e2h_pipeline.rl.algorithms import RlJob
    from e2h_pipeline.rl.online.models import Run


def start_critic(run: Run[PpoRl], job: RlJob[PpoRl]) -> PreTrainedModel:
    """The critic, not trained yet. With adapters it shares the frozen weights of its start."""
    with run.judge() as evaluator:
        own = evaluator.model if isinstance(evaluator, TokenScorer) else None
        fits = isinstance(evaluator, TokenScorer) and same_tokens(run.tokenizer, evaluator.tokenizer)
    run.notes["critic_starts_as"] = EVALUATOR if fits else SFT_POLICY
    if not fits:
        why = "reads solutions in another way" if own is None else "has another tokenizer"
        job.work.reporter.message(f"the evaluator {why} than the policy: the critic starts as the SFT policy")
    if run.options.lora_rank:
        with run.judge():
            critic = scoring_over(own if own is not None and fits else run.policy)
        run.adapt("critic", critic)
    elif fits:
        critic, _ = load_evaluator(job.inputs[EVALUATOR])
    else:
        critic, _ = new_evaluator(job.inputs[SFT_POLICY])
    for parameter in score_head(critic).parameters():  # weight, and bias where the head has one
        parameter.data.zero_()
        parameter.requires_grad_(True)
    return critic
