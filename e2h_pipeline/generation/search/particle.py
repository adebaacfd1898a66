"""Particle filtering: after each step the particles are drawn again, by weight.

    weight of a particle ~ (score / (1 - score)) ^ (1 / temperature)

the odds that the evaluator gives its beginning (Puri et al. 2025, arXiv 2502.01618; its_hub).
Particles that have ended take part. Systematic resampling: one uniform number of the round moves a
comb with a tooth for each particle along the weights. Equal weights keep every particle once, so a
scorer that says nothing leaves independent samples. Copies of a particle go on in streams of their
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.generation.noise import branch_key, uniforms
from e2h_pipeline.generation.search.protocol import Found, Tools
from e2h_pipeline.generation.search.steps import Search, Way, search

if TYPE_CHECKING:
    from e2h_pipeline.generation.engines.protocol import SampleRequest, SamplingOptions
    from e2h_pipeline.recipe.sections.search import ParticleSearch

# Odds of a score are those of one this far from 0 and 1 at the most: a certain score has no odds.
_CERTAIN = 1e-6


class Particle:
    """The word `particle`."""

    needs_scorer = True

    def search(
        self,
        tools: Tools,
        requests: Sequence[SampleRequest],
        sampling: SamplingOptions,
        options: ParticleSearch,
    ) -> Found:
        """The particles of filters of `options.particles` samples each."""
        choose = partial(resample, temperature=options.weight_temperature)
        return search(tools, requests, sampling, Way(options.particles, 1, options.aggregation, choose))


def resample(one: Search, scores: NDArray[np.float64], temperature: float) -> list[int]:
    """Which particles go on, some of them several times."""
    key = branch_key(one.request.key, "resample", one.first)
    (uniform,) = uniforms(np.array([key], np.uint64), np.array([one.rounds]), 0)
    return systematic(weights(scores, temperature), float(uniform))


def weights(log_scores: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """(particles,) weights that sum to 1."""
    scores = np.clip(np.exp(log_scores), _CERTAIN, 1 - _CERTAIN)
    logits = (np.log(scores) - np.log1p(-scores)) / temperature
    odds = np.exp(logits - logits.max())
    return np.asarray(odds / odds.sum())


def systematic(weight: NDArray[np.float64], uniform: float) -> list[int]:
    """As many particles as there are weights, ascending. Each is taken its weight times their number,
    rounded up or down, and on average exactly so often.

    Args:
        weight: (particles,) they sum to 1.
        uniform: in [0, 1).
    """
    count = len(weight)
    teeth = (uniform + np.arange(count)) / count
    # Rounded, so that sums of equal weights meet the teeth's grid where they should.
    ends = np.round(np.cumsum(weight), 12)
    return np.minimum(np.searchsorted(ends, teeth, side="right"), count - 1).tolist()
