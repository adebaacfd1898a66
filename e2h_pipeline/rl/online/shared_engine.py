"""An engine on every rank, and one list of requests: each rank draws its share.

Draws are counter-based, so the samples are those of one process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from e2h_pipeline.generation.engines.protocol import Sample, SampleRequest, SamplingOptions, Watch, sample_of
from e2h_pipeline.rl.ranks import gather, share

if TYPE_CHECKING:
    from e2h_pipeline.generation.engines.protocol import Engine


class SharedEngine:
    """Draws as `engine` does, which every rank has.

    Args:
        ready: within it the engine can draw.
    """

    def __init__(
        self, engine: Engine, ready: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        self._engine, self._ready = engine, ready

    def sample(
        self, requests: Sequence[SampleRequest], options: SamplingOptions, watch: Watch | None = None
    ) -> list[list[Sample]]:
        """Samples of all requests, on every rank. See `Engine`."""
        own = share([request.count for request in requests])
        with self._ready():
            drawn = self._engine.sample([requests[i] for i in own], options, watch)
        if len(own) == len(requests):
            return drawn
        plain = [[asdict(sample) for sample in samples] for samples in drawn]
        found = gather(dict(zip(own, plain, strict=True)), len(requests))
        return [[sample_of(values) for values in samples] for samples in found]
