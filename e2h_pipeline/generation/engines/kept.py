"""Keys and values of paused draws, so that a search need not compute its beginnings again.

A draw that pauses (`SamplingOptions.pause`) leaves the keys and values of its tokens here. A request
that goes on from the same tokens takes them. Beginnings that nobody asked for again are forgotten
first. A forgotten one is computed again: that costs time, and changes results by rounding alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from e2h_pipeline.generation.engines.cohort import Cohort, decode

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values for each layer, each (prompts, key heads, length, width)."""


ROOM_BYTES = 4 << 30


class Kept:
    """Beginnings with their keys and values, at most `room` bytes of them."""

    def __init__(self, room: int = ROOM_BYTES) -> None:
        self.room, self.held = room, 0
        # Of all tokens but the last, which was not fed yet: (2 x layers, key heads, tokens - 1, width).
        self._held: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    def __contains__(self, tokens: tuple[int, ...]) -> bool:
        return tokens in self._held

    def keep(self, cohort: Cohort, rows: Sequence[int], tokens: Sequence[tuple[int, ...]]) -> None:
        """Keep rows of a cohort; nothing of a model whose layers differ in shape."""
        if len({tuple(t.shape[i] for i in (0, 2)) for t in (*cohort.prompt_keys, *cohort.prompt_values)}) > 1:
            return
        for beginning, held in zip(tokens, cohort.beginnings(rows), strict=True):
            self._drop(beginning)
            self._held[beginning] = held
            self.held += held.nbytes
        while self.held > self.room:
            self._drop(next(iter(self._held)))

    def _drop(self, beginning: tuple[int, ...]) -> None:
        dropped = self._held.pop(beginning, None)
        if dropped is not None:
            self.held -= dropped.nbytes

    def enter(self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]) -> tuple[Layers, Tensor]:
        """What `cohort.prefill` returns, of prompts that are kept: only their last tokens are fed."""
        lengths = torch.tensor([len(prompt) - 1 for prompt in prompts], device=model.device)
        longest = int(lengths.max()) + 1
        held = []
        for prompt in prompts:
            self._held.move_to_end(prompt)
            own = self._held[prompt]
            held.append(pad(own, (0, 0, 0, longest - own.shape[2])))
        joined = torch.stack(held, 1)  # (2 x layers, prompts, key heads, longest, width)
        layers = list(zip(joined[0::2], joined[1::2], strict=True))
        each = torch.arange(len(prompts), device=model.device)
        cohort = Cohort(layers, lengths, each, 1)
        last = torch.tensor([prompt[-1] for prompt in prompts], device=model.device)
        logits = decode(model, [cohort], last, lengths)
        for (keys, values), fed_keys, fed_values in zip(layers, cohort.keys, cohort.values, strict=True):
            keys[each, :, lengths] = fed_keys[0].view(len(prompts), -1, keys.shape[-1])
            values[each, :, lengths] = fed_values[0].view(len(prompts), -1, values.shape[-1])
        return layers, logits
