"""Where rollouts are drawn: in this process, or by engines in processes of their own.

The embedded engine samples from the weights that learn. Engines of their own
(E2H_ROLLOUT_ENGINES=N, of the kind E2H_ENGINE) get the weights before each draw. Every sample says
which weights made it, and the loop refuses those of other weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from e2h_pipeline.generation.engines.broadcast import TensorInfo
from e2h_pipeline.generation.engines.fleet import Fleet, Settings
from e2h_pipeline.generation.engines.protocol import (
    Sample,
    Sampler,
    SampleRequest,
    SamplingOptions,
    sample_of,
)
from e2h_pipeline.models.adapters import adapter_tensors, save_adapter
from e2h_pipeline.recipe import OnlineRl
from e2h_pipeline.rl.algorithms import SFT_POLICY, RlJob
from e2h_pipeline.rl.online.shards import gathered
from e2h_pipeline.rl.ranks import told
from e2h_pipeline.training.trainer import is_main_process

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from e2h_pipeline.rl.online.models import Run


class StaleRollouts(RuntimeError):
    """Rollouts were made by other weights than an update asked for."""


class RolloutEngine(Protocol):
    """Draws from the policy.

    Attributes:
        exact: its log-probabilities are the trainer's own, from the same weights by the same code.
        sending: seconds that went into weights so far.
    """

    exact: bool
    sending: float

    def take_weights(self, version: int) -> None:
        """From here on draw from the policy's present weights. `version` numbers them: the updates
        behind them. Weights that the engine has are not sent again."""
        ...

    def sample(self, requests: Sequence[SampleRequest], options: SamplingOptions) -> list[list[Sample]]:
        """Samples of each request, in the order asked, each with the version of its weights."""
        ...

    def begin(self, requests: Sequence[SampleRequest], options: SamplingOptions) -> None:
        """Begin to draw what `drawn` then returns. Until then nothing else may be asked for."""
        ...

    def drawn(self) -> list[list[Sample]]:
        """The samples that were begun, as of `sample`."""
        ...

    def require_alive(self) -> None:
        """Raise an error where the engine cannot draw any more."""
        ...


class Embedded:
    """Draws in this process, by an engine on the model that learns."""

    sending = 0.0

    def __init__(self, engine: Sampler, exact: bool) -> None:
        self._engine, self.exact = engine, exact
        self._version: int | None = None
        self._begun: list[list[Sample]] = []

    def take_weights(self, version: int) -> None:
        """See `RolloutEngine`. It has the weights."""
        self._version = version

    def sample(self, requests: Sequence[SampleRequest], options: SamplingOptions) -> list[list[Sample]]:
        """See `RolloutEngine`."""
        drawn = self._engine.sample(requests, options)
        return [[replace(sample, version=self._version) for sample in samples] for samples in drawn]

    def begin(self, requests: Sequence[SampleRequest], options: SamplingOptions) -> None:
        """See `RolloutEngine`. It draws at once: soon the model has other weights."""
        self._begun = self.sample(requests, options)

    def drawn(self) -> list[list[Sample]]:
        """See `RolloutEngine`."""
        return self._begun

    def require_alive(self) -> None:
        """See `RolloutEngine`. It is."""


class Separate:
    """Draws in processes of their own. Rank 0 drives them; all ranks know the samples."""

    exact = False

    def __init__(self, fleet: Fleet | None, policy: PreTrainedModel, adapter: str | None) -> None:
        """
        Args:
            fleet: on rank 0.
            adapter: the adapter that learns; None where weights do.
        """
        self._fleet, self._policy, self._adapter = fleet, policy, adapter
        self._version: int | None = None
        self.sending = 0.0

    def take_weights(self, version: int) -> None:
        """See `RolloutEngine`.

        Raises:
            RolloutEngineError: an engine died, failed or fell silent.
        """
        if version == self._version:
            return
        began = time.monotonic()
        if self._adapter is not None:
            own = adapter_tensors(self._policy, self._adapter)
            tensors = {name: gathered(tensor.detach()) for name, tensor in own.items()}
            if self._fleet:
                save = partial(save_adapter, self._policy, self._adapter, tensors)
                self._fleet.take_adapter(save, version)
        elif self._fleet:
            self._fleet.take_weights(PolicyWeights(self._policy), version)
        else:
            for _ in PolicyWeights(self._policy).tensors():
                continue  # its part of putting them together
        self._version = version
        self.sending += time.monotonic() - began

    def sample(self, requests: Sequence[SampleRequest], options: SamplingOptions) -> list[list[Sample]]:
        """See `RolloutEngine`.

        Raises:
            RolloutEngineError: an engine died, failed or fell silent.
        """
        self.begin(requests, options)
        return self.drawn()

    def begin(self, requests: Sequence[SampleRequest], options: SamplingOptions) -> None:
        """See `RolloutEngine`.

        Raises:
            RolloutEngineError: an engine died or failed.
        """
        if self._fleet:
            self._fleet.begin(requests, options)

    def drawn(self) -> list[list[Sample]]:
        """See `RolloutEngine`.

        Raises:
            RolloutEngineError: an engine died, failed or fell silent.
        """
        drawn: list[list[dict[str, Any]]] = told(self._drawn)
        return [[sample_of(values) for values in samples] for samples in drawn]

    def require_alive(self) -> None:
        """See `RolloutEngine`.

        Raises:
            RolloutEngineError: an engine has ended.
        """
        if self._fleet:
            self._fleet.require_alive()

    def _drawn(self) -> list[list[dict[str, Any]]]:
        assert self._fleet is not None
        return [[asdict(sample) for sample in samples] for samples in self._fleet.drawn()]


class PolicyWeights:
    """Weights of a policy, by the names of its checkpoint. Ranks that hold shards put each tensor
    together as they come to it."""

    def __init__(self, policy: PreTrainedModel) -> None:
        self._policy = policy

    def infos(self) -> list[TensorInfo]:
        """See `fleet.Weights`."""
        return [TensorInfo.of(name, parameter) for name, parameter in self._policy.named_parameters()]

    def tensors(self) -> Iterator[torch.Tensor]:
        """See `fleet.Weights`."""
        for _, parameter in self._policy.named_parameters():
            yield gathered(parameter.detach())


@contextmanager
def rollout_engine(job: RlJob[OnlineRl], run: Run[Any]) -> Iterator[RolloutEngine]:
    """The engine that this host's settings ask for; outside of the block it is gone.

    Raises:
        RolloutEngineError: an engine did not start.
    """
    settings = Settings.from_environment()
    if not settings.engines:
        yield run.engine
        return
    rank = job.options.lora_rank
    fleet = None
    if is_main_process():
        fleet = Fleet(job.work.engine, job.inputs[SFT_POLICY], run.tokenizer, settings, job.work.folder, rank)
    try:
        yield Separate(fleet, run.policy, "policy" if rank else None)
    finally:
        if fleet:
            fleet.close()


def require_version(samples: Sequence[Sample], version: int, update: int) -> None:
    """Refuse samples of other weights.

    Args:
        version: of the weights that were asked for.
        update: that they are for, from 0.

    Raises:
        StaleRollouts: there is one.
    """
    others = sorted({str(sample.version) for sample in samples if sample.version != version})
    if others:
        raise StaleRollouts(
            f"update {update + 1} asked for rollouts of the weights of version {version}, and got rollouts of "
            f"{', '.join(others)}; run again to go on from the last checkpoint"
        )
