"""The time of an update of online reinforcement learning, by number of ranks and rollout engines.

    python benchmarks/rl_scaling.py [--ranks 1 2] [--ways replicated sharded] [--engines 0 1] [--updates 5]
        [--rounds 3]

GRPO on the ladder as its recipe has it: the shipped model, 128 completions and one optimizer step an
update. A round is a run from the start under each number of ranks: one update to warm up, then the
timed ones, without validation and checkpoints on the way. Each rank has one thread. Seconds of rank
0, medians over all timed updates: drawing, scoring, learning (log-probabilities too), `sending`, the
part of drawing that went into weights for the engines, and `talk`, the part of all that went into
talks with other ranks, waiting for the slower one included. The passes of sharded models are not in
it. Processor seconds are those of all ranks and engines together; the engines are the embedded one.

On a machine that others use, wall times say little: compare processor seconds. A table for people,
then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rl import make_inputs, make_job, make_options, processor_seconds

from resources.supervise import descendants

FSDP = Path(__file__).parents[1] / "deploy" / "accelerate" / "fsdp.yaml"
PARTS = {
    "update": "seconds",
    "drawing": "seconds_rollout",
    "scoring": "seconds_score",
    "learning": "seconds_update",
    "sending": "seconds_send",
    "talk": "seconds_ranks",
}
Key = tuple[int, str, int]  # ranks, how models are held, engines
_ROW = "{:>5} {:>11} {:>7}" + " {:>9}" * (len(PARTS) + 1)


def main() -> None:
    """Measure, or be one rank of a measured run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--ways", nargs="+", choices=["replicated", "sharded"], default=["replicated", "sharded"]
    )
    parser.add_argument("--engines", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--updates", type=int, default=5, help="timed ones of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rank-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_of:
        return one_rank(json.loads(options.rank_of))
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(options, Path(scratch))
    print(_ROW.format("ranks", "models", "engines", *PARTS, "processor"))
    for row in rows:
        figures = (f"{row[name]:.3f}" for name in [*PARTS, "processor"])
        print(_ROW.format(row["ranks"], row["way"], row["engines"], *figures))
    print(json.dumps({"benchmark": "rl_scaling", "cpus": len(os.sched_getaffinity(0)), "rows": rows}))
    return None


def measure(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """Rounds through all numbers of ranks in turn."""
    folders = make_inputs(scratch)
    shared = {**folders, "rollouts": 128, "minibatch": 128, "updates": options.updates, "temperature": 1.0}
    keys = [
        (n, way, engines)
        for n in options.ranks
        for way in options.ways
        for engines in options.engines
        if n > 1 or way == options.ways[0]
    ]
    found: dict[Key, list[Mapping[str, float]]] = {key: [] for key in keys}
    for number in range(options.rounds):
        for key in keys:
            work = scratch / "-".join(map(str, (number, *key)))
            found[key] += one_run({**shared, "work": str(work), "seed": number}, *key)
    return [summary(key, points) for key, points in found.items()]


def one_run(spec: Mapping[str, Any], ranks: int, way: str, engines: int) -> list[Mapping[str, float]]:
    """The timed updates of a run in its own processes.

    Raises:
        SystemExit: it failed.
    """
    how = [sys.executable]
    if ranks > 1:
        config = ["--config_file", str(FSDP)] if way == "sharded" else ["--multi_gpu", "--num_machines", "1"]
        how += ["-m", "accelerate.commands.launch", *config, "--mixed_precision", "no"]
        how += ["--dynamo_backend", "no", "--num_processes", str(ranks), "--main_process_port", "0"]
    command = [*how, __file__, "--rank-of", json.dumps(spec)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["E2H_ROLLOUT_ENGINES"] = str(engines)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    parts = [json.loads((Path(spec["work"]) / f"rank-{rank}.json").read_text()) for rank in range(ranks)]
    processor = [
        sum(points) for points in zip(*([p["processor"] for p in part] for part in parts), strict=True)
    ]
    return [{**point, "processor": total} for point, total in zip(parts[0], processor, strict=True)]


def summary(key: Key, points: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Medians."""
    named = {**PARTS, "processor": "processor"}
    medians = {name: statistics.median(p.get(field, 0.0) for p in points) for name, field in named.items()}
    return {"ranks": key[0], "way": key[1], "engines": key[2], **medians}


def _processor() -> float:
    """Processor seconds of this rank and of its engines."""
    return time.process_time() + sum(map(processor_seconds, descendants(os.getpid())))


def one_rank(spec: dict[str, Any]) -> None:
    """The run as one rank sees it: a line per timed update into the work folder."""
    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.rl.online.grpo import Grpo

    points: list[dict[str, float]] = []
    clock = [_processor()]

    class Heard(Reporter):
        def metrics(self, values: Mapping[str, float], step: int) -> None:
            now = _processor()
            points.append({**values, "processor": now - clock[0]})
            clock[0] = now

    folder = Path(spec["work"])
    folder.mkdir(parents=True, exist_ok=True)
    job = make_job(spec, make_options(spec), Work(folder / "out", folder / "work", spec["seed"], Heard()))
    Grpo().train(job)
    # Neither the first, which warms up, nor the last, which validates.
    (folder / f"rank-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(points[1:-1]))


if __name__ == "__main__":
    main()
