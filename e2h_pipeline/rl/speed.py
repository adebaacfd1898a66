"""How fast a run went on its host: for the plan of the next one (`e2h plan`).

It is part of an artifact's summary, not of its content, so it changes no data version.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from e2h_pipeline.generation.engines.fleet import Settings
from e2h_pipeline.training.trainer import process_count

if TYPE_CHECKING:
    from e2h_pipeline.rl.online.models import Run

SPEED = "speed"
"""Field of the summary."""

PARTS = {"drawing": "seconds_rollout", "scoring": "seconds_score", "learning": "seconds_update"}
"""Metrics with the seconds of each part of an update."""


@dataclass
class Speed:
    """Sums over the updates that this process has done; those before a kill are not in it.

    Attributes:
        tokens: of completions.
        seconds: of whole updates, with checkpoints and validation.
        parts: seconds of each part.
    """

    updates: int = 0
    completions: int = 0
    tokens: float = 0.0
    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def count(self, completions: int, metrics: Mapping[str, float]) -> None:
        """Add an update.

        Args:
            metrics: `tokens` is the mean of a completion.
        """
        self.updates += 1
        self.completions += completions
        self.tokens += completions * metrics["tokens"]
        self.seconds += metrics["seconds"]
        for part, name in PARTS.items():
            self.parts[part] += metrics[name]

    def summary(self, run: Run[Any], engine: str) -> dict[str, Any]:
        """The sums, and the circumstances that they hold for; nothing where no update was done."""
        if not self.updates:
            return {}
        return {
            SPEED: {
                "host": socket.gethostname(),
                **circumstances(run.parameters, process_count(), run.sharded, engine),
                "updates": self.updates,
                "completions": self.completions,
                "tokens": round(self.tokens),
                "seconds": round(self.seconds, 3),
                **{f"{part}_seconds": round(seconds, 3) for part, seconds in self.parts.items()},
            }
        }


def circumstances(parameters: int, processes: int, sharded: bool, engine: str) -> dict[str, Any]:
    """What the speed of a run depends on besides its host and recipe.

    Args:
        parameters: of the policy.
        engine: word of the host's engine; it draws where there are rollout engines.
    """
    engines = Settings.from_environment()
    return {
        "parameters": parameters,
        "processes": processes,
        "sharded": sharded,
        "engines": engines.engines,
        "engine": engine if engines.engines else "embedded",
    }
