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
