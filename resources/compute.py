"""Where asset bodies run: in this process, in a child that dies with its step, in several that train together,
or in a child that has its shards made on a Ray cluster.

Dagster's own subprocess client signals only the direct child and leaves grandchildren on the GPU
when a run is cancelled or its worker is killed; `resources.supervise` is the mend.

Several processes are started by `accelerate launch`. Each runs the same body; the main one alone
reports and returns the summary. A rank that fails leaves a note with its traceback, because on the
common output the tracebacks of all ranks run into each other.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import dagster as dg

from e2h_pipeline.artifacts.commit import device_name
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.reporter import Reporter
from resources.processes import mark_step

StageBody = Callable[[StageJob], dict[str, Any]]

# Bodies by asset name, filled when a module with stages is imported; the worker looks its body up here.
BODIES: dict[str, StageBody] = {}

# Starts a report in a worker's output, which is text otherwise.
REPORT_MARK = "\x1ee2h "
ERROR_NOTE = "worker-error-{}.json"  # of each rank that failed, in the work folder
_TAIL_LINES = 50
# Two lines of the summary with which torch's launcher ends: a rank, and the signal that it died of.
_ENDED_BY = re.compile(r"rank +: (\d+) .*\n +exitcode +: -\d+ .*\((SIG\w+)\)")


@dataclass(frozen=True)
class Outcome:
    """What a body returned, and the device it used."""

    summary: dict[str, Any]
    device: str


@dataclass(frozen=True)
class StageCall:
    """A body and what it is called with. `module` is where a worker finds the body again; `distributed` says
    that it knows to run in several processes at once, `gpu` that it wants a GPU."""

    asset: str
    module: str
    job: StageJob
    recipe: dict[str, Any]
    lock_fd: int
    distributed: bool = False
    gpu: bool = False


class ComputeResource(dg.ConfigurableResource):
    """How asset bodies run.

    `accelerate` is `subprocess`, but bodies that know how (training) run in `processes` processes under
    `accelerate launch`. `accelerate_config` is a file that `accelerate config` writes, for FSDP
    (deploy/accelerate/fsdp.yaml) or DeepSpeed; without it, plain data parallelism. The batch is shared out, not
    multiplied, and `processes` counts, whatever the file says.

    `ray` is `accelerate`, but what stages do in shards (sampling, scoring, grading) is done by the Ray cluster at
    `ray_address`, or by one that is started here for the stage; see `resources.ray_runner`.

    `cpu_threads` is torch's thread count where OMP_NUM_THREADS does not say otherwise. One is the fastest for
    small models on a shared machine, and a fixed number keeps CPU results the same to the bit.
    """

    mode: Literal["in_process", "subprocess", "accelerate", "ray"] = "in_process"
    processes: int = 1
    accelerate_config: str = ""
    ray_address: str = ""
    cpu_threads: int = 1

    @classmethod
    def from_environment(cls) -> ComputeResource:
        """Settings of this host: E2H_COMPUTE (the mode), E2H_PROCESSES, E2H_ACCELERATE_CONFIG, E2H_RAY_ADDRESS.

        Raises:
            ValueError: E2H_PROCESSES is no number; pydantic's error names a mode that does not exist.
        """
        processes = os.environ.get("E2H_PROCESSES", "1")
        if not processes.isdecimal() or int(processes) < 1:
            raise ValueError(f"E2H_PROCESSES is '{processes}'; set it to a number of processes, 1 or more")
        mode: Any = os.environ.get("E2H_COMPUTE", "in_process")
        return cls(
            mode=mode,
            processes=int(processes),
            accelerate_config=os.environ.get("E2H_ACCELERATE_CONFIG", ""),
            ray_address=os.environ.get("E2H_RAY_ADDRESS", ""),
        )

    def run(self, call: StageCall) -> Outcome:
        """Run a body.

        Raises:
            dagster.Failure: a worker ended with an error; metadata holds its traceback and last lines.
        """
        os.environ.setdefault("OMP_NUM_THREADS", str(self.cpu_threads))  # torch reads it when it is imported
        mark_step(call.job.work.folder)
        if self.mode == "in_process":
            return Outcome(BODIES[call.asset](call.job), device_name())
        ray = {"address": self.ray_address, "gpu": call.gpu} if self.mode == "ray" else None
        return _run_worker(call, self._launcher(call), ray)

    def _launcher(self, call: StageCall) -> list[str]:
        """What stands before `-m resources.worker` in the command."""
        if (
            self.mode not in ("accelerate", "ray")
            or not call.distributed
            or (self.processes == 1 and not self.accelerate_config)
        ):
            return [sys.executable]
        if self.accelerate_config:
            how = ["--config_file", self.accelerate_config]
        else:
            how = ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        command = [sys.executable, "-m", "accelerate.commands.launch", *how]
        return [*command, "--num_processes", str(self.processes), "--main_process_port", "0"]


def _run_worker(call: StageCall, launcher: list[str], ray: dict[str, Any] | None) -> Outcome:
    spec, result = call.job.work.folder / "worker.json", call.job.work.folder / "worker-result.json"
    for left in (result, *call.job.work.folder.glob(ERROR_NOTE.format("*"))):
        left.unlink(missing_ok=True)
    spec.write_text(json.dumps(_spec(call, result) | {"ray": ray}), encoding="utf-8")
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with _supervised([*launcher, "-m", "resources.worker", str(spec)], call.lock_fd) as worker:
        for line in worker.stdout or ():
            _take(line.rstrip("\n"), call.job.work.reporter, tail)
        worker.wait()
    if worker.returncode or not result.is_file():
        raise _failure(call, worker.returncode, list(tail))
    return Outcome(**json.loads(result.read_text(encoding="utf-8")))


def _failure(call: StageCall, status: int, tail: list[str]) -> dg.Failure:
    """What a worker left behind, as an error: the traceback of the rank that failed first, and the last lines."""
    found = [
        json.loads(p.read_text(encoding="utf-8")) for p in call.job.work.folder.glob(ERROR_NOTE.format("*"))
    ]
    metadata = {"tail": dg.MetadataValue.md("```\n" + "\n".join(tail) + "\n```")}
    last = tail[-1] if tail else "no output"
    killed = [(rank, name) for rank, name in _ENDED_BY.findall("\n".join(tail)) if name != "SIGTERM"]
    if killed:  # what the other ranks then say is not the cause
        rank, name = killed[0]
        last = f"rank {rank} was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    elif found:
        first = min(found, key=lambda note: note["time"])
        rank = f"rank {first['rank']}: " if call.distributed else ""
        last = rank + first["error"]
        metadata["traceback"] = dg.MetadataValue.md(f"```\n{first['traceback']}\n```")
    return dg.Failure(f"{call.asset}: worker ended with status {status}: {last}", metadata)


def _spec(call: StageCall, result: Path) -> dict[str, Any]:
    job = call.job
    return {
        "asset": call.asset,
        "module": call.module,
        "recipe": call.recipe,
        "sections": list(job.recipe.sections),
        "inputs": {name: str(artifact.path) for name, artifact in job.inputs.items()},
        "out": str(job.out),
        "work": str(job.work.folder),
        "seed": job.work.recipe_seed,
        "engine": job.work.engine,
        "experiment": job.experiment,
        "lineage": list(job.lineage),
        "code_version": job.code_version,
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
    """Pass one line of a worker on: a report to the reporter, text to the log and the tail.

    Another rank may have begun a line before the report.
    """
    text, _, report = line.partition(REPORT_MARK)
    if text or not report:
        tail.append(text)
        reporter.message(text)
    if not report:
        return
    found = json.loads(report)
    if "metrics" in found:
        reporter.metrics(found["metrics"], found["step"])
    else:
        reporter.message(found["message"])
