"""The argument of an asset body: its slice of the recipe, its inputs, and its work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.reads import Reads
from e2h_pipeline.artifacts.request import Artifact
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.recipe import RecipeSlice


@dataclass(frozen=True)
class StageJob:
    """One stage of one experiment, ready to compute.

    Attributes:
        recipe: only the sections the stage declares; reading another is an error.
        inputs: upstream artifacts by asset name, resolved once at the start of the step, immutable.
        work: folders, seed, reporter, engine and runner.
        experiment: the recipe key that asked first; others with the same artifact key share the
            result.
        lineage: every artifact behind the inputs, as rows of `lineage.as_rows`.
        code_version: of the key; the running code must have it. Empty: not checked.
        reads: all that the body may open. None: not checked.
    """

    recipe: RecipeSlice
    inputs: Mapping[str, Artifact]
    work: Work
    experiment: str = ""
    lineage: Sequence[Mapping[str, Any]] = ()
    code_version: str = ""
    reads: Reads | None = None

    @property
    def out(self) -> Path:
        """Folder that becomes the artifact when the body returns."""
        return self.work.out

    def path(self, asset: str) -> Path:
        """Folder of an input artifact."""
        return self.inputs[asset].path
