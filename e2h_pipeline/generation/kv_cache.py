"""A key-value cache that grows in place, forks one prompt into N rows, and drops finished rows.

transformers' DynamicCache concatenates at every step: it copies the whole cache per token, which on
a small model costs more than the model itself.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer in a buffer of fixed capacity (rows, heads, capacity, width)."""

    def __init__(self, keys: Tensor, values: Tensor, capacity: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._length = keys.shape[2]
        self._keys, self._values = (_room(t, capacity) for t in (keys, values))
        self._view()

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        end = self._length + key_states.shape[2]
        self._keys[:, :, self._length : end] = key_states
        self._values[:, :, self._length : end] = value_states
        self._length = end
        self._view()
        return self.keys, self.values

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, in this order."""
        self._keys, self._values = self._keys[rows], self._values[rows]
        self._view()

    def _view(self) -> None:
        self.keys, self.values = self._keys[:, :, : self._length], self._values[:, :, : self._length]


def _room(tensor: Tensor, capacity: int) -> Tensor:
    rows, heads, length, width = tensor.shape
    buffer = tensor.new_zeros(rows, heads, capacity, width)
    buffer[:, :, :length] = tensor
    return buffer


def fork(prefilled: DynamicCache, counts: Tensor, capacity: int) -> Cache:
    """Repeat row i of a prefilled cache `counts[i]` times, with room for `capacity` tokens in all.

    Raises:
        ValueError: the model attends through a sliding window, which these layers do not forget by.
    """
    if any(getattr(layer, "is_sliding", False) for layer in prefilled.layers):
        raise ValueError(
            "the embedded engine does not serve sliding-window models; use one with full attention"
        )
    return Cache(
        layers=[
            GrowingLayer(
                layer.keys.repeat_interleave(counts, 0), layer.values.repeat_interleave(counts, 0), capacity
            )
            for layer in prefilled.layers
        ]
    )
