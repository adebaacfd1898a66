"""TODO: docstring."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from e2h_pipeline.recipe.section import Section


class Labels(Section):
    """Step labels on easy problems; they stop at the first error (paper section 3.3, appendix L)."""

    source: Literal["checker", "prm800k", "shepherd", "monte_carlo"] = Field(
        "checker",
        description="Exact checker (ladder), PRM800K human labels, a file in Math-Shepherd's format, or completions "
        "of each step by the policy (Math-Shepherd's rule).",
    )
    neutral: Literal["positive", "negative", "soft", "drop"] = Field(
        "positive",
        description="What a neutral PRM800K rating becomes; the paper takes positive, soft is 0.5.",
    )
    path: str | None = Field(
        None,
        description="prm800k: file or folder of labels; shepherd: file of labels. In E2H_DATA_DIR/steps where unset, "
        "math-shepherd.jsonl or .jsonl.gz for shepherd.",
    )
    completions: int = Field(
        8, ge=1, description="monte_carlo: completions drawn behind each step (Math-Shepherd: 8)."
    )
    soft: bool = Field(
        False,
        description="monte_carlo: label a step by its share of right completions, not by whether there is one.",
    )
    limit: int | None = Field(
        None, ge=1, description="Keep at most this many labelled solutions (drawn by seed)."
    )
    balance: bool = Field(
        True,
        description="checker, monte_carlo: balance right and wrong solutions of each problem, as far as there are both.",
    )


class Reward(Section):
    """Which evaluator reranks and rewards."""

    kind: Literal["prm", "orm", "oprm", "pairwise"] = Field(
        "prm",
        description="Trained on step labels, on final answers, on both (paper section 3.3), or on pairs of solutions.",
    )


class RewardTraining(Section):
    """Training of an evaluator: a token-classification head with one label (paper section 3.3)."""

    init: Literal["base", "sft"] = Field(
        "base", description="Starting weights; the paper starts from the base model."
    )
    epochs: int = Field(2, ge=1, description="Passes over the labelled solutions.")
    batch_size: int = Field(128, ge=1, description="Solutions per optimizer update.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Solutions per forward pass; the whole batch where unset."
    )
    learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate, cosine to 1% of itself.")
    warmup: float = Field(0.2, ge=0, le=1, description="Share of updates spent warming up.")
    max_tokens: int = Field(768, ge=8, description="Longer solutions are dropped, counted and shown.")
    heading: str = Field(
        "# Question",
        description="First line of the evaluator's prompt, kept in its config. A base model that has seen marked "
        "work under a heading of its own checks best under that heading.",
    )
    frozen_layers: int = Field(
        0, ge=0, description="Lower layers (and the embedding) that stay as pretrained."
    )
    tokens: Literal["every", "last"] = Field(
        "every", description="orm, oprm: tokens of a completion that carry its outcome label (paper: every)."
    )
    outcome_share: float = Field(
        0.5, gt=0, lt=1, description="oprm: share of outcome examples among all examples."
    )
    lora_rank: int = Field(
        0, ge=0, description="Rank of LoRA adapters, merged when saved; 0 trains all weights."
    )
    packing: bool = Field(
        False,
        description="Several solutions in a row, kept apart by position and mask; padding is next to nothing.",
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


class Scoring(Section):
    """Scoring of finished solutions: every step of a solution from one forward pass."""

    batch_tokens: int = Field(65536, ge=64, description="Upper bound on rows x length of one batch.")


class EarlyStop(Section):
    """Samples of the pool that the evaluator gives up on the way: tokens saved for what an evaluator would refuse."""

    enabled: bool = Field(
        False,
        description="Give samples up while the pool is drawn. Where unset, the pool is drawn whole and only what this "
        "would have saved and cost is reported.",
    )
    every: int = Field(
        32, ge=1, description="Tokens between two looks of the evaluator, counted from a sample's first."
    )
    lose: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Share of right easy validation solutions that may be lost: sets the step probability below which a "
        "sample is given up.",
    )
