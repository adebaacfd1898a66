"""The cost of Dagster: an experiment through `e2h run`, and the same stages called one after the
other.

    python benchmarks/orchestration.py            # the recipe `ladder`, as `make demo`

Both sides compute all stages and write the same artifacts into an empty store. Times include
imports and start-up. Only `e2h run` includes checks and MLflow.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DIRECT = """
import sys
from pathlib import Path
from e2h_pipeline.stages.asset import STAGES, narrow, request_of, seed_of
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.artifacts.lineage import as_rows, trace
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.planning import stage_order
from e2h_pipeline.recipe import Recipe
from resources.compute import BODIES
from resources.engine import EngineResource

home, key = Path(sys.argv[1]), sys.argv[2]
recipe, store, engine, found = Recipe.from_key(key), ArtifactStore(home), EngineResource(), {}
for name in stage_order():
    spec = STAGES[name]
    view = narrow(recipe, spec.sections)
    inputs = {asset: found[asset] for asset in spec.inputs(view)}
    lineage = as_rows(*(trace(store, artifact) for artifact in inputs.values()))

    def make(draft):
        job = StageJob(view, inputs, Work(draft.out, draft.work, seed_of(view), engine=engine.name), key, lineage)
        draft.summary = BODIES[name](job)

    found[name], _ = store.obtain(request_of(spec, view, inputs, engine, key), make)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key", default="ladder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        direct = timed(
            [sys.executable, "-c", DIRECT, f"{folder}/direct", options.key], Path(folder) / "direct"
        )
        run = [sys.executable, "-m", "e2h_pipeline.cli.app", "run", options.key]
        dagster = timed(run, Path(folder) / "dagster")
        same = versions(Path(folder) / "direct") == versions(Path(folder) / "dagster")
    found = {
        "benchmark": "orchestration",
        "key": options.key,
        "direct_seconds": round(direct, 1),
        "dagster_seconds": round(dagster, 1),
        "more_seconds": round(dagster - direct, 1),
        "more": round(dagster / direct - 1, 3),
        "same_data_versions": same,
    }
    for name, value in found.items():
        print(f"{name:<22}{value}")
    print(json.dumps(found))


def timed(command: list[str], home: Path) -> float:
    """Wall seconds of a command in a home folder of its own."""
    home.mkdir()
    environment = {**os.environ, "E2H_HOME": str(home), "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started


def versions(home: Path) -> set[tuple[str, str]]:
    """(asset, data version) of all artifacts."""
    manifests = [json.loads(path.read_bytes()) for path in home.glob("store/*/*/manifest.json")]
    return {(manifest["asset"], manifest["data_version"]) for manifest in manifests}


if __name__ == "__main__":
    main()
