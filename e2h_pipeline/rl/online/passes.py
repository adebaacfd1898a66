"""Forward passes over a rollout batch: the grouping of rows, and model outputs per token.

A minibatch is one optimizer step; it is cut into passes of rows of like length, so that little is
padding and memory is bounded. The grouping changes results only by rounding.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from e2h_pipeline.rl.batches import Batch, some_rows
from e2h_pipeline.rl.ranks import share, sum_up

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from e2h_pipeline.recipe import OnlineRl


# Positions of a forward pass. This many fit into a CPU's caches; larger tensors are allocated anew
# each time: on the ladder one pass of 128 rows took three times as long as four of 32 of like
# length (docs/log.md). On a GPU memory is the limit: the logits of this many positions over 32,000
# words take 2 GB in float32, and there are a few such tensors.
_PASS_TOKENS_ON_CPU, _PASS_TOKENS = 1536, 16_384


@dataclass(frozen=True)
class Pass:
    """Rows of a minibatch that go through the models together.

    Attributes:
        rows: their places in the whole batch.
        share: of the minibatch's completion tokens. A mean over the minibatch is the sum of share x
            mean over passes.
        batch: the rows, trimmed to the longest.
    """

    rows: Tensor
    share: float
    batch: Batch

    def of(self, values: Tensor) -> Tensor:
        """The rows of a (whole batch, length) tensor, trimmed as `batch` is."""
        return values[self.rows, : self.batch.ids.shape[1]]


def minibatches(batch: Batch, options: OnlineRl, seed: int, update: int) -> Iterator[Tensor]:
    """Rows of each optimizer step, shuffled by seed, update and epoch."""
    for epoch in range(options.epochs):
        order = list(range(len(batch.ids)))
        random.Random(f"rl/minibatches/{seed}/{update}/{epoch}").shuffle(order)
        yield from torch.tensor(order).split(options.minibatch)


def passes(batch: Batch, rows: Tensor, options: OnlineRl) -> Iterator[Pass]:
    """This rank's forward passes of a minibatch.

    Rows of like length go together, up to `rl.pass_tokens` positions; equal rows count once.
    """
    most = pass_tokens(batch.ids.device, options)
    alike, lengths = _alike(batch, rows)
    groups: list[list[int]] = []
    distinct = 0
    for i in share(lengths):
        if not groups or (distinct + 1) * lengths[i] > most:
            groups.append([])
            distinct = 0
        distinct += 1
        groups[-1] += alike[i]
    tokens = batch.mask[rows].sum(1).cpu()
    for group in groups:
        part = (tokens[group].sum() / tokens.sum().clamp(min=1)).item()
        yield Pass(rows[group], part, some_rows(batch, rows[group]))


def blank_pass(batch: Batch, rows: Tensor) -> Pass:
    """A pass that changes nothing: one row of the minibatch, with a share of 0."""
    return Pass(rows[:1], 0.0, some_rows(batch, rows[:1]))


def _alike(batch: Batch, rows: Tensor) -> tuple[list[list[int]], list[int]]:
    """Places of equal rows together, shortest rows first, and the length of each such row."""
    lengths = batch.attention[rows].sum(1).tolist()
    found: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for place, (length, ids) in enumerate(zip(lengths, batch.ids[rows].tolist(), strict=True)):
        found.setdefault((length, tuple(ids)), []).append(place)
    order = sorted(found)
    return [found[row] for row in order], [length for length, _ in order]


def pass_tokens(device: torch.device, options: OnlineRl) -> int:
    """Most positions of a forward pass, padding included; a pass has one row at least."""
    return most_positions(options, cpu=device.type == "cpu")


def most_positions(options: OnlineRl, *, cpu: bool) -> int:
    """`pass_tokens` of a kind of device."""
    return options.pass_tokens or (_PASS_TOKENS_ON_CPU if cpu else _PASS_TOKENS)


@torch.no_grad()
def by_rows(batch: Batch, options: OnlineRl, measure: Callable[[Batch], Tensor]) -> Tensor:
    """Apply `measure` in minibatches, without gradient; one value per token, (batch, length).

    Every rank measures some rows.
    """
    found = torch.zeros_like(batch.rewards)
    for some in torch.arange(len(batch.ids)).split(options.minibatch):
        for part in passes(batch, some, options):
            values = measure(part.batch)
            found[part.rows, : values.shape[1]] = values
    sum_up([found])
    return found


def token_logprobs(model: PreTrainedModel, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each token given those before it, and the entropy there, without gradient.

    Both are (batch, length), at the rollout temperature; position 0 holds 0.
    """
    (ids, attention), of = distinct_rows(batch)
    chosen, entropy = row_logprobs(model, ids, attention, temperature)
    return shift(chosen)[of], shift(entropy)[of]


def row_logprobs(
    model: PreTrainedModel, ids: Tensor, attention: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """`token_logprobs` of (rows, length) tokens, for all positions but the first.

    It is apart because the memory plan (`rl.memory`) runs it on tensors without data.
    """
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, :-1]
    log_p = (logits.float() / temperature).log_softmax(-1)
    chosen = log_p.gather(-1, ids[:, 1:, None]).squeeze(-1)
    with torch.no_grad():  # it is reported, not learned from
        entropy = -(log_p.exp() * log_p).sum(-1)
    return chosen, entropy


def token_values(critic: PreTrainedModel, batch: Batch) -> Tensor:
    """Value of the state each token is chosen in, (batch, length): token t's is read at t - 1."""
    (ids, attention), of = distinct_rows(batch)
    return shift(row_values(critic, ids, attention)[:, :-1])[of]


def row_values(critic: PreTrainedModel, ids: Tensor, attention: Tensor) -> Tensor:
    """The critic's output for (rows, length) tokens."""
    values: Tensor = critic(input_ids=ids, attention_mask=attention, use_cache=False).logits
    return values.squeeze(-1).float()


def distinct_rows(batch: Batch) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Tokens and attention of the distinct rows, and each row's number among them.

    A model's outputs for equal rows are the same. Samples of an easy question, or of a confident
    policy, are often equal.
    """
    both = torch.cat([batch.ids, batch.attention], 1)
    rows, of = both.unique(dim=0, return_inverse=True)
    if len(rows) == len(both):  # all differ: they stay in their order
        rows, of = both, torch.arange(len(both), device=both.device)
    ids, attention = rows.chunk(2, 1)
    return (ids, attention), of


def shift(values: Tensor) -> Tensor:
    """(batch, length - 1) values of all tokens but the first to (batch, length), 0 in front."""
    return torch.nn.functional.pad(values, (1, 0))
