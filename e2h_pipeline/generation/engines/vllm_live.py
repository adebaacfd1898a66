"""A vLLM engine that takes new weights while it runs.

The only module that knows how vLLM does that: its weight-transfer protocol, which changed in 0.28
and again since, so other versions than 0.32 are refused. vLLM's own transports need CUDA, and NCCL
needs a card for each process; `GlooTransfer` works on any device, through the CPU's memory.

Only `vllm_engine` imports this module, inside functions, because it needs vLLM. In vLLM's workers
`vllm_worker` names it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

from e2h_pipeline.generation.engines.broadcast import Broadcast, Meeting, TensorInfo
from e2h_pipeline.generation.engines.vllm_engine import VllmEngine, VllmUnavailable
from e2h_pipeline.generation.engines.vllm_worker import TRANSPORT

SHARE = "E2H_ROLLOUT_GPU_SHARE"  # of a card's memory; the fleet sets it
SUPPORTED = "0.32."


@dataclass
class _Init(WeightTransferInitInfo):
    """The group, and the rank of the first worker."""

    meeting: dict[str, Any]
    rank: int


@dataclass
class _Update(WeightTransferUpdateInfo):
    """Tensors to come: name, number format, shape."""

    tensors: list[list[Any]]


class GlooTransfer(WeightTransferEngine[_Init, _Update]):
    """Receives the weights of a checkpoint in one worker."""

    init_info_cls = _Init
    update_info_cls = _Update
    _group: Broadcast | None = None

    def init_transfer_engine(self, init_info: _Init) -> None:
        """Join the group."""
        self._group = Broadcast(Meeting(**init_info.meeting), init_info.rank + self.parallel_config.rank)

    def start_weight_update(self) -> None:
        """Undo what vLLM did to the weights after loading, such as packing them for the CPU."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def finish_weight_update(self) -> None:
        """Do it again to the new ones.

        vLLM 0.32 forgets an output layer that shares its weights with the embedding: no tensor has
        its name. On a CPU it goes on with a packed copy of the old weights, which no checksum of
        parameters shows, so it is packed again here.
        """
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)
        for layer in self.model.modules():
            if hasattr(layer, "cpu_linear") and layer.weight.numel():  # others keep the packed copy alone
                layer.quant_method.process_weights_after_loading(layer)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Receive some tensors. The base class waits for an accelerator after it; nothing here is
        asynchronous."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: _Update) -> None:
        """Receive and load tensor by tensor."""
        assert self._group is not None
        infos = [TensorInfo(name, dtype, tuple(shape)) for name, dtype, shape in update_info.tensors]
        for name, tensor in self._group.receive(infos):
            self.model.load_weights([(name, tensor.to(self.device))])

    def shutdown(self) -> None:
        """Leave the group."""
        self._group = None


class LiveVllm(VllmEngine):
    """See `LiveEngine`."""

    def __init__(self, model: Path, cards: int, adapter_rank: int = 0) -> None:
        """Start it.

        Raises:
            VllmUnavailable: from `VllmEngine`; or this vLLM's protocol of weights is not known.
        """
        import vllm
        from vllm.config import WeightTransferConfig

        if not vllm.__version__.startswith(SUPPORTED):
            raise VllmUnavailable(
                f"rollout engines know how vLLM {SUPPORTED}x takes new weights, and this is {vllm.__version__}: install "
                "that, or unset E2H_ROLLOUT_ENGINES"
            )
        more: dict[str, Any] = {}
        if share := os.environ.get(SHARE):
            more["gpu_memory_utilization"] = float(share)
        if adapter_rank:
            more |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _lora_rank(adapter_rank)}
        super().__init__(
            model,
            tensor_parallel_size=cards,
            weight_transfer_config=WeightTransferConfig(backend=TRANSPORT),
            **more,
        )
        self.workers = cards

    def join(self, meeting: Meeting, rank: int) -> None:
        """See `LiveEngine`."""
        init = {"meeting": asdict(meeting), "rank": rank}
        self._running.init_weight_transfer_engine({"init_info": init})

    def start(self) -> None:
        """See `LiveEngine`."""
        self._running.start_weight_update()

    def update(self, infos: Sequence[TensorInfo]) -> None:
        """See `LiveEngine`."""
        tensors = [[info.name, info.dtype, list(info.shape)] for info in infos]
        self._running.update_weights({"update_info": {"tensors": tensors}})

    def finish(self, version: int) -> int:
        """See `LiveEngine`.

        Raises:
            RuntimeError: the prefix cache still has keys and values of the old weights.
        """
        self._running.finish_weight_update()
        return self._from_now_on(version)

    def take_adapter(self, folder: Path, version: int) -> int:
        """See `LiveEngine`.

        Raises:
            RuntimeError: vLLM did not load it; or as of `finish`.
        """
        from vllm.lora.request import LoRARequest

        # A number of its own: vLLM keeps adapters by number, and 0 stands for none.
        self._adapter = LoRARequest(f"version {version}", version + 1, str(folder))
        if not self._running.llm_engine.add_lora(self._adapter):
            raise RuntimeError(f"vLLM did not load the adapter of version {version}")
        return self._from_now_on(version)

    def _from_now_on(self, version: int) -> int:
        """Number the weights, and forget keys and values of the old ones."""
        self._running.update_weight_version(str(version))
        if not self._running.reset_prefix_cache():
            raise RuntimeError("vLLM did not empty its prefix cache: requests are under way")
        return int(self._running.get_weight_version())


def _lora_rank(rank: int) -> int:
    """The smallest rank that vLLM has kernels for, and that has room for this one.

    Raises:
        VllmUnavailable: there is none.
    """
    from typing import get_args

    from vllm.config.lora import MaxLoRARanks

    known = sorted(get_args(MaxLoRARanks))
    if rank > known[-1]:
        raise VllmUnavailable(f"vLLM takes LoRA adapters of rank {known[-1]} at most: lower rl.lora_rank")
    return next(size for size in known if size >= rank)
