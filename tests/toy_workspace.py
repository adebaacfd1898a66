"""A code location of toy stages for tests with real servers: one stage that holds the GPU's only
slot until it is released, and the sensor that closes dead runs. `E2H_HOME` is the home, the stage
writes its pids to `TOY_PIDS`, and a file `TOY_GO` releases it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import toy_stages as toy

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.orchestration import leftovers
from e2h_pipeline.stages.asset import stage

JOB = "hold"


@stage(group="toy", recipe=["seed"], gpu=True)
def toy_holder(job: StageJob) -> dict[str, Any]:
    """Training that goes on until it is released, with a grandchild in its own session."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    notes = Path(os.environ["TOY_PIDS"])
    notes.with_suffix(".tmp").write_text(f"{os.getpid()} {child.pid}")
    notes.with_suffix(".tmp").rename(notes)
    while not Path(os.environ["TOY_GO"]).exists():
        time.sleep(0.1)
    child.kill()
    child.wait()
    return {}


HOLDING = [toy.recipe, toy_holder]


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(
        assets=HOLDING,
        jobs=[dg.define_asset_job(JOB, selection=dg.AssetSelection.all())],
        sensors=[leftovers.sensor()],
        resources=toy.resources(Path(os.environ["E2H_HOME"]), mode="subprocess"),
        executor=dg.in_process_executor,
    )
