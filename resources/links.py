"""Links to MLflow's pages, for readers that load neither Dagster nor MLflow."""

from __future__ import annotations

import os
from pathlib import Path

from e2h_pipeline.artifacts.served import served

PORT_VARIABLE = "E2H_MLFLOW_PORT"  # where MLflow is served, if not by `e2h ui`, which says so itself
_WORKFLOW = "?workflowType=machine_learning"  # of links: MLflow's pages for training, not for agents


def mlflow_link(home: Path, address: str | None, page: str = "") -> str | None:
    """A run's address as a link that works now; None where nobody serves MLflow of this home.

    Args:
        page: of the run's artifacts, by name; the run itself where empty.
    """
    if address is None:
        return None
    place = f"{address}/artifacts/{page}{_WORKFLOW}" if page else f"{address}{_WORKFLOW}"
    if not address.startswith("#"):
        return place
    port = os.environ.get(PORT_VARIABLE) or served(home).get("mlflow")
    return f"http://127.0.0.1:{port}/{place}" if port else None


def dagster_link(home: Path, place: str) -> str | None:
    """A place such as `/runs/ID` in Dagster's pages as a link that works now; None where `e2h ui` does not
    serve them."""
    port = served(home).get("dagster")
    return f"http://127.0.0.1:{port}{place}" if port else None
