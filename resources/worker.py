"""Run one asset body in its own process: `python -m resources.worker SPEC.json`.

The spec names the module that defines the stage; importing it registers the body. The body gets the
same job as in process. The summary goes to the file that the spec names.

Under `accelerate launch` this runs once for each rank. Only the main rank writes reports and the
summary; any failed rank writes its traceback into the work folder.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.commit import device_name
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.manifest import read_manifest
from e2h_pipeline.artifacts.reads import WHAT_IS_OPEN, Reads, UndeclaredReadError
from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.request import Artifact
from e2h_pipeline.artifacts.shards import LocalRunner
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.recipe import Recipe
from resources.compute import BODIES, ERROR_NOTE, REPORT_MARK
from resources.landlock import restrict
from resources.ray_runner import RayRunner
from resources.supervise import die_with_parent


class PipeReporter(Reporter):
    """Writes reports as marked lines of JSON, which the parent reads from the pipe."""

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
    try:
        summary = _run(spec)
    except Exception as error:
        _note_failure(Path(spec["work"]), error)
        raise
    if _rank() == 0:
        outcome = {"summary": summary, "device": device_name()}
        _write(Path(spec["result"]), outcome)


def _run(spec: Mapping[str, Any]) -> dict[str, Any]:
    reads = _reads(spec)
    if reads:
        restrict(reads)
    _take_own_gpu()
    importlib.import_module(spec["module"])
    try:
        return BODIES[spec["asset"]](_job(spec))
    except PermissionError as error:  # from a library that opened a file itself
        raise UndeclaredReadError(f"{spec['asset']}: {error}. {WHAT_IS_OPEN}") from error


def _reads(spec: Mapping[str, Any]) -> Reads | None:
    return Reads.from_dict(spec["reads"]) if spec["reads"] else None


def _rank() -> int:
    """Index of this process among those that work together; 0 is the main one."""
    return int(os.environ.get("RANK", "0"))


def _take_own_gpu() -> None:
    """Make "cuda" this rank's card; otherwise every rank would use the first card."""
    if "LOCAL_RANK" not in os.environ:
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def _note_failure(work: Path, error: Exception) -> None:
    """Write the traceback for the step, with the time: later failures follow from the first one."""
    note = {
        "rank": _rank(),
        "time": time.time(),
        "error": traceback.format_exception_only(error)[0].strip(),  # without the notes after it
        "traceback": "".join(traceback.format_exception(error)),
    }
    _write(work / ERROR_NOTE.format(_rank()), note)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, default=_plain), encoding="utf-8")
    os.replace(temporary, path)


def _job(spec: Mapping[str, Any]) -> StageJob:
    return StageJob(
        recipe=Recipe.model_validate(spec["recipe"]).slice(spec["sections"]),
        inputs={
            name: Artifact(Path(path), read_manifest(Path(path))) for name, path in spec["inputs"].items()
        },
        work=Work(
            out=Path(spec["out"]),
            folder=Path(spec["work"]),
            recipe_seed=spec["seed"],
            reporter=PipeReporter() if _rank() == 0 else Reporter(),
            engine=spec["engine"],
            runner=RayRunner(**spec["ray"], reads=_reads(spec)) if spec["ray"] else LocalRunner(),
        ),
        experiment=spec["experiment"],
        lineage=spec["lineage"],
        code_version=spec["code_version"],
        reads=_reads(spec),
    )


def _plain(value: Any) -> Any:
    """Numpy and torch scalars as numbers; anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)


if __name__ == "__main__":
    die_with_parent()  # a launcher that is killed ends none of its ranks
    main(Path(sys.argv[1]))
