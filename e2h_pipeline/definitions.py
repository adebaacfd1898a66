"""The code location: every asset, check, resource and the automation, put together here and nowhere else."""

from __future__ import annotations

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """What `workspace.yaml` and `dg` load."""
    return build()


def build() -> dg.Definitions:
    """All definitions; nothing heavy is imported on the way."""
    import assets
    from e2h_pipeline.automation import automated, experiment_job, sensor
    from resources.compute import ComputeResource
    from resources.engine import EngineResource
    from resources.store import StoreResource
    from resources.tracking import TrackingResource

    return dg.Definitions(
        assets=automated(dg.load_assets_from_package_module(assets)),
        asset_checks=dg.load_asset_checks_from_package_module(assets),
        jobs=[experiment_job()],
        sensors=[sensor()],
        resources={
            "store": StoreResource(),
            "compute": ComputeResource(),
            "engine": EngineResource(),
            "tracking": TrackingResource(),
        },
        executor=dg.in_process_executor,
    )
