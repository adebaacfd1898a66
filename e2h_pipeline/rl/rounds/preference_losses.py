"""Losses on pairs of completions, a better and a worse one: DPO, SimPO, ORPO, SPPO.

Each is a function of two (batch,) tensors, of the chosen and of the rejected completions, and
returns the loss of each pair, (batch,). DPO and SPPO hold the policy to a reference and take
log-ratios. SimPO and ORPO need no reference and take mean log-probabilities per token:

    log-ratio   sum over completion tokens of log policy - log reference
    mean        sum over completion tokens of log policy, over their number

`pairs` makes the pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Largest mean log-probability whose odds are taken; at 0 they are infinite. TRL has no such bound.
_SUREST = -1e-6


def dpo(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta (chosen - rejected)) of log-ratios; Rafailov et al. 2023, 2305.18290, eq.
    7.

    Args:
        chosen, rejected: (batch,) log-ratios.
        beta: strength of the pull to the reference; a policy that equals it has a loss of log 2.
    """
    return -logsigmoid(beta * (chosen - rejected))


def sppo(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """(chosen - 1 / 2 beta)^2 + (rejected + 1 / 2 beta)^2 of log-ratios (Wu et al. 2024,
    2405.00675).

    The paper's (log-ratio - (P - 1/2) / beta)^2, where the chosen completion always wins, P = 1,
    and the rejected one never, P = 0; this is TRL's `sppo_hard`. The targets lie 1 / 2 beta away:
    at the paper's beta of 0.001 a policy that equals its reference has a loss of 500,000. So clip
    gradients, or take a beta near 0.1 for tiny models.

    Args:
        chosen, rejected: (batch,) log-ratios.
    """
    return (chosen - 0.5 / beta) ** 2 + (rejected + 0.5 / beta) ** 2


def simpo(chosen: Tensor, rejected: Tensor, beta: float, gamma: float) -> Tensor:
    """-log sigmoid(beta (chosen - rejected) - gamma) of means; Meng et al. 2024, 2405.14734, eq. 6.

    Args:
        chosen, rejected: (batch,) mean log-probabilities.
        gamma: target margin of beta times the chosen mean above beta times the rejected one.
    """
    return -logsigmoid(beta * (chosen - rejected) - gamma)


def orpo(chosen: Tensor, rejected: Tensor, weight: float) -> Tensor:
    """-chosen - weight log sigmoid(log odds chosen - log odds rejected) (Hong et al. 2024,
    2403.07691).

    Equations 6 and 7; odds are p / (1 - p) with p = exp(mean log-probability). The first term is
    the loss of fine-tuning on the chosen completion, a mean over its tokens. TRL's mean goes over
    the prompt too, and over all tokens of a batch at once, so that long pairs count more.

    Args:
        chosen, rejected: (batch,) mean log-probabilities.
        weight: of the odds ratio (the paper's lambda).
    """
    return -chosen - weight * logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def _log_odds(mean: Tensor) -> Tensor:
    """log p - log(1 - p) of p = exp(mean)."""
    return mean - torch.log(-torch.expm1(mean.clamp(max=_SUREST)))


def sequence_logprobs(model: PreTrainedModel, ids: Tensor, attention: Tensor, mask: Tensor) -> Tensor:
    """Sum of the log-probabilities of each row's completion tokens, at temperature 1, (batch,).

    Args:
        ids, attention, mask: (batch, length); `mask` is 1 on completion tokens.
    """
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, :-1]
    tokens = ids[:, 1:]
    taken = -cross_entropy(logits.flatten(0, 1).float(), tokens.flatten(), reduction="none")
    return (taken.view_as(tokens) * mask[:, 1:]).sum(1)


def mean_logprobs(sums: Tensor, mask: Tensor) -> Tensor:
    """Sums per row, (batch,), divided by its tokens in `mask`, (batch, length); 0 without
    tokens."""
    return sums / mask.sum(1).clamp(min=1)
