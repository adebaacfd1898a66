"""Step labels from a file in the format of Math-Shepherd (Wang et al. 2024)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.problems.files import known_file
from e2h_pipeline.problems.math.shepherd import read_shepherd
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.supervision.ratings import Rated, refuse_if_empty

if TYPE_CHECKING:
    from e2h_pipeline.problems.rated_solutions import LabelledSolutions
    from e2h_pipeline.recipe import ShepherdLabels

_NAMES = ("math-shepherd.jsonl", "math-shepherd.jsonl.gz")


class Shepherd(Rated):
    """Labels from a file, made from a model's completions."""

    def files(self, options: ShepherdLabels) -> list[Path]:
        """The one file."""
        return [Path(options.path) if options.path else _default_file()]

    def read(self, options: ShepherdLabels) -> LabelledSolutions:
        """All labels of the file."""
        files = self.files(options)
        return refuse_if_empty(read_shepherd(files[0]), files)


def _default_file() -> Path:
    found = known_file("steps", _NAMES)
    if found is None:
        raise ProblemError(
            "labels.source=shepherd needs a file: set labels.path to the .jsonl or .jsonl.gz, or put"
            f" {_NAMES[0]} (peiyi9979/Math-Shepherd on the Hub) into steps/ of E2H_DATA_DIR"
        )
    return found
