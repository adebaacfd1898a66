"""A sweep in an empty store: is every distinct stage computed once, how long does it take, what
does a second launch do?

python benchmarks/sweep.py --workers 2               # the shipped sweep `evaluators`: 12 ladder
members
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
from typing import Any

from e2h_pipeline.artifacts.manifest import read_manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep", default="evaluators")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--home", type=Path, help="An empty folder; a temporary one where unset.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = options.home or Path(temporary)
        first, seconds = launch(options.sweep, options.workers, home)
        computed = sum(len(outcome["computed"]) for outcome in first)
        manifests = [read_manifest(path.parent) for path in home.glob("store/*/*/manifest.json")]
        stages = sum(manifest.wall_seconds for manifest in manifests)
        second, again = launch(options.sweep, options.workers, home)
        found = {
            "benchmark": "sweep",
            "members": len(first),
            "workers": options.workers,
            "computed": computed,
            "distinct": len(manifests),
            "reused": sum(len(outcome["reused"]) for outcome in first),
            "failed": sum(outcome["error"] is not None for outcome in first),
            "wall_seconds": round(seconds, 1),
            "stage_seconds": round(stages, 1),
            "wall_over_stages": round(seconds / stages, 3),
            "second_launch_computed": sum(len(outcome["computed"]) for outcome in second),
            "second_launch_seconds": round(again, 1),
        }
    print("| | |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value} |")
    print(json.dumps(found))
    if found["computed"] != found["distinct"] or found["second_launch_computed"]:
        sys.exit("a stage was computed twice")


def launch(sweep: str, workers: int, home: Path) -> tuple[list[dict[str, Any]], float]:
    """Run `e2h sweep`: outcomes of the due members, and seconds of the whole command."""
    command = [
        sys.executable,
        "-m",
        "e2h_pipeline.cli.app",
        "sweep",
        sweep,
        "--workers",
        str(workers),
        "--json",
    ]
    environment = {**os.environ, "E2H_HOME": str(home), "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    taken = time.monotonic() - started
    return json.loads(
        done.stdout[done.stdout.rindex("\n[") :] if "\n[" in done.stdout else done.stdout
    ), taken


if __name__ == "__main__":
    main()
