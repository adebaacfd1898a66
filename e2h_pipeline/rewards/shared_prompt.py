"""Candidates of one problem share the computation of its prompt: keys and values are made once.

The cache is never written: candidates attend to the one copy of the prompt's keys and values, and
their own are dropped after each layer. So memory is that of scoring without a cache, and one prompt
serves any number of batches.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PromptLayer(DynamicLayer):
    """Keys and values of one prompt in one layer, (1, heads, prompt tokens, width)."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.keys, self.values = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The prompt's and the rows' keys and values, (rows, heads, prompt + row tokens, width)."""
        return _behind(self.keys, key_states), _behind(self.values, value_states)


def _behind(prompt: Tensor, rows: Tensor) -> Tensor:
    return torch.cat([prompt.expand(rows.shape[0], -1, -1, -1), rows], dim=-2)


def can_share(model: PreTrainedModel) -> bool:
    """Whether the model keeps plain keys and values of everything before: no sliding window, no
    state."""
    if "past_key_values" not in inspect.signature(model.base_model.forward).parameters:
        return False
    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def prompt_cache(model: PreTrainedModel, prompt: Sequence[int]) -> Cache:
    """Run the prompt once and keep its keys and values for reading."""
    with torch.inference_mode():
        ids = torch.tensor([list(prompt)], device=model.device)
        filled = model.base_model(input_ids=ids, use_cache=True).past_key_values
    return Cache(layers=[PromptLayer(layer.keys, layer.values) for layer in filled.layers])
