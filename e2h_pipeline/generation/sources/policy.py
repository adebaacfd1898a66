"""Samples of benchmark questions that the SFT policy draws."""

from __future__ import annotations

from typing import Any

from e2h_pipeline.generation.sources.protocol import PoolJob, SampleSource


class Policy(SampleSource):
    """The source `policy`."""

    def pool(self, job: PoolJob) -> dict[str, Any]:
        """The recipe's `sampling.samples` completions, drawn by its search method."""
        from e2h_pipeline.generation.sample_pool import sample_pool

        return sample_pool(job.drawing(), job.questions, job.work)
