"""LoRA adapters in a model's own layers (Hu et al. 2021): several models on one set of frozen weights.

The model stays what it was, an ordinary `PreTrainedModel`; only its linear layers compute more. An
adapter has a name. Of those in a layer one is on, or none (`switched`), and without one the model
computes what it computed before, to the bit. Files are in PEFT's format, so that PEFT, transformers
and vLLM read them too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import Tensor
    from torch.nn import Module, ModuleList, Parameter
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"  # PEFT's name
_IN_FILES = "base_model.model."  # PEFT puts this before every name


def decoder_layers(model: PreTrainedModel) -> ModuleList:
    """The decoder layers, lowest first, whatever the architecture calls them.

    Raises:
        ValueError: they are not one list.
    """
    from torch.nn import ModuleList

    count = model.config.get_text_config().num_hidden_layers
    lists = [m for m in model.base_model.modules() if isinstance(m, ModuleList) and len(m) == count]
    if not lists:
        raise ValueError(
            f"{type(model).__name__} has no list of {count} layers: set lora_rank and frozen_layers to 0"
        )
    return lists[0]


def keep_lowest_layers(model: PreTrainedModel, count: int) -> None:
    """Take away all decoder layers above the lowest `count`; the config tells of those that are left.

    Raises:
        ValueError: the model has fewer.
    """
    layers, config = decoder_layers(model), model.config.get_text_config()
    if count > len(layers):
        raise ValueError(f"layers: {type(model).__name__} has {len(layers)} layers, not {count}")
    kinds = getattr(config, "layer_types", None)
    del layers[count:]
    if kinds:
        config.layer_types = list(kinds)[:count]
    config.num_hidden_layers = count


def linear_layers(model: PreTrainedModel, above: int = 0) -> list[str]:
    """Names of the linear layers in the decoder layers from `above` on, with or without adapters."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    inside = {id(m) for layer in decoder_layers(model)[above:] for m in layer.modules()}
    return [
        name.removesuffix(".base_layer")
        for name, m in model.named_modules()
        if isinstance(m, (Linear, Conv1D)) and id(m) in inside and ".lora_" not in name
    ]


def add_adapter(model: PreTrainedModel, name: str, rank: int, targets: Collection[str], seed: int) -> None:
    """Give a model an adapter that changes nothing yet, and freeze all weights but adapters.

    It is on if it is the first. Its numbers are float32 also in a model of 16 bits: so they can
    take small steps. The scale is the usual 2.

    Args:
        targets: last parts of the names of layers that get it; every linear layer where empty.
        seed: of its random half.

    Raises:
        ValueError: a target that no layer of the decoder is called.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    layers = linear_layers(model)
    kinds = {layer.rpartition(".")[2] for layer in layers}
    if unknown := sorted(set(targets) - kinds):
        raise ValueError(f"lora_targets: no linear layer is called {unknown[0]}; there are {sorted(kinds)}")
    chosen = [layer for layer in layers if not targets or layer.rpartition(".")[2] in targets]
    active = _active(model) or [name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=chosen), model, name)
    for path, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in path)
        if ".lora_" in path:
            parameter.data = parameter.data.float()
    _switch(model, active)


@contextmanager
def switched(model: PreTrainedModel, name: str | None) -> Iterator[None]:
    """Within it the model computes with this adapter, or with none; a model without adapters as ever."""
    before = _active(model)
    if before in ([], [name]):
        yield
        return
    _switch(model, [] if name is None else [name])
    try:
        yield
    finally:
        _switch(model, before)


def learning(model: PreTrainedModel, name: str) -> dict[str, Parameter]:
    """The parameters that training moves, by name: not those of an adapter with another name."""
    return {
        path: parameter
        for path, parameter in model.named_parameters()
        if parameter.requires_grad and (".lora_" not in path or f".{name}." in path)
    }


def adapter_tensors(model: PreTrainedModel, name: str) -> dict[str, Parameter]:
    """`learning` under the names of PEFT's files."""
    return {
        _IN_FILES + path.replace(f".{name}.", "."): parameter
        for path, parameter in learning(model, name).items()
    }


def save_adapter(model: PreTrainedModel, name: str, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write `adapter_tensors`, whole ones, to a folder that PEFT reads."""
    from safetensors.torch import save_file

    model.peft_config[name].save_pretrained(folder)
    contiguous = {path: tensor.detach().contiguous() for path, tensor in tensors.items()}
    save_file(contiguous, folder / WEIGHTS, metadata={"format": "pt"})


def read_adapter(model: PreTrainedModel, name: str, folder: Path) -> None:
    """Give a model an adapter that `save_adapter` wrote, or other numbers to the one it has.

    Raises:
        ValueError: the folder is of another model, or of another rank or targets than it has.
    """
    from peft import LoraConfig
    from safetensors.torch import load_file

    if name not in getattr(model, "peft_config", {}):
        config = LoraConfig.from_pretrained(folder)
        targets = {layer.rpartition(".")[2] for layer in config.target_modules}
        add_adapter(model, name, config.r, targets, 0)
    saved, own = load_file(folder / WEIGHTS), adapter_tensors(model, name)
    if {path: t.shape for path, t in saved.items()} != {path: p.shape for path, p in own.items()}:
        raise ValueError(f"{folder / WEIGHTS}: the adapter does not fit the model")
    for path, parameter in own.items():
        parameter.data.copy_(saved[path])


def merged(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model, which is used up, with a saved adapter in its weights: summed in float32, rounded once.

    Raises:
        ValueError: the adapter is of another model; PEFT would leave out what it does not find.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    formats = {path: parameter.dtype for path, parameter in model.named_parameters()}
    adapted = PeftModel.from_pretrained(model.float(), folder, torch_device="cpu")
    with safe_open(folder / WEIGHTS, "pt") as file:
        if set(file.keys()) != get_peft_model_state_dict(adapted).keys():
            raise ValueError(
                f"{folder / WEIGHTS}: weights do not fit the model that they are to be merged into"
            )
    whole: PreTrainedModel = adapted.merge_and_unload()
    for path, parameter in whole.named_parameters():
        parameter.data = parameter.data.to(formats[path])
    return whole


def _adapted(model: Module) -> list[BaseTunerLayer]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [m for m in model.modules() if isinstance(m, BaseTunerLayer)]


def _active(model: Module) -> list[str]:
    """The adapter that is on, the same in all layers; none where none is."""
    layers = _adapted(model)
    return layers[0].active_adapters if layers and not layers[0].disable_adapters else []


def _switch(model: Module, names: list[str]) -> None:
    """Switch adapters on, or all off.

    PEFT also takes the gradient from the others. Here each adapter learns in its turn, and gets its
    gradient whichever is on.
    """
    for layer in _adapted(model):
        if names:
            layer.set_adapter(names)
        layer.enable_adapters(bool(names))
        for kind in layer.adapter_layer_names:
            getattr(layer, kind).requires_grad_(True)
