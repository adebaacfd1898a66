"""Models split over the ranks (FSDP2), and checkpoints of which each rank writes its part.

An accelerate config with `distributed_type: FSDP` asks for it. accelerate's own `prepare` is not
used: it takes one model only, where an online run has up to four, and leaves CPUs out, so that it
could not be tested here. The models are split by what `prepare` calls too,
`torch.distributed.fsdp.fully_shard`, into a shard per decoder layer and one for the rest.

A pass of a split model is done by all ranks together, and ranks that draw or measure make different
numbers of passes. So for these the model is put together first (`whole`).

Checkpoints have the format of torch's HuggingFaceStorageWriter: safetensors files with the offset of
each part. That writer itself holds a second copy of its rank's state in memory, refuses tied
weights, and lets ranks send each other pickles; so `write` and `read` are our own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from e2h_pipeline.models.adapters import decoder_layers
from e2h_pipeline.rl.ranks import rank, sum_up
from e2h_pipeline.training.trainer import is_main_process, process_count, sharding_asked

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from transformers import PreTrainedModel

# torch.distributed.checkpoint._hf_utils
_SHARDING, _OFFSETS = "DCP_SHARDING_INFO", "saved_offsets"


def wanted() -> bool:
    """Whether the models of this run are split.

    Raises:
        ValueError: the accelerate config asks for what is not done here.
    """
    asked = sharding_asked()
    if asked == "DEEPSPEED":
        raise ValueError("PPO and GRPO are not sharded by DeepSpeed: set distributed_type to FSDP")
    if asked and os.environ.get("FSDP_OFFLOAD_PARAMS", "").lower() == "true":
        raise ValueError("PPO and GRPO do not offload weights to the host: set fsdp_offload_params to false")
    return asked == "FSDP" and process_count() > 1


def split(model: PreTrainedModel, layers_only: bool = False) -> None:
    """Split a model over the ranks, in place: a shard per decoder layer, and one for the rest.

    Weights that learn become float32, and are multiplied in the format they had: bfloat16 cannot
    represent a step of 2e-5.

    Args:
        layers_only: the rest stays whole, as it must where two models share the layers.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    device = "cpu" if model.device.type == "meta" else model.device.type  # no weights: for planning
    mesh = init_device_mesh(device, (process_count(),))
    half = model.dtype if model.dtype != torch.float32 else None
    precision = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32 if half else None)
    for module in [*decoder_layers(model), *([] if layers_only else [model])]:
        if isinstance(module, FSDPModule):  # of another model too
            continue
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        part = fully_shard(module, mesh=mesh, mp_policy=precision, reshard_after_forward=module is not model)
        part.set_gradient_divide_factor(1.0)  # losses are shares of a minibatch, so they add up
        part.set_force_sum_reduction_for_comms(True)  # gloo cannot scale
    if model.device.type != "meta":
        _choose_root(model)


def _choose_root(model: PreTrainedModel) -> None:
    """Run the model once: the module that runs first becomes the root."""
    with torch.no_grad():
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    for part in _parts(model):  # the root stays whole after a pass
        part.reshard()


@contextmanager
def whole(model: PreTrainedModel) -> Iterator[None]:
    """Within it each rank has the whole model to itself, without gradients."""
    parts = _parts(model)
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    yield
    for part in parts:
        part.set_reshard_after_forward(part is not model, recurse=False)
        part.reshard()


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Add up the gradients of all ranks, where FSDP has not; a rank that had no rows has none."""
    plain = [parameter for parameter in parameters if not _is_split(parameter)]
    if process_count() == 1 or not plain:
        return
    for parameter in plain:
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    sum_up([parameter.grad for parameter in plain if parameter.grad is not None])


def clip_gradients(parameters: Sequence[Tensor], most: float) -> Tensor:
    """Scale gradients down to a norm of at most `most`; returns their norm."""
    split_ones = [p for p in parameters if _is_split(p)]
    if not split_ones:
        return torch.nn.utils.clip_grad_norm_(parameters, most)
    kinds = [kind for kind in (split_ones, [p for p in parameters if not _is_split(p)]) if kind]
    norms = [
        gathered(torch.nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]))
        for kind in kinds
    ]
    norm = torch.stack(norms).norm()
    for kind in kinds:
        torch.nn.utils.clip_grads_with_norm_(kind, most, norm)
    return norm


def save_whole(model: PreTrainedModel, dtype: torch.dtype, folder: Path) -> None:
    """Write a model as `save_pretrained` does, split or not, in a number format; rank 0 writes."""
    weights = _whole_weights(model, dtype)
    if is_main_process():
        model.save_pretrained(folder, state_dict=weights)
    if weights:
        model.config.dtype = dtype  # transformers has written that of the shards
        model.config.save_pretrained(folder)


def _whole_weights(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, Tensor] | None:
    """Weights of a split model, in memory of the CPU, on rank 0; None elsewhere, and of a whole model.

    Tensor by tensor, so that a card never holds more than one.
    """
    if not _parts(model):
        return None
    found: dict[str, Tensor] = {}
    seen: dict[int, Tensor] = {}  # tied weights stay one tensor
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            full = gathered(value.detach())
            seen[id(value)] = full.to("cpu", dtype) if is_main_process() else full[:0]
        found[name] = seen[id(value)]
    return found if is_main_process() else None


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be split."""
    full: Tensor = tensor.full_tensor() if _is_split(tensor) else tensor
    return full


def write(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write this rank's part of the tensors; rank 0 also those that are not split."""
    from safetensors.torch import save_file

    parts, offsets = {}, {}
    for name, tensor in tensors.items():
        local, start = _local(tensor)
        if local.numel() and (_is_split(tensor) or is_main_process()):
            parts[name] = local.detach().cpu().contiguous()
            offsets[name] = {_OFFSETS: [start, *[0] * (local.dim() - 1)] if local.dim() else []}
    if not parts:
        return
    save_file(parts, folder / f"rank-{rank():05d}.safetensors", {_SHARDING: json.dumps(offsets)})


def names(folder: Path) -> set[str]:
    """Names of the tensors that `write` wrote, by all ranks."""
    from safetensors import safe_open

    found: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as saved:
            found.update(saved.keys())
    return found


def read(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill tensors, split over any number of ranks or whole, with what `write` wrote.

    Raises:
        ValueError: a tensor is not there, or has another shape.
    """
    from safetensors import safe_open

    missing = {name: _local(tensor)[0].numel() for name, tensor in tensors.items()}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as saved:
            offsets = json.loads(saved.metadata()[_SHARDING])
            for name in missing.keys() & set(saved.keys()):
                start = (offsets[name][_OFFSETS] or [0])[0]
                missing[name] -= _fill(tensors[name], saved.get_slice(name), start)
    unfit = sorted(name for name, numbers in missing.items() if numbers)
    if unfit:
        raise ValueError(
            f"{folder}: {unfit[0]} and others do not fit the model; remove the folder to start over"
        )


def _fill(tensor: Tensor, saved: Any, start: int) -> int:
    """Copy the rows of a saved part, which begins at row `start`, that belong to this rank.

    Returns:
        Numbers copied; -1 where the shapes differ.
    """
    shape = list(saved.get_shape())
    if shape[1:] != list(tensor.shape[1:]) or len(shape) != tensor.dim():
        return -1
    local, first = _local(tensor)
    if not shape:
        local.copy_(saved[...])
        return 1
    if start + shape[0] > tensor.shape[0]:
        return -1
    begin, end = max(start, first), min(start + shape[0], first + local.shape[0])
    if begin >= end:
        return 0
    local[begin - first : end - first].copy_(saved[begin - start : end - start])
    return local[begin - first : end - first].numel()


def _local(tensor: Tensor) -> tuple[Tensor, int]:
    """This rank's rows of a tensor, and the number of the first."""
    if not _is_split(tensor):
        return tensor.detach(), 0
    local: Tensor = tensor.to_local().detach()
    rows = -(-tensor.shape[0] // process_count())  # of every rank but the last ones
    return local, min(rank() * rows, tensor.shape[0])


def _is_split(tensor: Tensor) -> bool:
    if process_count() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _parts(model: PreTrainedModel) -> list[FSDPModule]:
    """The root and the layers of a split model; nothing of a whole one."""
    if process_count() == 1:
        return []
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]
