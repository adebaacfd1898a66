"""Step labels from a file in the format of Math-Shepherd (Wang et al. 2024)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.problems.math.shepherd import read_shepherd
from e2h_pipeline.supervision.ratings import RatedFile

if TYPE_CHECKING:
    from e2h_pipeline.problems.rated_solutions import LabelledSolutions


class Shepherd(RatedFile):
    """Labels from a file, made from a model's completions."""

    names = ("math-shepherd.jsonl", "math-shepherd.jsonl.gz")
    origin = "peiyi9979/Math-Shepherd on the Hub"

    def read_file(self, file: Path) -> LabelledSolutions:
        """See `RatedFile.read_file`."""
        return read_shepherd(file)
