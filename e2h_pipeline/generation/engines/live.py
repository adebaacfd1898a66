"""The protocol of live engines: engines that take new weights while they run.

Online reinforcement learning draws from a policy that changes at every update. An engine in a
process of its own (`host`) gets the weights by `Broadcast`: `start`, an `update` for each group of
tensors, `finish` with the number of the weights. `Sample.version` says which weights made a sample.
A transfer that fails leaves weights that are neither the old nor the new ones, so it ends the
engine. Where only a LoRA adapter learns, the engine has the frozen weights from the start, and
reads the adapter from a folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from e2h_pipeline.generation.engines.broadcast import Broadcast, Meeting, TensorInfo
from e2h_pipeline.generation.engines.protocol import (
    Engine,
    EngineEntry,
    Sample,
    SampleRequest,
    SamplingOptions,
    Watch,
)

if TYPE_CHECKING:
    from torch import Tensor


class LiveEngine(Engine, Protocol):
    """An engine that takes new weights while it runs.

    Attributes:
        workers: processes that hold weights; each is a member of the group.
    """

    workers: int

    def join(self, meeting: Meeting, rank: int) -> None:
        """Join the group that weights come over, as ranks `rank` ... `rank + workers - 1`."""
        ...

    def start(self) -> None:
        """Begin to take new weights."""
        ...

    def update(self, infos: Sequence[TensorInfo]) -> None:
        """Receive some tensors."""
        ...

    def finish(self, version: int) -> int:
        """End of the weights. From here on samples are of this version, which is returned."""
        ...

    def take_adapter(self, folder: Path, version: int) -> int:
        """Draw with the LoRA adapter of a folder, in PEFT's format. From here on samples are of this
        version, which is returned."""
        ...


class LiveEntry(EngineEntry, Protocol):
    """An entry of `registry.ENGINES` whose engine can take new weights."""

    def open_live(self, model: Path, cards: int, adapter_rank: int) -> LiveEngine:
        """The engine, with the model of a Hugging Face folder until it gets other weights.

        Args:
            cards: GPUs that share one copy of the model (tensor parallel).
            adapter_rank: of the LoRA adapters that it will take; 0 where it takes weights.
        """
        ...


class LiveTransformers:
    """The embedded engine with a model of its own. It serves tests, and hosts without vLLM."""

    workers = 1

    def __init__(self, model: Path) -> None:
        from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
        from e2h_pipeline.models.load import load_policy

        self.model, tokenizer = load_policy(model)
        self._engine = TransformersEngine(self.model, tokenizer)
        self._group: Broadcast | None = None
        self._version: int | None = None
        self._missing: dict[str, Tensor] = {}

    def join(self, meeting: Meeting, rank: int) -> None:
        """See `LiveEngine`."""
        self._group = Broadcast(meeting, rank)

    def start(self) -> None:
        """See `LiveEngine`."""
        self._version = None
        self._engine.forget()
        self._missing = dict(self.model.named_parameters())

    def update(self, infos: Sequence[TensorInfo]) -> None:
        """See `LiveEngine`.

        Raises:
            ValueError: the model has no such parameter, or one of another shape.
        """
        import torch

        assert self._group is not None
        with torch.no_grad():
            for name, tensor in self._group.receive(infos):
                own = self._missing.pop(name, None)
                if own is None or own.shape != tensor.shape:
                    raise ValueError(
                        f"the trainer sent {name} of shape {tuple(tensor.shape)}; the engine has "
                        f"{'no such parameter' if own is None else f'shape {tuple(own.shape)}'}"
                    )
                own.copy_(tensor)

    def finish(self, version: int) -> int:
        """See `LiveEngine`.

        Raises:
            ValueError: a parameter got no new value.
        """
        if self._missing:
            raise ValueError(
                f"the trainer sent no {', '.join(sorted(self._missing))}: the engine would draw from weights of "
                "two versions"
            )
        self._version = version
        return version

    def take_adapter(self, folder: Path, version: int) -> int:
        """See `LiveEngine`.

        Raises:
            ValueError: the adapter is of another model.
        """
        from e2h_pipeline.models.adapters import read_adapter

        read_adapter(self.model, "policy", folder)
        self._engine.forget()
        self._version = version
        return version

    def sample(
        self, requests: Sequence[SampleRequest], options: SamplingOptions, watch: Watch | None = None
    ) -> list[list[Sample]]:
        """See `Engine`."""
        drawn = self._engine.sample(requests, options, watch)
        return [[replace(sample, version=self._version) for sample in samples] for samples in drawn]
