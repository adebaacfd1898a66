"""Trainable weights of a model: all, the upper layers, or LoRA adapters, merged when saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.models.adapters import decoder_layers, linear_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from e2h_pipeline.recipe import FineTuning


def prepare(model: PreTrainedModel, options: FineTuning, heads: Sequence[str] = ()) -> PreTrainedModel:
    """Choose the trainable weights: all, all above `frozen_layers`, or LoRA adapters above them.

    With `mixed_precision` the model becomes float32. The adapters are of rank `lora_rank` in every
    linear layer of the decoder, with the usual scale of 2 (Hu et al. 2021).

    Args:
        heads: layers that are new, so that they are trained whole beside adapters.

    Raises:
        ValueError: adapters are asked for, and accelerate is told to shard the model.
    """
    from e2h_pipeline.training.trainer import sharding_asked

    if options.mixed_precision:
        model.float()
    if options.lora_rank == 0:
        freeze_layers(model, options.frozen_layers)
        return model
    if sharding_asked():
        raise ValueError("adapters cannot be merged into a sharded model: set lora_rank=0, or do not shard")
    from peft import LoraConfig, get_peft_model

    adapted: PreTrainedModel = get_peft_model(
        model,
        LoraConfig(
            r=options.lora_rank,
            lora_alpha=2 * options.lora_rank,
            target_modules=linear_layers(model, options.frozen_layers),
            modules_to_save=list(heads) or None,
        ),
    )
    return adapted


def whole(model: PreTrainedModel, work: Path, load: Callable[[Path], PreTrainedModel]) -> PreTrainedModel:
    """The trained model to save: adapters merged into its weights, shards put together.

    Args:
        work: folder of the training.
        load: reads a model of this kind from a folder.
    """
    from e2h_pipeline.training.trainer import GATHERED

    if (work / GATHERED).is_dir():
        return load(work / GATHERED)
    merged: PreTrainedModel = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    return merged


def freeze_layers(model: PreTrainedModel, layers: int) -> None:
    """Freeze the embedding and the lowest `layers` decoder layers; 0 freezes neither."""
    if layers == 0:
        return
    frozen = [model.get_input_embeddings(), *decoder_layers(model)[:layers]]
    for module in frozen:
        module.requires_grad_(False)
