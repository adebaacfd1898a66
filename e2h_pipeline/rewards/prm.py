"""The process reward model, by its short name: `rewards.training` with step labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.rewards.training import train_reward_model

if TYPE_CHECKING:
    from e2h_pipeline.recipe import RewardTraining
    from e2h_pipeline.reporter import Reporter


def train_prm(
    init: Path, labels: Path, out: Path, work: Path, options: RewardTraining, seed: int, reporter: Reporter
) -> dict[str, Any]:
    """Train a process reward model from the causal LM in `init` on labelled solutions; save it to `out`."""
    return train_reward_model("prm", init, labels, None, out, work, options, seed, reporter)
