"""What an asset body is handed: its slice of the recipe, its inputs, a place to write, a place to work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.request import Artifact
from e2h_pipeline.artifacts.shards import LocalRunner, Runner
from e2h_pipeline.recipe import RecipeSlice


@dataclass(frozen=True)
class StageJob:
    """One stage of one experiment, ready to compute.

    Attributes:
        recipe: only the sections the stage declares; reading another is an error.
        inputs: upstream artifacts by asset name, resolved once at step start, immutable.
        out: folder that becomes the artifact when the body returns. What differs from run to run
            (timings) belongs under `out/logs/` or `out/page/`, kept but no part of the data version.
        work: resumable work. Survives kills, is the same for the same key, goes when the artifact is made; where
            the stage grows, is the same for the family and stays.
        reporter: progress and metrics.
        engine: what generates: "transformers" or "vllm".
        experiment: the recipe key that asked first; others with the same artifact key share the result.
        lineage: every artifact behind the inputs, as rows of `lineage.as_rows`.
        runner: who makes the shards of stages that work in shards.
    """

    recipe: RecipeSlice
    inputs: Mapping[str, Artifact]
    out: Path
    work: Path
    reporter: Reporter = field(default_factory=Reporter)
    engine: str = "transformers"
    experiment: str = ""
    lineage: Sequence[Mapping[str, Any]] = ()
    runner: Runner = field(default_factory=LocalRunner)

    def path(self, asset: str) -> Path:
        """Folder of an input artifact."""
        return self.inputs[asset].path
