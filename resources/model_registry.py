"""Versions in MLflow's model registry, for trained policies and evaluators, where they are asked for.

E2H_REGISTER_MODELS=1: each one becomes a version of `e2h-<source of problems>-<asset>`. The alias
`champion` is moved by easy validation only: to a version with a higher figure, or to one that was
validated on other easy data, or by another figure, than the champion was, as these cannot be
compared. A model without such a figure (a fine-tuned policy) is never champion by itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.request import Artifact

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

VARIABLE = "E2H_REGISTER_MODELS"
CHAMPION = "champion"
_FIGURES = ("easy_validation_accuracy", "validation_step_auroc", "validation_outcome_auroc")
_FIGURE, _VALUE, _DATA = "e2h.easy_figure", "e2h.easy_value", "e2h.easy_data_version"
_UNTRAINED = "base_model"


def registration(artifact: Artifact, easy_data: str) -> dict[str, Any] | None:
    """How a trained model is registered, as plain data; None where it is not.

    Args:
        easy_data: data version of the easy problems behind it.
    """
    if os.environ.get(VARIABLE) != "1" or artifact.asset == _UNTRAINED:
        return None
    manifest = artifact.manifest
    source = manifest.recipe.get("problems", {}).get("source", "")
    tags = {
        "e2h.data_version": manifest.data_version,
        "e2h.experiment": manifest.experiment,
        _DATA: easy_data,
    }
    for figure in _FIGURES:
        value = manifest.summary.get(figure)
        if isinstance(value, int | float):
            tags |= {_FIGURE: figure, _VALUE: repr(float(value))}
            break
    return {"name": "-".join(filter(None, ("e2h", source, artifact.asset))), "tags": tags}


def register(client: MlflowClient, wanted: Mapping[str, Any], run_id: str, place: str, model_id: str) -> None:
    """Make a version, once, and move the alias if it is better on easy validation.

    Args:
        place: the model's folder, for MLflow's own database; empty for a server, which takes no paths
            of other machines, and knows the model by its id.
    """
    from mlflow.exceptions import MlflowException

    name = wanted["name"]
    with suppress(MlflowException):  # there already
        client.create_registered_model(name)
    made = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    tags = dict(wanted["tags"])
    known = {"source": place} if place else {"source": f"models:/{model_id}", "model_id": model_id}
    version = made[0] if made else client.create_model_version(name, run_id=run_id, tags=tags, **known)
    try:
        champion = client.get_model_version_by_alias(name, CHAMPION).tags
    except MlflowException:  # there is none
        champion = {}
    if better(tags, champion):
        client.set_registered_model_alias(name, CHAMPION, str(version.version))


def better(tags: Mapping[str, str], champion: Mapping[str, str]) -> bool:
    """Whether a version with these tags takes the champion's place."""
    if _FIGURE not in tags:
        return False
    comparable = all(tags.get(tag) == champion.get(tag) for tag in (_FIGURE, _DATA))
    return not comparable or float(tags[_VALUE]) > float(champion[_VALUE])
