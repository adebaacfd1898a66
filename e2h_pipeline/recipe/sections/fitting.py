"""Fields of every training by gradient descent over a fixed set of examples."""

from __future__ import annotations

from pydantic import Field

from e2h_pipeline.recipe.section import Section


class Fitting(Section):
    """Passes, batches and learning rate; the sections of trainings add to it."""

    epochs: int = Field(3, ge=1, description="Passes over the examples.")
    batch_size: int = Field(128, ge=1, description="Examples per optimizer update.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Examples per forward pass; the whole batch where unset."
    )
    learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate, cosine to 1% of itself.")
    warmup: float = Field(
        0.2, ge=0, le=1, description="Share of updates spent warming up (the paper's code uses 0.2)."
    )


class FineTuning(Fitting):
    """Training of a pretrained model on solutions: which weights move, and what saves memory and
    time."""

    max_tokens: int = Field(768, ge=8, description="Longer solutions are dropped, counted and shown.")
    frozen_layers: int = Field(
        0,
        ge=0,
        description="Lower layers (and the embedding, with an output head tied to it) that stay as pretrained.",
    )
    lora_rank: int = Field(
        0, ge=0, description="Rank of LoRA adapters, merged when saved; 0 trains all weights."
    )
    packing: bool = Field(
        False,
        description="Several solutions in a row, kept apart by position and mask; hardly any padding.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, about a third more time."
    )
    mixed_precision: bool = Field(
        False,
        description="Weights and optimizer in float32, products in bfloat16, whatever the model is stored in (it is saved "
        "as it was). Where unset, a GPU does so with float32 models; bfloat16 ones stay bfloat16 throughout: "
        "half the memory, but small updates are lost in rounding.",
    )
