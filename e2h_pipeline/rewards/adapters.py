"""Trainable weights of an evaluator: all, the upper layers, or LoRA adapters, merged when saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.models.adapters import decoder_layers, linear_layers
from e2h_pipeline.models.classifier import score_head_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from e2h_pipeline.recipe import RewardTraining


def prepare(model: PreTrainedModel, options: RewardTraining) -> PreTrainedModel:
    """Choose the trainable weights: all, all above `frozen_layers`, or LoRA adapters above them.

    The adapters are of rank `lora_rank` in every linear layer, with the usual scale of 2 (Hu et al.
    2021); the head is trained whole.

    Raises:
        ValueError: adapters are asked for, and accelerate is told to shard the model.
    """
    from e2h_pipeline.training.trainer import sharding_asked

    if options.lora_rank == 0:
        freeze_layers(model, options.frozen_layers)
        return model
    if sharding_asked():
        raise ValueError("adapters cannot be merged into a sharded model: set lora_rank=0, or do not shard")
    from peft import LoraConfig, TaskType, get_peft_model

    return get_peft_model(
        model,
        LoraConfig(
            task_type=TaskType.TOKEN_CLS,
            r=options.lora_rank,
            lora_alpha=2 * options.lora_rank,
            target_modules=linear_layers(model, options.frozen_layers),
            modules_to_save=[score_head_name(model)],
        ),
    )


def whole(model: PreTrainedModel, work: Path) -> PreTrainedModel:
    """The trained model to save: adapters merged into its weights, shards put together."""
    from e2h_pipeline.models.load import load_classifier
    from e2h_pipeline.training.trainer import GATHERED

    if (work / GATHERED).is_dir():
        return load_classifier(work / GATHERED)
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def freeze_layers(model: PreTrainedModel, layers: int) -> None:
    """Freeze the embedding and the lowest `layers` decoder layers; 0 freezes neither."""
    if layers == 0:
        return
    frozen = [model.get_input_embeddings(), *decoder_layers(model)[:layers]]
    for module in frozen:
        module.requires_grad_(False)
