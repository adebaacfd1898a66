"""Where asset bodies run: in this process, or in a child that dies with its step.

Dagster's own subprocess client signals only the direct child and leaves grandchildren on the GPU
when a run is cancelled or its worker is killed; `resources.supervise` is the mend.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import dagster as dg

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.store import device_name
from e2h_pipeline.reporter import Reporter

StageBody = Callable[[StageJob], dict[str, Any]]

# Bodies by asset name, filled when a module with stages is imported; the worker looks its body up here.
BODIES: dict[str, StageBody] = {}

# Starts a line of a worker's output that carries a report instead of text.
REPORT_MARK = "\x1ee2h "
_TAIL_LINES = 50


@dataclass(frozen=True)
class Outcome:
    """What a body returned, and the device it used."""

    summary: dict[str, Any]
    device: str


@dataclass(frozen=True)
class StageCall:
    """A body and what it is called with. `module` is where a worker finds the body again."""

    asset: str
    module: str
    job: StageJob
    recipe: dict[str, Any]
    lock_fd: int


class ComputeResource(dg.ConfigurableResource):
    """How asset bodies run.

    `cpu_threads` is torch's thread count where OMP_NUM_THREADS does not say otherwise. One is the fastest for
    small models on a shared machine, and a fixed number keeps CPU results the same to the bit.
    """

    mode: Literal["in_process", "subprocess"] = "in_process"
    cpu_threads: int = 1

    def run(self, call: StageCall) -> Outcome:
        """Run a body.

        Raises:
            dagster.Failure: a worker ended with an error; metadata holds its last lines.
        """
        os.environ.setdefault("OMP_NUM_THREADS", str(self.cpu_threads))  # torch reads it when it is imported
        if self.mode == "in_process":
            return Outcome(BODIES[call.asset](call.job), device_name())
        return _run_worker(call)


def _run_worker(call: StageCall) -> Outcome:
    spec, result = call.job.work / "worker.json", call.job.work / "worker-result.json"
    result.unlink(missing_ok=True)
    spec.write_text(json.dumps(_spec(call, result)), encoding="utf-8")
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with _supervised([sys.executable, "-m", "resources.worker", str(spec)], call.lock_fd) as worker:
        for line in worker.stdout or ():
            _take(line.rstrip("\n"), call.job.reporter, tail)
        worker.wait()
    if worker.returncode or not result.is_file():
        text = "\n".join(tail)
        last = tail[-1] if tail else "no output"
        raise dg.Failure(
            description=f"{call.asset}: worker ended with status {worker.returncode}: {last}",
            metadata={"tail": dg.MetadataValue.md(f"```\n{text}\n```")},
        )
    return Outcome(**json.loads(result.read_text(encoding="utf-8")))


def _spec(call: StageCall, result: Path) -> dict[str, Any]:
    job = call.job
    return {
        "asset": call.asset,
        "module": call.module,
        "recipe": call.recipe,
        "sections": list(job.recipe.sections),
        "inputs": {name: str(artifact.path) for name, artifact in job.inputs.items()},
        "out": str(job.out),
        "work": str(job.work),
        "engine": job.engine,
        "experiment": job.experiment,
        "lineage": list(job.lineage),
        "result": str(result),
    }


@contextmanager
def _supervised(command: list[str], lock_fd: int) -> Iterator[subprocess.Popen[str]]:
    """Start a command under `resources.supervise`; leaving the block ends the whole tree."""
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "E2H_LOCK_FD": str(lock_fd),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "resources.supervise", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        pass_fds=(lock_fd,),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _close(process.stdin)
        process.wait()
        _close(process.stdout)


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        stream.close()


def _take(line: str, reporter: Reporter, tail: deque[str]) -> None:
    """Pass one line of a worker on: a report to the reporter, text to the log and the tail."""
    if not line.startswith(REPORT_MARK):
        tail.append(line)
        reporter.message(line)
        return
    report = json.loads(line[len(REPORT_MARK) :])
    if "metrics" in report:
        reporter.metrics(report["metrics"], report["step"])
    else:
        reporter.message(report["message"])
