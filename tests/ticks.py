"""One tick of the automation, as the daemon evaluates it."""

from __future__ import annotations

from functools import cache

import dagster as dg
import pytest


def evaluate(
    definitions: dg.Definitions, instance: dg.DagsterInstance, cursor: dg.AssetDaemonCursor | None = None
) -> dg.EvaluateAutomationConditionsResult:
    """The conditions' requests. Partitions are read once, as by the daemon: Dagster's function for tests
    reads them again for each part of each condition, a third of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instance, "get_dynamic_partitions", cache(instance.get_dynamic_partitions))
        return dg.evaluate_automation_conditions(definitions, instance, cursor=cursor)
