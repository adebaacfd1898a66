"""Independent draws: the samples of a question know nothing of each other, and no evaluator chooses among them.

Where the recipe stops early, a watch gives up samples with a bad step. It decides on each sample alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from e2h_pipeline.generation.engines.protocol import Request, SamplingOptions
from e2h_pipeline.generation.search.protocol import Found, Tools


class Independent:
    """The word `independent`."""

    needs_scorer = False

    def search(
        self, tools: Tools, requests: Sequence[Request], sampling: SamplingOptions, options: Any = None
    ) -> Found:
        """What the engine draws; there are no options."""
        return Found(tools.engine.sample(requests, sampling, tools.watch))
