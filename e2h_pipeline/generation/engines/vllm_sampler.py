"""Draws tokens inside vLLM's sampler, by the rule and the randomness of the embedded engine.

vLLM's own seeds do not serve. A seeded request costs a random generator of its own; on a CPU the
engine dies where a prompt is computed in pieces ("CPU Generator does not use offset"); and the
draws are not counter-based. So requests are greedy to vLLM: this logits processor draws with
`choose` and `uniforms`, and makes the drawn token's logit the largest. vLLM takes log-probabilities
from the logits before any processor, so they stay the model's own, at temperature 1. Those at the
temperature of the draw are noted here and fetched from the workers when the samples are complete.

Only `vllm_engine` imports this module, inside functions, because it needs vLLM.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

from e2h_pipeline.generation.engines.protocol import SamplingOptions
from e2h_pipeline.generation.engines.transformers_engine import choose, logprobs_of
from e2h_pipeline.generation.noise import uniforms

# In a request's extra_args: key, index, tokens drawn before, temperature, top_k, top_p, scored.
DRAW = "e2h_draw"


class CounterSampler(LogitsProcessor):
    """Draws a token for every row of the batch. All rows have a `DRAW`, with the same sampling
    options."""

    # Of every batch drawn: keys, samples, positions and log-probabilities of its rows.
    _noted: ClassVar[list[tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64], Tensor]]] = []

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        # By place in the batch: the row's DRAW, and its tokens so far, a list that vLLM appends to.
        self._rows: dict[int, tuple[list[Any], list[int]]] = {}
        self._keys, self._samples = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self._before = np.zeros(0, np.int64)
        self._drawn: list[list[int]] = []
        self._options = SamplingOptions(0.0, 0)

    def is_argmax_invariant(self) -> bool:
        """False: it changes the argmax."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow rows that entered, left or moved.

        Raises:
            ValueError: rows differ in temperature, top-k or top-p.
        """
        if not process_dict_updates(
            self._rows, batch_update, lambda p, _, drawn: (p.extra_args[DRAW], drawn)
        ):
            return
        rows = [self._rows[place] for place in range(len(self._rows))]
        self._keys = np.array([draw[0] for draw, _ in rows], np.uint64)
        self._samples = np.array([draw[1] for draw, _ in rows], np.int64)
        self._before = np.array([draw[2] for draw, _ in rows], np.int64)
        self._drawn = [drawn for _, drawn in rows]
        ways = {tuple(draw[3:]) for draw, _ in rows}
        if len(ways) > 1:
            raise ValueError(
                f"one batch, but {len(ways)} ways to draw: an engine samples for one caller at a time"
            )
        for temperature, top_k, top_p, scored in ways:
            self._options = SamplingOptions(temperature, 0, top_k, top_p, token_logprobs=scored)

    def apply(self, logits: Tensor) -> Tensor:
        """(rows, vocabulary) logits, with the drawn tokens' logits infinite."""
        if self._options.temperature == 0 or not self._drawn:
            return logits
        position = self._before + np.array([len(drawn) for drawn in self._drawn])
        uniform = torch.from_numpy(uniforms(self._keys, self._samples, position))
        tokens = choose(logits, uniform.to(logits.device), self._options)
        if self._options.token_logprobs:
            scores = logprobs_of(logits / self._options.temperature, tokens)
            self._noted.append((self._keys, self._samples, position, scores))
        return logits.scatter_(1, tokens[:, None], torch.inf)

    @classmethod
    def take_scores(cls) -> dict[tuple[int, int], list[float]]:
        """Log-probabilities of all tokens drawn since the last call, by key and number of the
        sample.

        A token that was drawn again, after vLLM had put its request back, has that of the last draw.
        """
        found: dict[tuple[int, int], dict[int, float]] = {}
        for keys, samples, positions, scores in cls._noted:
            rows = zip(keys.tolist(), samples.tolist(), positions.tolist(), scores.tolist(), strict=True)
            for key, sample, position, score in rows:
                found.setdefault((key, sample), {})[position] = score
        cls._noted.clear()
        return {row: [of[position] for position in sorted(of)] for row, of in found.items()}
