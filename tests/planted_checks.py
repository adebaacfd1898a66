"""The verdict of a check of the supervision firewall, as a run of its own reports it."""

from __future__ import annotations

import uuid

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.definitions.partitions.subset import DefaultPartitionsSubset

WHY = "a planted leak"
_ASSET, _CHECK = dg.AssetKey("easy_problems"), "split_integrity"


def report_check(instance: dg.DagsterInstance, key: str, *, passed: bool) -> None:
    """Report the check `split_integrity` of `easy_problems` for an experiment."""
    run = str(uuid.uuid4())
    planned = AssetCheckEvaluationPlanned(
        asset_key=_ASSET, check_name=_CHECK, partitions_subset=DefaultPartitionsSubset({key})
    )
    verdict = dg.AssetCheckEvaluation(
        _ASSET, _CHECK, passed=passed, metadata={}, description=None if passed else WHY, partition=key
    )
    for kind, data in (
        (dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED, planned),
        (dg.DagsterEventType.ASSET_CHECK_EVALUATION, verdict),
    ):
        event = dg.DagsterEvent(kind.value, "planted", event_specific_data=data)
        instance.report_dagster_event(event, run)
