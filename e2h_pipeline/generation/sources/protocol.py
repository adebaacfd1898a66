"""The protocol of sources of benchmark samples.

A source is one file here, or one of an installed package (entry points `e2h.samples`), and one line
in the registry. Its section of the recipe says whether the policy draws (`Samples.drawn`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from e2h_pipeline.problems.supplied_files import Supplied

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.generation.sample_pool import Drawing
    from e2h_pipeline.problems.domain import Domain


@dataclass(frozen=True)
class PoolJob:
    """The argument of a source of samples.

    Attributes:
        options: the section of the recipe that names this source.
        domain: of the questions; it finds answers and defines the format of completions.
        questions: problem_id, level and question of each benchmark question.
        drawing: how the policy draws; for a source with `Samples.drawn`.
        work: the pool goes to its `out`.
    """

    options: Any
    domain: Domain
    questions: pa.Table
    drawing: Callable[[], Drawing]
    work: Work


class SampleSource(Supplied, Protocol):
    """Gives equally many completions of every question. The registry's entry is the class; it is made
    without arguments."""

    def pool(self, job: PoolJob) -> dict[str, Any]:
        """Write samples 0 to N-1 of every question as `part-*.parquet` with the columns of
        `sample_pool.pool_table`.

        Returns the summary; of a source that draws nothing with `per_question`: N.

        Raises:
            ProblemError: files that cannot be used.
        """
        ...
