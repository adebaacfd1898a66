"""Independent draws: samples of a question do not influence each other, and none is selected.

With early stop, a watch gives up samples with a bad step. It decides on each sample alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from e2h_pipeline.generation.engines.protocol import SampleRequest, SamplingOptions
from e2h_pipeline.generation.search.protocol import Found, Tools


class Independent:
    """The word `independent`."""

    needs_scorer = False

    def search(
        self, tools: Tools, requests: Sequence[SampleRequest], sampling: SamplingOptions, options: Any = None
    ) -> Found:
        """The engine's samples; there are no options."""
        return Found(tools.engine.sample(requests, sampling, tools.watch))
