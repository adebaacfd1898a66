"""Attention of samples that share their prompts: each prompt's keys and values are kept once.

A cohort is a set of rows (samples) that began together, so all have drawn equally many tokens. Its
attention has two parts under one softmax: over the prompt, in one matrix product for all samples of
the prompt, and over each sample's own tokens. No prompt is copied N times, and no sample is padded
to the length of another. Rows of all cohorts go through the rest of the model together.

transformers calls `attend` through its registry of attention functions. `check_supported` refuses
models that do not use the registry, or whose attention has windows, caps or sinks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from e2h_pipeline.models.probes import MORE_THAN_PLAIN, TOKENS, agree, in_float32, learned_positions, window

ATTENTION = "e2h_cohorts"
_ENDS = 4  # most prompt lengths per pass: it computes the logits of every prompt at each of them
ROOM = 32  # tokens that a row has room for at first; doubled when full


class UnsupportedModel(ValueError):
    """The embedded engine cannot serve this model; the message says why, and names an engine that
    can."""


class Cohort:
    """Keys and values of rows that began together.

    Rows are in groups of one prompt each, of at most `size` rows. For the product with the prompts
    they are put on a grid (groups, size). The grid has holes where rows have left.
    """

    def __init__(
        self, prompts: Sequence[tuple[Tensor, Tensor]], lengths: Tensor, group: Tensor, limit: int
    ) -> None:
        """Rows with nothing drawn yet.

        Args:
            prompts: keys and values of the groups' prompts for each layer, each (groups, key heads,
                length, width).
            lengths: (groups,) tokens of each prompt; attention leaves out the padding after them.
            group: (rows,) ascending, the group of each row.
            limit: tokens that a row may draw.
        """
        self._heads = prompts[0][0].shape[1]
        self.prompt_keys = [keys.flatten(0, 1) for keys, _ in prompts]
        self.prompt_values = [values.flatten(0, 1) for _, values in prompts]
        self.lengths, self.group, self.limit, self.length = lengths, group, limit, 0
        rows = len(group) * self._heads
        self.keys, self.values = (
            [t.new_empty(min(limit, ROOM), rows, t.shape[2]) for t in prompts]
            for prompts in (self.prompt_keys, self.prompt_values)
        )
        self._arrange()

    def __len__(self) -> int:
        return len(self.group)

    @property
    def held(self) -> int:
        """Tokens that there is room for, in prompts and rows."""
        return len(self.lengths) * self.prompt_keys[0].shape[1] + len(self.group) * len(self.keys[0])

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Add the rows' newest tokens to their keys and values, and attend from them.

        Args:
            query: (rows, heads, 1, width).
            key, value: (rows, key heads, 1, width).

        Returns:
            (rows, 1, heads, width).
        """
        rows, heads, _, width = query.shape
        keys, values = self.keys[layer], self.values[layer]
        keys[self.length] = key.reshape(-1, width)
        values[self.length] = value.reshape(-1, width)
        # From here (rows x key heads, queries of a key head, ...), for batched matrix products.
        # Scores in float32, as in fused kernels: in 16 bits one of 20 is rounded by .06, its weight by 6%.
        query = (query.float() * scaling).view(keys.shape[1], -1, width)
        own = query.bmm(keys[: self.length + 1].permute(1, 2, 0).float())
        prompt = self._from_grid(self._prompt_scores(self._grid(query), self.prompt_keys[layer]))
        length = prompt.shape[-1]
        weights = torch.cat([prompt, own], -1).softmax(-1).to(value.dtype)
        told = self._from_grid(self._grid(weights[..., :length]).bmm(self.prompt_values[layer]))
        out = torch.baddbmm(told, weights[..., length:], values[: self.length + 1].transpose(0, 1))
        return out.view(rows, 1, heads, width)

    def advance(self) -> None:
        """Count the token that was added in every layer."""
        self.length += 1
        if self.length == len(self.keys[0]) and self.length < self.limit:
            self._room(min(self.limit, 2 * self.length), None)

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows and their prompts; `rows` is ascending."""
        self.group = self.group[rows]
        self._room(len(self.keys[0]), rows)
        needed, self.group = self.group.unique_consecutive(return_inverse=True)
        if len(needed) < len(self.lengths):
            self.lengths = self.lengths[needed]
            self.prompt_keys = [self._of(t, needed) for t in self.prompt_keys]
            self.prompt_values = [self._of(t, needed) for t in self.prompt_values]
        self._arrange()

    def beginnings(self, rows: Sequence[int]) -> list[Tensor]:
        """Keys and values of a row's prompt and tokens, one tensor for each of some rows: (2 x layers,
        key heads, tokens, width), keys and values in turn. All layers must have one shape."""
        chosen = torch.tensor(rows, device=self.group.device)
        groups = self.group[chosen]
        parts = [t for pair in zip(self.prompt_keys, self.prompt_values, strict=True) for t in pair]
        own = [t[: self.length] for pair in zip(self.keys, self.values, strict=True) for t in pair]
        prompts = torch.stack([t.unflatten(0, (-1, self._heads))[groups] for t in parts])
        drawn = torch.stack([t.unflatten(1, (-1, self._heads))[:, chosen].permute(1, 2, 0, 3) for t in own])
        lengths = self.lengths[groups].tolist()
        return [torch.cat([prompts[:, i, :, :n], drawn[:, i]], 2) for i, n in enumerate(lengths)]

    def _of(self, held: Tensor, chosen: Tensor) -> Tensor:
        """(groups x key heads, ...) of some groups alone."""
        return held.unflatten(0, (-1, self._heads))[chosen].flatten(0, 1)

    def _room(self, capacity: int, rows: Tensor | None) -> None:
        """Move the rows' keys and values, (tokens, rows x key heads, width), to buffers for
        `capacity` tokens."""
        for held in (self.keys, self.values):
            for i, old in enumerate(held):  # one by one: the old and new buffer are in memory together
                held[i] = old.new_empty(capacity, len(self.group) * self._heads, old.shape[2])
                kept = old[: self.length]
                if rows is not None:
                    kept = kept.unflatten(1, (-1, self._heads))[:, rows].flatten(1, 2)
                held[i][: self.length] = kept

    def _arrange(self) -> None:
        """Work out the place of each row on the grid, and the bias, (groups x key heads, 1,
        length), that hides positions after a prompt."""
        counts = self.group.bincount(minlength=len(self.lengths))
        first = counts.cumsum(0) - counts
        self._size = int(counts.max())
        place = self.group * self._size + torch.arange(len(self.group), device=self.group.device)
        place -= first[self.group]
        self._place = None if len(place) == len(counts) * self._size else place
        keys = self.prompt_keys[0]
        hidden = torch.arange(keys.shape[1], device=keys.device) >= self.lengths[:, None]
        self._hidden = None
        if bool(hidden.any()):
            bias = torch.zeros(hidden.shape, device=keys.device).masked_fill_(hidden, -torch.inf)
            self._hidden = bias[:, None].repeat_interleave(self._heads, 0)

    def _prompt_scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """(groups x key heads, queries, width) and (groups x key heads, length, width) to
        scores."""
        keys = keys.transpose(1, 2).float()
        return query.bmm(keys) if self._hidden is None else torch.baddbmm(self._hidden, query, keys)

    def _grid(self, rows: Tensor) -> Tensor:
        """(rows x key heads, queries, width) to (groups x key heads, size x queries, width)."""
        _, queries, width = rows.shape
        rows = rows.view(-1, self._heads, queries, width)
        if self._place is not None:
            grid = rows.new_zeros(len(self.lengths) * self._size, self._heads, queries, width)
            rows = grid.index_copy_(0, self._place, rows)
        rows = rows.view(-1, self._size, self._heads, queries, width).transpose(1, 2)
        return rows.reshape(-1, self._size * queries, width)

    def _from_grid(self, grid: Tensor) -> Tensor:
        """Back: (groups x key heads, size x queries, width) to (rows x key heads, queries,
        width)."""
        width = grid.shape[-1]
        rows = grid.view(len(self.lengths), self._heads, self._size, -1, width).transpose(1, 2)
        rows = rows.reshape(-1, self._heads, rows.shape[3], width)
        return (rows if self._place is None else rows[self._place]).flatten(0, 1)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    cohorts: Sequence[Cohort] = (),
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention over cohorts whose rows are concatenated; plain causal attention without cohorts.

    The signature is transformers'.

    Raises:
        UnsupportedModel: the model asks for more than plain attention.
    """
    asked = [name for name in MORE_THAN_PLAIN if kwargs.get(name) is not None]
    if asked:
        raise UnsupportedModel(_refusal(f"{type(module).__name__} attends with {', '.join(asked)}"))
    if not cohorts:
        return sdpa_attention_forward(module, query, key, value, None, scaling=scaling)
    layer: int = module.layer_idx
    if len(cohorts) == 1:
        return cohorts[0].attend(layer, query, key, value, scaling), None
    sizes = [len(cohort) for cohort in cohorts]
    parts = zip(cohorts, query.split(sizes), key.split(sizes), value.split(sizes), strict=True)
    return torch.cat([cohort.attend(layer, q, k, v, scaling) for cohort, q, k, v in parts]), None


@contextmanager
def cohorts_attend(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block the model attends by `attend`, in evaluation mode."""
    usual, training = model.config._attn_implementation, model.training
    model.config._attn_implementation = ATTENTION  # transformers makes no masks for an unknown name
    model.eval()
    try:
        yield
    finally:
        model.config._attn_implementation = usual
        model.train(training)


def prefill(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]]
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Compute some prompts, ascending in length, padded on the right, where causal attention never
    looks.

    Returns:
        Keys and values for each layer, each (prompts, key heads, longest, width); and (prompts,
        vocabulary) logits of the token after each prompt.
    """
    longest = max(map(len, prompts))
    layers, logits = [], []
    ends = sorted({len(prompt) for prompt in prompts})
    for first in range(0, len(ends), _ENDS):
        alike = [prompt for prompt in prompts if len(prompt) in ends[first : first + _ENDS]]
        held, behind = _prefill(model, alike)
        behind_ends = (0, 0, 0, longest - held[0][0].shape[2])
        layers.append([(pad(keys, behind_ends), pad(values, behind_ends)) for keys, values in held])
        logits.append(behind)
    joined = [
        (torch.cat([k for k, _ in parts]), torch.cat([v for _, v in parts]))
        for parts in zip(*layers, strict=True)
    ]
    return joined, torch.cat(logits)


def _prefill(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]]
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    longest, device = max(map(len, prompts)), model.device
    ids = torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    ends, of = (lengths - 1).unique(return_inverse=True)
    cache = DynamicCache(config=model.config)
    found = model(
        input_ids=ids,
        position_ids=torch.arange(longest, device=device).expand(len(prompts), -1),
        past_key_values=cache,
        logits_to_keep=ends,
    )
    logits = found.logits[torch.arange(len(prompts), device=device), of]
    return [(layer.keys, layer.values) for layer in cache.layers], logits


def decode(model: PreTrainedModel, cohorts: Sequence[Cohort], tokens: Tensor, positions: Tensor) -> Tensor:
    """Feed one token to every row of all cohorts.

    Args:
        tokens, positions: (rows,) of all cohorts, concatenated; positions count from the prompt's
            start.

    Returns:
        (rows, vocabulary) logits of the next token.
    """
    found = model(
        input_ids=tokens[:, None], position_ids=positions[:, None], use_cache=False, cohorts=cohorts
    )
    for cohort in cohorts:
        cohort.advance()
    return found.logits[:, -1]


def check_supported(model: PreTrainedModel, length: int = 0) -> None:
    """Refuse a model whose attention over `length` tokens is not plain full attention.

    Raises:
        UnsupportedModel: the model's attention is not plain full attention through transformers'
            registry.
    """
    if not getattr(model, "_supports_attention_backend", False):
        raise UnsupportedModel(_refusal(f"{type(model).__name__} has an attention of its own"))
    narrowest = window(model.config)
    if narrowest and narrowest < length:
        raise UnsupportedModel(
            _refusal(
                f"{type(model).__name__} attends to {narrowest} tokens only, and samples may have {length}"
            )
        )
    positions = learned_positions(model)
    if positions and positions < length:
        raise UnsupportedModel(
            f"{type(model).__name__} knows {positions} positions, and prompt and sample may have {length}: "
            "lower max_new_tokens"
        )
    others = set(getattr(model.config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if others:
        raise UnsupportedModel(_refusal(f"{type(model).__name__} has layers of {', '.join(sorted(others))}"))


def probe(model: PreTrainedModel) -> None:
    """Refuse a model that does not draw from cohorts what it would draw by itself.

    Raises:
        UnsupportedModel: the model's attention is not plain, though transformers says so.
    """
    start, limit, device = len(TOKENS) // 2, len(TOKENS), model.device
    name, model = type(model).__name__, in_float32(model)
    with torch.inference_mode():
        ids = torch.tensor([TOKENS], device=device)
        expected = model(input_ids=ids, use_cache=False).logits[0, start - 1 :]
        try:
            with cohorts_attend(model):
                found = torch.cat(_probed(model, start, limit))
        except UnsupportedModel:
            raise
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise UnsupportedModel(_refusal(f"{name}: {error}")) from None
    if not agree(found, expected):
        raise UnsupportedModel(_refusal(f"{name} attends in a way of its own"))


def _probed(model: PreTrainedModel, start: int, limit: int) -> list[Tensor]:
    """Logits behind a prompt of `start` tokens, and behind each token fed after it."""
    layers, logits = prefill(model, [TOKENS[:start]])
    zero = torch.zeros(1, dtype=torch.long, device=model.device)
    cohort = Cohort(layers, torch.tensor([start], device=model.device), zero, limit)
    found = [logits]
    for place in range(start, limit):
        found.append(decode(model, [cohort], zero + TOKENS[place], zero + place))
    return found


def _refusal(reason: str) -> str:
    return (
        f"{reason}, which the embedded engine does not serve: sample with the vllm engine (E2H_ENGINE=vllm)"
    )


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
