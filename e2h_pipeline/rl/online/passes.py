"""TODO: docstring."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from e2h_pipeline.rl.rollouts import (
    Batch,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from e2h_pipeline.recipe import Rl


# Positions of a forward pass. What a CPU holds of more leaves its caches and is allocated anew each time: on the ladder
# one pass of 128 rows took three times as long as four of 32 of like length (docs/log.md). On a GPU memory is the limit:
# logits over 32,000 words of so many positions are 2 GB in float32, and there are a few such tensors.
_PASS_TOKENS_ON_CPU, _PASS_TOKENS = 1536, 16_384


def minibatches(batch: Batch, options: Rl, seed: int, update: int) -> Iterator[Tensor]:
    """Rows of each optimizer step, in an order drawn from what they are drawn for."""
    for epoch in range(options.epochs):
        order = list(range(len(batch.ids)))
        random.Random(f"rl/minibatches/{seed}/{update}/{epoch}").shuffle(order)
        yield from torch.tensor(order).split(options.minibatch)


def passes(batch: Batch, rows: Tensor, options: Rl) -> Iterator[tuple[Tensor, float]]:
    """Rows of a minibatch that are one forward pass, and their share of its completion tokens. Rows of like length go
    together, equal ones side by side; `rl.pass_tokens` says how many.

    A mean over the minibatch's tokens is the sum of share x mean over the passes.
    """
    most = pass_tokens(batch.ids.device, options)
    lengths = batch.attention[rows].sum(1).tolist()
    ids = batch.ids[rows].tolist()
    groups: list[list[int]] = [[]]
    distinct = 0
    for place in sorted(range(len(rows)), key=lambda i: (lengths[i], ids[i])):
        distinct += not groups[-1] or ids[place] != ids[groups[-1][-1]]
        if groups[-1] and distinct * lengths[place] > most:
            groups.append([])
            distinct = 1
        groups[-1].append(place)
    tokens = batch.mask[rows].sum(1).cpu()
    for group in groups:
        yield rows[group], (tokens[group].sum() / tokens.sum().clamp(min=1)).item()


def pass_tokens(device: torch.device, options: Rl) -> int:
    """Positions of a forward pass, padding included, at most; a pass has one row at least."""
    return options.pass_tokens or (_PASS_TOKENS_ON_CPU if device.type == "cpu" else _PASS_TOKENS)


@torch.no_grad()
def by_rows(batch: Batch, options: Rl, measure: Callable[[Batch], Tensor]) -> Tensor:
    """Something of each token of a batch, (batch, length), no more than a minibatch at a time."""
    found = torch.zeros_like(batch.rewards)
    for some in torch.arange(len(batch.ids)).split(options.minibatch):
        for rows, _ in passes(batch, some, options):
            part = measure(some_rows(batch, rows))
            found[rows, : part.shape[1]] = part
    return found


def token_logprobs(model: PreTrainedModel, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each token of `batch.ids` given what stands before it, and the entropy there, without gradient.

    Both (batch, length) at the rollout temperature; position 0 holds 0.
    """
    (ids, attention), of = distinct_rows(batch)
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, :-1]
    log_p = (logits.float() / temperature).log_softmax(-1)
    chosen = log_p.gather(-1, ids[:, 1:, None]).squeeze(-1)
    with torch.no_grad():  # it is watched, not learned from
        entropy = -(log_p.exp() * log_p).sum(-1)
    return shift(chosen)[of], shift(entropy)[of]


def distinct_rows(batch: Batch) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Tokens and attention of rows that differ, and which of them each row is: a model says the same of equal ones.

    Samples of an easy question, or of a policy that is sure, are often word for word the same.
    """
    both = torch.cat([batch.ids, batch.attention], 1)
    rows, of = both.unique(dim=0, return_inverse=True)
    if len(rows) == len(both):  # all differ: they stay in their order
        rows, of = both, torch.arange(len(both), device=both.device)
    ids, attention = rows.chunk(2, 1)
    return (ids, attention), of


def shift(values: Tensor) -> Tensor:
    """(batch, length - 1) to (batch, length): what is known of each token but the first, 0 there."""
    return torch.nn.functional.pad(values, (1, 0))


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
