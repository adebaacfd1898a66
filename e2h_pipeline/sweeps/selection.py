"""The stages that a sweep selects."""

from __future__ import annotations

import dagster as dg

from e2h_pipeline.orchestration.planning import asset_selection, stage_assets
from e2h_pipeline.sweeps.spec import SweepError


def selected_stages(select: str) -> frozenset[str] | None:
    """Stages that a sweep's selection names; None (all stages) if it is empty.

    Args:
        select: assets (`easy_evaluator,rerank_scores+`), or Dagster's selection syntax.

    Raises:
        SweepError: the selection cannot be read, or names no stage.
    """
    if not select:
        return None
    try:
        chosen = asset_selection(select).resolve(stage_assets())
    except dg.DagsterError as error:
        raise SweepError(f"select: {str(error).strip().splitlines()[0]}") from None
    if not chosen:
        raise SweepError(f"select: '{select}' names no stage; +report names all that a report needs")
    return frozenset(key.to_user_string() for key in chosen)
