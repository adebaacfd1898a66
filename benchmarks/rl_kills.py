"""Random kill -9 over a run of reinforcement learning in several ranks with rollout engines: does it
end with the weights of an undisturbed run, and is anything left behind?

    python benchmarks/rl_kills.py [--kills 20] [--updates 48] [--engines 2] [--lag 1] [--seed 0] [--minutes 120]

PPO on the ladder, as a step of Dagster starts it: two ranks under `accelerate launch` that learn
together, and two rollout engines of rank 0, each in a process of its own. The seed draws for each
kill its victim (a rank, an engine, the launcher, the supervisor, or the step itself) and its moment:
while the processes start, or a part of some updates later. After each kill all processes of the
run must be gone within `--patience` seconds, and the locks of its cards free; then the step is run
again. Cards are made up, because the locks need no GPU.

At the end the files of the artifact and the last weights are compared with those of a run without
kills, byte by byte. A line for each kill, then one JSON line.

Raises SystemExit if a process or a lock stays, or if the files differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rl import make_inputs

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.recipe import PpoRl, Recipe
from resources import compute
from resources.cards import taken
from resources.supervise import descendants

SPEC = "E2H_BENCHMARK_SPEC"  # variable with the folders of a run, for its ranks
BODY, RANKS, CARDS = "rl_kills", 2, ("one", "two")
STARTING = 0.4  # share of the kills that come while the processes start
_START_SECONDS = 40.0  # of two ranks and two engines on a busy machine
_UPDATES = 2.0  # most updates from the first one of a process to its kill
_LOOK_SECONDS = 0.05
VICTIMS = {
    "engine": "e2h_pipeline.generation.engines.host",
    "rank": "resources.worker",
    "launcher": "accelerate.commands.launch",
    "supervisor": "resources.supervise",
}
STEP = "step"


def main() -> None:
    """Compare both runs; with --step, be the step that makes one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--updates", type=int, default=48)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--lag", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the victims and moments")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds until all must be gone")
    parser.add_argument("--minutes", type=float, default=120.0, help="after these no further kill")
    parser.add_argument("--step", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        return step(options.step)
    with tempfile.TemporaryDirectory() as scratch:
        asked = {name: getattr(options, name) for name in ("updates", "lag", "engines")}
        spec = {**make_inputs(Path(scratch)), **asked}
        line = compare(spec, Path(scratch), options)
    print(json.dumps(line))
    if not line["equal"]:
        raise SystemExit("the runs differ")
    return None


def compare(spec: Mapping[str, Any], scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Both runs.

    Raises:
        SystemExit: a kill left something behind.
    """
    chance = random.Random(options.seed)
    killed, whole = scratch / "killed", scratch / "whole"
    kills: list[dict[str, Any]] = []
    until = time.monotonic() + 60 * options.minutes
    while len(kills) < options.kills and time.monotonic() < until:
        found = kill_once(spec, killed, chance, options.patience)
        kills.append(found)
        print(
            f"{len(kills):3}. {found['victim']:11} {found['when']:24} all gone after {found['seconds']:.1f} s",
            flush=True,
        )
    for folder in (killed, whole):
        with started(spec, folder) as running:
            if running.wait():
                raise SystemExit(f"a run without a kill failed with status {running.returncode}")
    ours, theirs = contents(killed), contents(whole)
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    return {
        "benchmark": "rl_kills",
        "kills": kills,
        "updates": options.updates,
        "lag": options.lag,
        "engines": options.engines,
        "seed": options.seed,
        "files": len(theirs),
        "differing": differing,
        "equal": bool(theirs) and not differing,
    }


def kill_once(
    spec: Mapping[str, Any], folder: Path, chance: random.Random, patience: float
) -> dict[str, Any]:
    """Start the step, and kill one of its processes; victim, moment, and how long the rest lived.

    Raises:
        SystemExit: the run ended by itself, or left something behind.
    """
    before = done(folder)
    with started(spec, folder) as running:
        if chance.random() < STARTING:
            time.sleep(chance.uniform(0, _START_SECONDS))
        else:
            wanted = before + 1 + int(chance.uniform(0, _UPDATES))
            while done(folder) < wanted and running.poll() is None:
                time.sleep(_LOOK_SECONDS)
            time.sleep(chance.uniform(0, 1.0))
        if running.poll() is not None:
            raise SystemExit("the run ended before the kill: ask for more updates")
        processes = {**named(descendants(running.pid)), running.pid: STEP}
        victim = chance.choice(sorted(processes))
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        while any(alive(pid) for pid in processes):
            if time.monotonic() - began > patience:
                left = [f"{name} {pid}" for pid, name in processes.items() if alive(pid)]
                raise SystemExit(f"{patience:g} s after the kill of the {processes[victim]} live: {left}")
            running.poll()  # otherwise it stays as a zombie
            time.sleep(_LOOK_SECONDS)
        seconds = time.monotonic() - began
    with taken(CARDS, len(CARDS), folder / "locks", lambda text: sys.exit(f"a lock stayed: {text}")):
        when = f"after update {done(folder)}" if done(folder) > before else "at the start"
        return {"victim": processes[victim], "when": when, "seconds": round(seconds, 1)}


@contextmanager
def started(spec: Mapping[str, Any], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The step in a process of its own; it is ended at the end of the block."""
    (folder / "work").mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "E2H_ROLLOUT_ENGINES": str(spec["engines"]),
        "E2H_ROLLOUT_SECONDS": os.environ.get("E2H_ROLLOUT_SECONDS", "300"),  # for a busy machine
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        SPEC: json.dumps(spec),
    }
    command = [sys.executable, __file__, "--step", str(folder)]
    with (folder / "log").open("ab") as log:
        running = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def named(pids: list[int]) -> dict[int, str]:
    """Processes of a run by what they are; the others are left out."""
    found = {}
    for pid in pids:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        kinds = [kind for kind, module in VICTIMS.items() if ["-m", module] in (command[1:3], command[2:4])]
        if kinds:
            found[pid] = kinds[0]
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def done(folder: Path) -> int:
    """Updates of which the rollouts are written."""
    return len(list((folder / "work" / "rollouts").glob("part-*.parquet")))


def contents(folder: Path) -> dict[str, bytes]:
    """Files of the artifact, and the last weights and optimizer states."""
    last = max((folder / "work").glob("update-*"))
    files = [*(folder / "out").iterdir(), *last.glob("*.safetensors"), *last.glob("policy/*.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def step(folder: Path) -> None:
    """Run the body as a step of Dagster does."""
    compute.visible_cards = lambda: list(CARDS)
    compute.lock_folder = lambda: folder / "locks"
    recipe = Recipe(name="ladder")
    work = Work(folder / "out", folder / "work", 0, Reporter())
    job = StageJob(recipe=recipe.slice(["seed"]), inputs={}, work=work)
    call = compute.StageCall(
        BODY, BODY, job, recipe.model_dump(mode="json"), os.open(os.devnull, os.O_RDONLY), True, True
    )
    compute.ComputeResource(mode="accelerate", processes=RANKS).run(call)


def body(job: StageJob) -> dict[str, Any]:
    """PPO, in each rank."""
    from e2h_pipeline.problems.ladder.domain import LADDER
    from e2h_pipeline.rl import algorithms as rl
    from e2h_pipeline.rl.online.ppo import Ppo

    spec = json.loads(os.environ[SPEC])
    options = PpoRl(
        updates=spec["updates"],
        lag=spec["lag"],
        rollouts=32,
        minibatch=16,
        learning_rate=1e-4,
        value_learning_rate=1e-4,
        max_new_tokens=80,
        checkpoint_every=3,
        max_kl=100,
    )
    inputs = {
        rl.SFT_POLICY: Path(spec["policy"]),
        rl.EVALUATOR: Path(spec["evaluator"]),
        rl.EASY_PROBLEMS: Path(spec["easy"]),
        rl.HARD_QUESTIONS: Path(spec["hard"]),
    }
    return Ppo().train(rl.RlJob(inputs, options, LADDER, "exact", job.work))


compute.BODIES[BODY] = body

if __name__ == "__main__":
    main()
