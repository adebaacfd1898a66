"""The code location: the only place that puts assets, checks, resources and automation together."""

from __future__ import annotations

import warnings

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Entry point of `workspace.yaml` and `dg`."""
    from e2h_pipeline.artifacts.home import home
    from e2h_pipeline.orchestration.instance import known_experiments

    return build(known_experiments(home()))


def build(experiments: int = 0) -> dg.Definitions:
    """All definitions, without heavy imports.

    Args:
        experiments: of the home, for the interval of the automation.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # asset checks with partitions
        import assets

        stages = dg.load_assets_from_package_module(assets)
        checks = dg.load_asset_checks_from_package_module(assets)
    from assets.watched import WATCHED
    from e2h_pipeline.orchestration import automation, leftovers, new_experiment, notices
    from e2h_pipeline.orchestration import source_watch as freshness
    from e2h_pipeline.sweeps import sensors
    from resources.compute import ComputeResource
    from resources.engine import EngineResource
    from resources.store import StoreResource
    from resources.tracking import TrackingResource

    return dg.Definitions(
        assets=[*automation.automated(stages), *(watched.spec for watched in WATCHED)],
        asset_checks=checks,
        jobs=[automation.experiment_job(), new_experiment.new_experiment],
        schedules=[sensors.daily_sweeps()],
        sensors=[
            automation.sensor(experiments),
            automation.watch_recipes(),
            new_experiment.start_new_experiments(),
            sensors.changed_sweeps(),
            sensors.sweep_pages(),
            sensors.sweep_summaries(),
            freshness.sensor(),
            leftovers.sensor(),
            *notices.sensors(),
        ],
        resources={
            "store": StoreResource(),
            "compute": ComputeResource.from_environment(),
            "engine": EngineResource.from_environment(),
            "tracking": TrackingResource(),
        },
        executor=dg.in_process_executor,
    )
