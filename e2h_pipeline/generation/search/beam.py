"""Beam search over steps, and diverse verifier tree search (DVTS): beam searches of one beam each.

Of the next steps of all beams, and of the beams that have ended, the `beams` best go on. With a
lookahead a step has the score of the text that greedy steps behind it lead to (Snell et al. 2024,
arXiv 2408.03314; DVTS: Beeching et al. 2024, search-and-learn). Where scores are equal, the first
next step of each beam wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.generation.search.protocol import Found, Tools
from e2h_pipeline.generation.search.steps import Search, Way, search

if TYPE_CHECKING:
    from e2h_pipeline.generation.engines.protocol import SampleRequest, SamplingOptions
    from e2h_pipeline.recipe.sections.search import BeamSearch, DvtsSearch


class Beam:
    """The word `beam`."""

    needs_scorer = True

    def search(
        self,
        tools: Tools,
        requests: Sequence[SampleRequest],
        sampling: SamplingOptions,
        options: BeamSearch,
    ) -> Found:
        """The beams of searches of `options.beams` samples each."""
        way = Way(options.beams, options.expansions, options.aggregation, best, options.lookahead)
        return search(tools, requests, sampling, way)


class Dvts:
    """The word `dvts`."""

    needs_scorer = True

    def search(
        self,
        tools: Tools,
        requests: Sequence[SampleRequest],
        sampling: SamplingOptions,
        options: DvtsSearch,
    ) -> Found:
        """The best path of a tree for each sample."""
        return search(
            tools,
            requests,
            sampling,
            Way(1, options.expansions, options.aggregation, best, options.lookahead),
        )


def best(one: Search, scores: NDArray[np.float64]) -> list[int]:
    """The candidates with the highest scores, in their order."""
    return sorted(np.argsort(-scores, kind="stable")[: one.size].tolist())
