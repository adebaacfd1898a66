"""Engines without a model, which start in a moment: an installed package, as rollout engines see
it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from e2h_pipeline.generation.engines.broadcast import Broadcast, Meeting, TensorInfo
from e2h_pipeline.generation.engines.protocol import Sample, SampleRequest, SamplingOptions, Watch

LONG = 1000
"""Tokens that take it for ever."""


class Talker:
    """Repeats the prompt, once for each sample. It draws a token every 5 ms where there are many."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._group: Broadcast | None = None
        self._version: int | None = None

    def join(self, meeting: Meeting, rank: int) -> None:
        """Join where there are weights to take."""
        self._group = Broadcast(meeting, rank) if self.workers else None

    def start(self) -> None:
        """Nothing to prepare."""

    def update(self, infos: Sequence[TensorInfo]) -> None:
        """Receive, and forget."""
        for _ in self._group.receive(infos) if self._group else ():
            continue

    def finish(self, version: int) -> int:
        """The mule has none of it."""
        self._version = version
        return version

    def take_adapter(self, folder: Path, version: int) -> int:
        """As `finish`."""
        return self.finish(version)

    def sample(
        self, requests: Sequence[SampleRequest], options: SamplingOptions, watch: Watch | None = None
    ) -> list[list[Sample]]:
        """The prompt again."""
        while options.max_new_tokens >= LONG and watch:
            time.sleep(0.005)
            watch.hopeless([])
        if not all(request.count for request in requests):
            raise ValueError("nothing to say")
        return [
            [Sample(r.first + i, "", r.tokens, "stop", 0.0, version=self._version) for i in range(r.count)]
            for r in requests
        ]


class Mule(Talker):
    """Takes weights and keeps its own."""

    def finish(self, version: int) -> int:
        """No."""
        return version - 1


class Parrot:
    """The word `parrot`: no weights, and no torch."""

    def open_live(self, model: Path, cards: int, adapter_rank: int) -> Talker:
        """See `LiveEntry`."""
        return Talker(0)


class Listener:
    """The word `listener`: it takes weights."""

    def open_live(self, model: Path, cards: int, adapter_rank: int) -> Talker:
        """See `LiveEntry`."""
        return Talker(1)


class Mules:
    """The word `mule`."""

    def open_live(self, model: Path, cards: int, adapter_rank: int) -> Talker:
        """See `LiveEntry`."""
        return Mule(0)


class Deaf:
    """The word `deaf`: its engine cannot take new weights."""
