"""Human step labels of PRM800K (Lightman et al. 2023), from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.problems.math.prm800k import prm800k_files, read_prm800k
from e2h_pipeline.supervision.ratings import Rated, refuse_if_empty
from e2h_pipeline.supervision.rows import RIGHT, UNLABELLED, WRONG

if TYPE_CHECKING:
    from e2h_pipeline.problems.rated_solutions import LabelledSolutions
    from e2h_pipeline.recipe import Prm800kLabels

NEUTRAL = {"positive": RIGHT, "negative": WRONG, "soft": 0.5, "drop": UNLABELLED}
"""Label of a neutral rating by `labels.neutral`."""


class Prm800k(Rated):
    """Human ratings of solutions of easy problems."""

    def files(self, options: Prm800kLabels) -> list[Path]:
        """One file, or those of a folder."""
        return prm800k_files(_path(options))

    def read(self, options: Prm800kLabels) -> LabelledSolutions:
        """All ratings of the files."""
        return refuse_if_empty(read_prm800k(_path(options)), self.files(options))

    def neutral(self, options: Prm800kLabels) -> float:
        """By `labels.neutral`."""
        return NEUTRAL[options.neutral]


def _path(options: Prm800kLabels) -> Path | None:
    return Path(options.path) if options.path else None
