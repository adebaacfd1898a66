"""Losses and advantages against published implementations: equal numbers on the same inputs.

Packages outside our dependencies were run once, in double precision, and their numbers are frozen
here. TRL is a development dependency, so it is run. Prompt and padding hold arbitrary numbers,
which must have no effect.

    verl 0.9.1              verl/trainer/ppo/core_algos.py, verl/utils/torch_functional.py
    openrlhf 0.11.2         openrlhf/trainer/ppo_utils/experience_maker.py, openrlhf/models/loss.py, models/utils.py
    stable-baselines3 2.9.2 stable_baselines3/common/buffers.py (single precision)
"""

import math
import os
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.models.load import load_policy
from e2h_pipeline.recipe import OnlineRl
from e2h_pipeline.rl.batches import collate
from e2h_pipeline.rl.online.advantages import (
    generalized_advantages,
    group_advantages,
    group_step_advantages,
    masked_mean,
    whiten,
)
from e2h_pipeline.rl.online.losses import clipped_policy_loss, clipped_value_loss, k3
from e2h_pipeline.rl.online.passes import token_logprobs
from e2h_pipeline.rl.questions import Question
from e2h_pipeline.rl.rollouts import Rollout
from e2h_pipeline.solutions import MARKED

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

PROMPT, PAD, LONGEST = 2, 3, 6
FOREIGN = 99.0
GAMMA, LAM, CLIP = 0.98, 0.9, 0.2

REWARDS = [[0, -0.2, 0, 0.1, 0, 1.0], [0, -0.5, 0.25], [0.3, 0, 0, -1.0]]
VALUES = [[0.1, 0.4, -0.2, 0.3, 0.5, 0.7], [-0.3, 0.2, 0.6], [0.8, -0.1, 0.2, 0.4]]
NEW_VALUES = [[0.3, 0.1, -0.1, 0.9, 0.5, 0.2], [-0.6, 0.25, 1.1], [0.75, 0.3, -0.2, 0.4]]
OLD = [[-1.0, -0.5, -2.0, -0.1, -3.0, -0.7], [-0.4, -1.2, -0.9], [-2.5, -0.3, -0.6, -1.1]]
NEW = [[-0.8, -0.9, -1.4, -0.1, -3.5, -0.65], [-0.7, -1.1, -0.2], [-2.2, -0.45, -0.65, -0.9]]
REFERENCE = [[-1.2, -0.6, -1.1, -0.2, -2.0, -0.7], [-0.1, -1.5, -0.9], [-3.5, -0.3, -0.4, -1.6]]
ADVANTAGES = [[0.5, -1.0, 2.0, 0.3, -0.4, 1.0], [-0.6, 1.5, -2.0], [1.0, 0.7, -0.9, -0.2]]

# openrlhf: get_advantages_and_returns. stable-baselines3:
# RolloutBuffer.compute_returns_and_advantage, with the three rows as three successive episodes.
# verl: compute_gae_advantage_return gives the same returns, and advantages whitened.
GAE = [
    [0.445887544, 0.174475673, 1.100312554, 0.6874292, 0.4506, 0.3],
    [0.1249426, -0.4207, -0.35],
    [-1.148147147, -0.6237496, -1.0428, -1.4],
]
GAE_OF_EPISODES = [
    [0.445887625, 0.174475729, 1.100312591, 0.68742919, 0.450599998, 0.300000012],
    [0.12494266, -0.420699954, -0.350000024],
    [-1.148147106, -0.623749554, -1.04279995, -1.399999976],
]
RETURNS = [
    [0.545887544, 0.574475673, 0.900312554, 0.9874292, 0.9506, 1.0],
    [-0.1750574, -0.2207, 0.25],
    [-0.348147147, -0.7237496, -0.8428, -1.0],
]
# openrlhf: make_experience_batch's normalization, by the variance of the batch itself, as ours
WHITE = [
    [0.783096521, 0.414606771, 1.671594538, 1.111032158, 0.789494517, 0.585028307],
    [0.34735684, -0.393449761, -0.297461972],
    [-1.381088279, -0.669125605, -1.238060843, -1.723023193],
]
# verl (and TRL 1.12's PPO): masked_whiten, by the variance estimated from it, n - 1 in place of n
WHITE_BY_ESTIMATE = [
    [0.752374795, 0.398341298, 1.60601607, 1.067445161, 0.75852179, 0.562077012],
    [0.333729654, -0.3780143, -0.285792217],
    [-1.326906687, -0.642875081, -1.189490373, -1.655427124],
]


def _padded(rows: list[list[float]], around: float = FOREIGN) -> Tensor:
    """Rows between prompt and padding; both are filled with a number that must have no effect."""
    return torch.tensor(
        [[*[around] * PROMPT, *row, *[around] * (LONGEST - len(row) + PAD)] for row in rows],
        dtype=torch.double,
    )


def _mask(rows: list[list[float]]) -> Tensor:
    return _padded([[1.0] * len(row) for row in rows], 0.0)


MASK = _mask(REWARDS)


def _same(found: Tensor, rows: list[list[float]], tolerance: float = 1e-6) -> None:
    """Check for these numbers on the completion's tokens, and 0 elsewhere."""
    torch.testing.assert_close(found, _padded(rows, 0.0), rtol=0, atol=tolerance)


# PPO


def test_advantages_and_returns() -> None:
    advantages, returns = generalized_advantages(_padded(REWARDS), _padded(VALUES), MASK, GAMMA, LAM)
    _same(advantages, GAE)
    _same(advantages, GAE_OF_EPISODES)
    _same(returns, RETURNS)


def test_whitening() -> None:
    white = whiten(_padded(GAE), MASK)
    _same(white, WHITE)
    tokens = MASK.sum().item()
    _same(white * math.sqrt((tokens - 1) / tokens), WHITE_BY_ESTIMATE)


def test_the_policy_loss() -> None:
    """verl: compute_policy_loss; openrlhf: PolicyLoss. Ratios from 0.61 to 2.01, advantages of both
    signs."""
    loss = clipped_policy_loss(_padded(NEW), _padded(OLD), _padded(ADVANTAGES), MASK, CLIP)
    assert loss.item() == pytest.approx(-0.083356201, abs=1e-6)


def test_the_value_loss() -> None:
    """verl: compute_value_loss; openrlhf: ValueLoss."""
    loss = clipped_value_loss(_padded(NEW_VALUES), _padded(VALUES), _padded(RETURNS), MASK, CLIP)
    assert loss.item() == pytest.approx(0.323683753, abs=1e-6)


# KL


def test_the_estimators_of_kl() -> None:
    """verl: kl_penalty_forward with "k1" and "k3"; openrlhf: compute_approx_kl, the same to its
    single precision."""
    first = [
        [0.4, -0.3, -0.3, 0.1, -1.5, 0.05],
        [-0.6, 0.4, 0.7],
        [1.3, -0.15, -0.25, 0.7],
    ]
    third = [
        [0.070320046, 0.049858808, 0.049858808, 0.004837418, 1.98168907, 0.001229425],
        [0.2221188, 0.070320046, 0.196585304],
        [0.572531793, 0.011834243, 0.034025417, 0.196585304],
    ]
    _same((_padded(NEW) - _padded(REFERENCE)) * MASK, first)  # how PPO subtracts it from the reward
    _same(k3(_padded(NEW), _padded(REFERENCE)) * MASK, third)


def test_k3_is_an_estimate_of_what_k1_estimates() -> None:
    """The mean of both under the policy is the exact KL (Schulman 2020)."""
    policy, reference = (torch.tensor(row).log() for row in ([0.5, 0.3, 0.2], [0.2, 0.2, 0.6]))
    exact = (policy.exp() * (policy - reference)).sum()
    assert (policy.exp() * k3(policy, reference)).sum().item() == pytest.approx(exact.item(), abs=1e-6)


# GRPO


SUMS = [[0, 0.5, 0.5], [1.0], [0, 0, 0.0], [-1.0, 0, 0.5], [0, 2.0]]
GROUPS = torch.tensor([4, 9, 4, 9, 4])


def test_outcome_supervision() -> None:
    """verl: compute_grpo_outcome_advantage (epsilon 0). Like TRL it divides by the deviation
    estimated from a group.

    DeepSeekMath (4.1.2) writes std(r). Ours is the deviation of the group itself, so our advantages
    are sqrt(n / (n - 1)) times theirs.
    """
    theirs = [[0.0] * 3, [0.707106781], [-1.0] * 3, [-0.707106781] * 3, [1.0] * 2]
    larger, smaller = math.sqrt(3 / 2), math.sqrt(2)
    ours = [
        [value * factor for value in row]
        for row, factor in zip(theirs, (larger, smaller, larger, smaller, larger), strict=True)
    ]
    _same(group_advantages(_padded(SUMS), _mask(SUMS), GROUPS), ours)


def test_process_supervision_worked_out() -> None:
    """DeepSeekMath 4.1.3, two outputs of one question: step rewards 0.9, 0.5, 0.1 at tokens 1, 2,
    4, and 0.7, 0.3 at 0, 2.

    R has mean 0.5 and variance (0.16 + 0 + 0.16 + 0.04 + 0.04) / 5 = 0.08; A_it sums the normalized
    rewards of the steps that end at t or later.
    """
    rewards = _padded([[0, 0.9, 0.5, 0, 0.1, 0], [0.7, 0, 0.3]])
    ends = _padded([[0, 1, 1, 0, 1, 0], [1, 0, 1]])
    scale = math.sqrt(0.08)
    first = [(0.4 + 0 - 0.4), (0.4 + 0 - 0.4), (0 - 0.4), -0.4, -0.4, 0]
    second = [(0.2 - 0.2), -0.2, -0.2]
    found = group_step_advantages(rewards, ends, _mask([first, second]), torch.tensor([1, 1]))
    _same(found, [[value / scale for value in row] for row in (first, second)])


def test_loss_and_gradients_of_trls_grpo(
    ladder_policy: Path, ladder_tok: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """GRPOTrainer's own loss, a mean over tokens ("bnpo"), on advantages per token, an old policy
    and KL by k3."""
    from trl import GRPOConfig, GRPOTrainer

    def model(seed: int) -> PreTrainedModel:
        found, _ = load_policy(ladder_policy)
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in found.parameters():
                weight += 0.02 * seed * torch.randn_like(weight)
        return found

    rollouts = []
    for question, text in (("1+2", "1+2=3\n\n3*2=6\n\n# Answer\n\n6"), ("1+1", "1+1=2\n\n# Answer\n\n2")):
        ids = (*ladder_tok(text)["input_ids"], ladder_tok.eos_token_id)
        prompt = tuple(ladder_tok(MARKED.prompt(question))["input_ids"])
        sample = Sample(0, text, ids, "stop", 0.0)
        zeros = (0.0,) * len(ids)
        rollouts.append(Rollout(Question("p", question, None), prompt, sample, zeros, 0.5, 1, None, None))
    batch = collate(rollouts, ladder_tok.pad_token_id, torch.device("cpu"))
    with torch.no_grad():
        old, reference = (token_logprobs(model(seed), batch, 0.7)[0] for seed in (1, 2))
    advantages = torch.randn(batch.ids.shape, generator=torch.Generator().manual_seed(1))
    options = OnlineRl(clip=0.1, kl=0.3)

    policy = model(0)
    logprobs, _ = token_logprobs(policy, batch, 0.7)
    loss = clipped_policy_loss(logprobs, old, advantages, batch.mask, options.clip)
    loss = loss + options.kl * masked_mean(k3(logprobs, reference), batch.mask)
    loss.backward()
    outside = ((logprobs - old).exp() - 1).abs() > options.clip
    assert masked_mean(outside.float(), batch.mask) > 0.1  # both sides of the minimum occur

    start = len(rollouts[0].prompt_ids)
    assert start == len(rollouts[1].prompt_ids)  # TRL's prompts have equal length
    peer = model(0)
    trainer = GRPOTrainer(
        peer,
        lambda completions, **_: [0.0] * len(completions),
        GRPOConfig(
            output_dir=str(tmp_path),
            report_to="none",
            use_cpu=True,
            bf16=False,
            loss_type="bnpo",
            epsilon=options.clip,
            beta=options.kl,
            use_bias_correction_kl=False,  # TRL weights KL by the ratio; DeepSeekMath (4.1.1) does not
            temperature=0.7,
            per_device_train_batch_size=2,
            num_generations=2,
            gradient_accumulation_steps=1,
        ),
        train_dataset=Dataset.from_list([{"prompt": "1+1="}] * 2),
        processing_class=ladder_tok,
    )
    trainer.current_gradient_accumulation_steps = 1
    expected = trainer._compute_loss(
        peer,
        {
            "prompt_ids": batch.ids[:, :start],
            "prompt_mask": batch.attention[:, :start],
            "completion_ids": batch.ids[:, start:],
            "completion_mask": batch.attention[:, start:],
            "advantages": advantages[:, start:],
            "old_per_token_logps": old[:, start:],
            "ref_per_token_logps": reference[:, start:],
        },
    )
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    largest = max(weight.grad.abs().max() for weight in peer.parameters())
    assert largest > 1e-3
    for (name, weight), other in zip(policy.named_parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, rtol=1e-5, atol=1e-5 * largest, msg=name)
