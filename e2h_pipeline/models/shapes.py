"""Models without weights: what the forward and backward passes of any architecture would hold.

PyTorch's fake tensors have a shape, a number format and a device, and no data. So the model's own
code runs on them, in seconds for 7 billion weights, and `Meter` counts the bytes of the tensors
that live. The counts are those of a real run on a CPU to the byte (tests/models/test_shapes.py);
kernels of a GPU keep about as much for the backward pass.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from e2h_pipeline.models.base import ModelError, local_source
from e2h_pipeline.models.classifier import classifier_class
from e2h_pipeline.models.gguf import gguf_of

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PretrainedConfig, PreTrainedModel

    from e2h_pipeline.recipe import Base

PUBLISHED = Path(__file__).parent / "published"  # config.json of models that shipped recipes name
ACTIVATIONS, GRADIENTS, LOGITS = "activations", "gradients", "logits"


def published_config(options: Base) -> PretrainedConfig:
    """The config of a recipe's base model: of a folder, of the Hub's cache, or as published.

    Raises:
        ModelError: it is not on this machine, or is trained from nothing.
    """
    from transformers import AutoConfig

    if options.train:
        raise ModelError(
            "base.train: a model trained from nothing has no config yet; set base.train=false to plan"
        )
    shapes = PUBLISHED / f"{options.model.replace('/', '--')}.json"
    place, file = gguf_of(options) or (local_source(options) or (shapes if shapes.is_file() else None), None)
    try:
        return AutoConfig.from_pretrained(
            place or options.model, revision=options.revision, local_files_only=True, gguf_file=file
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"base.model '{options.model}': its config.json is not on this machine; fetch it: hf download "
            f"{options.model} config.json"
        ) from error


def meta() -> torch.device:
    """A context in which models are made without memory: PyTorch's device for that."""
    return torch.device("meta")


def unreal(*models: Module) -> FakeTensorMode:
    """A context in which tensors have no data, and models made on `meta` can run as on a CPU.

    Code that asks for values fails. The context can be entered again; tensors of two such contexts
    do not mix.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        for model in models:
            _run_as_on_cpu(model)
    return mode


def _run_as_on_cpu(model: Module) -> None:
    """Replace tensors on the meta device; those that modules share stay shared."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in made:
                made[id(parameter)] = torch.nn.Parameter(
                    torch.empty_like(parameter, device="cpu"), parameter.requires_grad
                )
            if parameter is not None:
                setattr(module, name, made[id(parameter)])
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device="cpu")


def language_model(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """A policy of random weights; without memory for them within `meta`."""
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()


def evaluator(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """An evaluator of random weights, with one score per token.

    Raises:
        NoEvaluator: no evaluator can be made of this architecture.
    """
    config = type(config).from_dict(config.to_dict())
    config.num_labels, config.classifier_dropout, config.token_classification_bias = 1, 0.0, True
    model: PreTrainedModel = classifier_class(config)._from_config(config, dtype=dtype)
    return model.eval()


def weight_bytes(model: Module, learning: bool = False) -> int:
    """Bytes of the weights, tied ones once.

    Args:
        learning: of those that learn.
    """
    return sum(p.nbytes for p in model.parameters() if p.requires_grad or not learning)


def weight_count(model: Module, learning: bool = False) -> int:
    """Number of the weights, tied ones once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not learning)


def largest_layer(model: PreTrainedModel) -> int:
    """Bytes of the weights of the largest decoder layer; of all where there is no list of layers."""
    return max(map(weight_bytes, _layers(model)), default=weight_bytes(model))


def outside_layers(model: PreTrainedModel) -> int:
    """Bytes of the weights that belong to no decoder layer: embedding, norm and head."""
    return weight_bytes(model) - sum(map(weight_bytes, _layers(model)))


def _layers(model: PreTrainedModel) -> list[Module]:
    from e2h_pipeline.models.adapters import decoder_layers

    try:
        return list(decoder_layers(model))
    except ValueError:
        return []


class Meter(TorchDispatchMode):
    """Counts the bytes of tensors that operations make while it is active; views count once.

    Weights are not counted. A tensor as wide as the vocabulary counts as logits, one that a
    parameter keeps as its gradient as gradients, any other as activations.

    Attributes:
        live: bytes by kind now.
        peak: bytes by kind when their sum was highest.
    """

    def __init__(self, *models: PreTrainedModel, gradient_share: float = 1.0) -> None:
        """Count around the passes of some models.

        Args:
            gradient_share: the part of gradients that stays on this card; the others are sent to
                other ranks as soon as they are known.
        """
        super().__init__()
        self.live: Counter[str] = Counter()
        self.peak: dict[str, int] = {}
        self._share = gradient_share
        self._kinds: dict[int, tuple[str, int]] = {}
        self._references: dict[int, weakref.ref[Any]] = {}
        self._wide = {model.config.get_text_config().vocab_size for model in models}
        self._weights = {p.untyped_storage()._cdata for model in models for p in model.parameters()}
        self._learning = [p for model in models for p in model.parameters() if p.requires_grad]
        self._hooks = [p.register_post_accumulate_grad_hook(self._is_gradient) for p in self._learning]

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(self.peak.values())

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for found in tree_leaves(out):
            if isinstance(found, Tensor):
                self._see(found)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._weights or key in self._kinds:
            return
        kind = LOGITS if tensor.dim() and tensor.shape[-1] in self._wide else ACTIVATIONS
        self._references[key] = weakref.ref(storage, partial(self._gone, key))
        self._add(key, kind, storage.nbytes())

    def _add(self, key: int, kind: str, size: int) -> None:
        self._kinds[key] = kind, size
        self.live[kind] += size
        if self.live.total() > self.total:
            self.peak = dict(self.live)

    def _gone(self, key: int, _: Any) -> None:
        kind, size = self._kinds.pop(key)
        self.live[kind] -= size
        del self._references[key]

    def keep_gradients(self) -> None:
        """Give all weights that learn a gradient, as a pass before this one did."""
        for parameter in self._learning:
            parameter.grad = torch.zeros_like(parameter)
            self._is_gradient(parameter)

    def _is_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        key = parameter.grad.untyped_storage()._cdata
        if key in self._kinds and self._kinds[key][0] != GRADIENTS:
            kind, size = self._kinds[key]
            self.live[kind] -= size
            self._add(key, GRADIENTS, math.ceil(size * self._share))
