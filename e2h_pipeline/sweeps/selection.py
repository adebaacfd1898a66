"""The stages that a sweep selects."""

from __future__ import annotations

from e2h_pipeline.orchestration.planning import Selection, selection
from e2h_pipeline.sweeps.spec import SweepError


def selected_stages(select: str) -> Selection | None:
    """Stages that a sweep's selection names; None (all of each member's scope) if it is empty.

    Args:
        select: assets (`easy_evaluator,rerank_scores+`), or Dagster's selection syntax.

    Raises:
        SweepError: the selection cannot be read, or names no stage.
    """
    try:
        return selection(select) if select else None
    except ValueError as error:
        raise SweepError(f"select: {error}") from None
