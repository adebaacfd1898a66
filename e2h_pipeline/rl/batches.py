"""Rollouts as padded tensors, and values per token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from e2h_pipeline.rl.rollouts import Rollout


@dataclass(frozen=True)
class Batch:
    """Rollouts as padded tensors, (batch, length) each; `mask` is 1 on completion tokens.

    Position t of `rewards`, `mask` and of log-probabilities belongs to token t of `ids`.
    """

    ids: Tensor
    attention: Tensor
    mask: Tensor
    rewards: Tensor


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


def some_rows(batch: Batch, rows: Tensor) -> Batch:
    """Some rows of a batch, trimmed to the longest of them."""
    attention = batch.attention[rows]
    length = int(attention.sum(1).max())
    return Batch(
        batch.ids[rows, :length],
        attention[:, :length],
        batch.mask[rows, :length],
        batch.rewards[rows, :length],
    )


def drawn_logprobs(rollouts: Sequence[Rollout], batch: Batch) -> Tensor:
    """(batch, length): log-probabilities of completion tokens as they were drawn, 0 elsewhere."""
    found = torch.zeros_like(batch.rewards)
    for row, rollout in enumerate(rollouts):
        start, drawn = len(rollout.prompt_ids), rollout.sample.token_logprobs
        found[row, start : start + len(drawn)] = torch.tensor(drawn, device=found.device)
    return found


def step_ends(rollouts: Sequence[Rollout], batch: Batch) -> Tensor:
    """(batch, length), 1 on the tokens that carry the reward of a step, also where it is 0."""
    ends = torch.zeros_like(batch.mask)
    for row, rollout in enumerate(rollouts):
        ends[row, [len(rollout.prompt_ids) + end for end in rollout.ends]] = 1.0
    return ends


def terminal_rewards(rollouts: Sequence[Rollout], batch: Batch) -> Tensor:
    """(batch, length): the non-step part of `batch.rewards`, on the last token of a completion."""
    terminal = torch.zeros_like(batch.rewards)
    for row, rollout in enumerate(rollouts):
        terminal[row, len(rollout.prompt_ids) + len(rollout.sample.token_ids) - 1] = rollout.terminal
    return terminal


def group_ids(rollouts: Sequence[Rollout], device: torch.device) -> Tensor:
    """(batch,) integers, the same for rollouts of the same question."""
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(r.question.problem_id, len(numbers)) for r in rollouts]
    return torch.tensor(ids, device=device)
