"""Run one asset body in a process of its own: `python -m resources.worker SPEC.json`.

The module that defines the stage is imported by the name in the spec, which registers its body; the
body gets the same job as it would in process. The summary goes to the file that the spec names.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.manifest import read_manifest
from e2h_pipeline.artifacts.store import Artifact, device_name
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.reporter import Reporter
from resources.compute import BODIES, REPORT_MARK


class PipeReporter(Reporter):
    """Writes reports as marked lines of JSON; the parent takes them off the pipe."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Send one point on each curve."""
        self._send({"metrics": dict(values), "step": step})

    def message(self, text: str) -> None:
        """Send one line for people."""
        self._send({"message": text})

    def _send(self, report: dict[str, Any]) -> None:
        sys.stdout.write(f"{REPORT_MARK}{json.dumps(report)}\n")
        sys.stdout.flush()


def main(spec_file: Path) -> None:
    """Run the body that the spec names."""
    spec = json.loads(spec_file.read_text(encoding="utf-8"))
    importlib.import_module(spec["module"])
    summary = BODIES[spec["asset"]](_job(spec))
    result = Path(spec["result"])
    temporary = result.with_suffix(".tmp")
    outcome = {"summary": summary, "device": device_name()}
    temporary.write_text(json.dumps(outcome, default=_plain), encoding="utf-8")
    os.replace(temporary, result)


def _job(spec: Mapping[str, Any]) -> StageJob:
    return StageJob(
        recipe=Recipe.model_validate(spec["recipe"]).slice(spec["sections"]),
        inputs={
            name: Artifact(Path(path), read_manifest(Path(path))) for name, path in spec["inputs"].items()
        },
        out=Path(spec["out"]),
        work=Path(spec["work"]),
        reporter=PipeReporter(),
        engine=spec["engine"],
        experiment=spec["experiment"],
        lineage=spec["lineage"],
    )


def _plain(value: Any) -> Any:
    """Numpy and torch scalars as numbers; anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
