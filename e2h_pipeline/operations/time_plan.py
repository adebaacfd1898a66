"""How long reinforcement learning takes, from the speed of an earlier run on this host.

Nothing is guessed: a run counts only where host, device, model size, number of processes, engines
and the fields that set the work per token are the same. Otherwise the time is unknown.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from e2h_pipeline.artifacts.commit import device_name
from e2h_pipeline.artifacts.manifest import Manifest, ManifestError, read_manifest
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.models.memory import Cards
from e2h_pipeline.models.shapes import language_model, meta, published_config
from e2h_pipeline.recipe import OnlineRl, Recipe
from e2h_pipeline.rl.speed import PARTS, SPEED, circumstances

STAGE = "rl_policy"
_WORK_PER_TOKEN = ("algorithm", "epochs", "lag", "pass_tokens", "gradient_checkpointing")


@dataclass(frozen=True)
class TimePlan:
    """The time of a stage.

    Attributes:
        seconds: with completions as long as those that were measured.
        at_most: with completions that all reach their limit.
        rates: tokens of completions per second, of each part and of the whole.
        measured: how much the rates were measured over, for people.
    """

    seconds: float
    at_most: float
    rates: dict[str, float]
    measured: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "seconds": round(self.seconds),
            "seconds_at_most": round(self.at_most),
            "tokens_per_second": {name: round(rate, 1) for name, rate in self.rates.items()},
            "measured": self.measured,
        }


def time_plan(recipe: Recipe, cards: Cards, engine: str, store: ArtifactStore) -> TimePlan | None:
    """The time of `rl_policy` on this host; None where nothing like it was measured here.

    Args:
        cards: `ranks` of them train.
        engine: word of the host's engine.

    Raises:
        ModelError: the base model's config is not on this machine.
    """
    options = recipe.rl
    if not isinstance(options, OnlineRl):
        return None
    alike = [manifest for manifest in _measured(store) if _alike(manifest, recipe, cards, engine)]
    if not alike:
        return None
    return _reckoned(options, max(alike, key=lambda manifest: manifest.created))


def _measured(store: ArtifactStore) -> Iterator[Manifest]:
    """Manifests of policies whose runs were measured."""
    for folder in sorted((store.root / STAGE).glob("*")):
        try:
            manifest = read_manifest(folder)
        except ManifestError:
            continue  # being removed, or not ours: `e2h verify` tells
        if SPEED in manifest.summary:
            yield manifest


def _alike(manifest: Manifest, recipe: Recipe, cards: Cards, engine: str) -> bool:
    """Whether a run's speed says something about this one."""
    options, theirs, speed = recipe.rl, manifest.recipe["rl"], manifest.summary[SPEED]
    assert isinstance(options, OnlineRl)
    wanted = circumstances(_parameters(recipe), cards.ranks, cards.sharded, engine)
    return (
        speed["host"] == socket.gethostname()
        and manifest.device == device_name()
        and all(speed.get(name) == value for name, value in wanted.items())
        and all(theirs.get(name) == getattr(options, name) for name in _WORK_PER_TOKEN)
        and (theirs.get("lora_rank", 0) > 0) == (options.lora_rank > 0)
    )


def _parameters(recipe: Recipe) -> int:
    import torch

    with meta():
        model = language_model(published_config(recipe.base), getattr(torch, recipe.base.dtype))
    return int(model.num_parameters())


def _reckoned(options: OnlineRl, manifest: Manifest) -> TimePlan:
    """The time at the speed of a run."""
    speed = manifest.summary[SPEED]
    tokens, completions = speed["tokens"], options.updates * options.rollouts
    per_token = speed["seconds"] / tokens
    parts = {part: speed[f"{part}_seconds"] for part in PARTS} | {"all": speed["seconds"]}
    return TimePlan(
        seconds=completions * tokens / speed["completions"] * per_token,
        at_most=completions * options.max_new_tokens * per_token,
        rates={part: tokens / seconds for part, seconds in parts.items() if seconds},
        measured=f"{speed['updates']} updates of {manifest.experiment}, {manifest.created[:10]}",
    )
