"""Runs asset bodies: in this process, in a child that dies with its step, in several processes that
train together, or in a child whose shards are made on a Ray cluster.

Dagster's own subprocess client signals only the direct child and leaves grandchildren on the GPU
when a run is cancelled or its worker is killed. `resources.supervise` prevents that.

`accelerate launch` starts several processes. Each runs the same body; only the main one reports and
returns the summary. A failed rank writes a note with its traceback, because the tracebacks of all
ranks are mixed up in the common output.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
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
from resources.cards import ALL, Taken, lock_folder, taken, visible_cards
from resources.processes import mark_step

StageBody = Callable[[StageJob], dict[str, Any]]

# Asset name -> body, for the worker. Filled when a module with stages is imported.
BODIES: dict[str, StageBody] = {}

# Marks a report in a worker's output; other lines are text.
REPORT_MARK = "\x1ee2h "
ERROR_NOTE = "worker-error-{}.json"  # one for each failed rank, in the work folder
_TAIL_LINES = 50
# Two lines of the summary that torch's launcher prints: a rank, and the signal that killed it.
_ENDED_BY = re.compile(r"rank +: (\d+) .*\n +exitcode +: -\d+ .*\((SIG\w+)\)")


@dataclass(frozen=True)
class StageOutcome:
    """The result of a body, and the device it used."""

    summary: dict[str, Any]
    device: str


@dataclass(frozen=True)
class StageCall:
    """A body and its arguments.

    `module` is where a worker finds the body. `distributed`: it can run in several processes at
    once. `gpu`: it wants a GPU."""

    asset: str
    module: str
    job: StageJob
    recipe: dict[str, Any]
    lock_fd: int
    distributed: bool = False
    gpu: bool = False


class ComputeResource(dg.ConfigurableResource):
    """How asset bodies run.

    `accelerate` is like `subprocess`, but distributed bodies (training) run in `processes`
    processes under `accelerate launch`. `accelerate_config` is a file written by `accelerate
    config`, for FSDP (deploy/accelerate/fsdp.yaml) or DeepSpeed; without it, plain data
    parallelism. The batch is split, not multiplied. `processes` overrides the number in the file.

    `launcher` is a command of your own in place of `accelerate launch`, for several hosts: it starts
    the processes everywhere (deploy/slurm/launch.sh).

    `ray` is like `accelerate`, but the shards of stages (sampling, scoring, grading) run on the Ray
    cluster at `ray_address`, or on a local one started for the stage; see `resources.ray_runner`.

    `cpu_threads` is torch's thread count unless OMP_NUM_THREADS is set. One is fastest for small
    models on a shared machine, and a fixed number keeps CPU results the same to the bit.
    """

    mode: Literal["in_process", "subprocess", "accelerate", "ray"] = "in_process"
    processes: int = 1
    accelerate_config: str = ""
    launcher: str = ""
    ray_address: str = ""
    cpu_threads: int = 1

    @classmethod
    def from_environment(cls) -> ComputeResource:
        """Settings of this host: E2H_COMPUTE (the mode), E2H_PROCESSES, E2H_ACCELERATE_CONFIG,
        E2H_LAUNCHER, E2H_RAY_ADDRESS.

        Raises:
            ValueError: E2H_PROCESSES is not a number; for an unknown mode, pydantic's error names
                it.
        """
        processes = os.environ.get("E2H_PROCESSES", "1")
        if not processes.isdecimal() or int(processes) < 1:
            raise ValueError(f"E2H_PROCESSES is '{processes}'; set it to a number of processes, 1 or more")
        mode: Any = os.environ.get("E2H_COMPUTE", "in_process")
        return cls(
            mode=mode,
            processes=int(processes),
            accelerate_config=os.environ.get("E2H_ACCELERATE_CONFIG", ""),
            launcher=os.environ.get("E2H_LAUNCHER", ""),
            ray_address=os.environ.get("E2H_RAY_ADDRESS", ""),
        )

    def run(self, call: StageCall) -> StageOutcome:
        """Run a body.

        Raises:
            dagster.Failure: a worker ended with an error; metadata holds its traceback and last
                lines.
        """
        os.environ.setdefault("OMP_NUM_THREADS", str(self.cpu_threads))  # torch reads it when it is imported
        mark_step(call.job.work.folder)
        usable = visible_cards() if call.gpu else []
        if self.mode == "in_process":  # this process uses the first card that it sees
            usable = usable[:1]
        with taken(
            usable, self.cards(call.distributed), lock_folder(), call.job.work.reporter.message
        ) as cards:
            if self.mode == "in_process":
                return StageOutcome(BODIES[call.asset](call.job), device_name())
            ray = {"address": self.ray_address, "gpu": call.gpu} if self.mode == "ray" else None
            return _run_worker(call, self._launcher(call), ray, cards)

    def cards(self, distributed: bool) -> int:
        """Cards of this host that a stage uses if it wants a GPU.

        Args:
            distributed: its body can run in several processes at once.
        """
        if self.mode == "ray" and not self.ray_address:
            return ALL  # a local cluster uses all
        if not self._launches(distributed):
            return 1
        return ALL if self.launcher else self.processes  # a launcher of several hosts uses all of each

    def _launches(self, distributed: bool) -> bool:
        """Whether a body runs under `accelerate launch`."""
        several = self.processes > 1 or bool(self.accelerate_config) or bool(self.launcher)
        return self.mode in ("accelerate", "ray") and distributed and several

    def _launcher(self, call: StageCall) -> list[str]:
        """The part of the command before `-m resources.worker`."""
        if not self._launches(call.distributed):
            return [sys.executable]
        if self.launcher:
            return shlex.split(self.launcher)
        if self.accelerate_config:
            how = ["--config_file", self.accelerate_config]
        else:
            how = ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        command = [sys.executable, "-m", "accelerate.commands.launch", *how]
        return [*command, "--num_processes", str(self.processes), "--main_process_port", "0"]


def _run_worker(
    call: StageCall, launcher: list[str], ray: dict[str, Any] | None, cards: Taken
) -> StageOutcome:
    spec, result = call.job.work.folder / "worker.json", call.job.work.folder / "worker-result.json"
    for left in (result, *call.job.work.folder.glob(ERROR_NOTE.format("*"))):
        left.unlink(missing_ok=True)
    spec.write_text(json.dumps(_spec(call, result) | {"ray": ray}), encoding="utf-8")
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with _supervised([*launcher, "-m", "resources.worker", str(spec)], call.lock_fd, cards) as worker:
        for line in worker.stdout or ():
            _take(line.rstrip("\n"), call.job.work.reporter, tail)
        worker.wait()
    if worker.returncode or not result.is_file():
        raise _failure(call, worker.returncode, list(tail))
    return StageOutcome(**json.loads(result.read_text(encoding="utf-8")))


def _failure(call: StageCall, status: int, tail: list[str]) -> dg.Failure:
    """A worker's failure as an error: traceback of the first failed rank, and the last lines."""
    found = [
        json.loads(p.read_text(encoding="utf-8")) for p in call.job.work.folder.glob(ERROR_NOTE.format("*"))
    ]
    metadata = {"tail": dg.MetadataValue.md("```\n" + "\n".join(tail) + "\n```")}
    last = tail[-1] if tail else "no output"
    killed = [(rank, name) for rank, name in _ENDED_BY.findall("\n".join(tail)) if name != "SIGTERM"]
    if killed:  # the errors of the other ranks only follow from it
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
        "reads": job.reads.as_dict() if job.reads else None,
        "result": str(result),
    }


@contextmanager
def _supervised(command: list[str], lock_fd: int, cards: Taken) -> Iterator[subprocess.Popen[str]]:
    """Start a command under `resources.supervise`; leaving the block ends all its processes."""
    temporary = tempfile.mkdtemp(prefix="e2h-")  # its own, because others' may hold what it must not read
    environment = {
        **os.environ,
        "TMPDIR": temporary,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "E2H_LOCK_FD": str(lock_fd),
        **cards.environment(),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "resources.supervise", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        pass_fds=(lock_fd, *cards.handles),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _close(process.stdin)
        process.wait()
        _close(process.stdout)
        shutil.rmtree(temporary, ignore_errors=True)


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        stream.close()


def _take(line: str, reporter: Reporter, tail: deque[str]) -> None:
    """Handle one line of a worker: reports go to the reporter, text goes to the log and the tail.

    A report may follow the beginning of another rank's line.
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
