"""A large sample pool with a kill -9 in the middle: is it complete and the same as without the
kill?

    OMP_NUM_THREADS=1 python benchmarks/kill_sampling.py [--problems 500] [--samples 256] [--kills 1] [--seed 0]

The shipped ladder model answers LADDER500 twice, through the store, in processes of their own. One
run is killed `--kills` times, at moments drawn by the seed (share of shards done, and a part of a
second into the next), and continued each time; the other runs undisturbed. The benchmark compares
counts, checks that every (problem, sample) is there once, and compares data versions. `drawn` of
the last process and `reused` show the cost of the kill. A table for people, then one JSON line.

Raises SystemExit if anything is missing or differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from e2h_pipeline import models
from e2h_pipeline.artifacts.request import Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import read_table, table_files
from e2h_pipeline.recipe import Recipe

POLICY = Path(models.__file__).parent / "shipped" / "ladder-base"


def main() -> None:
    """Compare both runs; with --worker, make one run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(draw(options.worker, options.problems, options.samples)))
        return
    with tempfile.TemporaryDirectory() as folder:
        shards_left = kill(options, Path(folder) / "killed")
        runs = {name: finish(options, Path(folder) / name) for name in ("killed", "whole")}
    report(options, runs, shards_left)


def draw(home: Path, problems: int, samples: int) -> dict[str, Any]:
    """Make the pool, or its missing part, and count it part by part."""
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.generation.sample_pool import Drawing, sample_pool
    from e2h_pipeline.generation.search.independent import Independent
    from e2h_pipeline.problems.ladder.domain import LADDER
    from e2h_pipeline.problems.records import question_table
    from e2h_pipeline.problems.source import load_split

    recipe = Recipe.from_key(f"ladder/problems.benchmark_limit={problems}/sampling.samples={samples}")
    questions = question_table(load_split(recipe.problems).benchmark)

    def make(made: Draft) -> None:
        drawing = Drawing(POLICY, LADDER, recipe.sampling, "pool", Independent())
        made.summary = sample_pool(drawing, questions, Work(made.out / "data", made.work, recipe.seed))

    request = Request(
        "benchmark_samples", "benchmark", recipe.slice(["sampling"]).as_dict(), grows="sampling.samples"
    )
    artifact, _ = ArtifactStore(home).obtain(request, make)
    found: Counter[tuple[str, int]] = Counter()
    for part in table_files(artifact.path / "data"):
        rows = read_table(part, ["problem_id", "sample"]).to_pydict()
        found.update(zip(rows["problem_id"], rows["sample"], strict=True))
    wanted = {(name, i) for name in questions["problem_id"].to_pylist() for i in range(samples)}
    manifest = artifact.manifest
    return {
        "complete": found.keys() == wanted and set(found.values()) == {1},
        "rows": found.total(),
        "parts": len(manifest.files),
        "data_version": manifest.data_version,
        "seconds": manifest.wall_seconds,
        "peak_memory_bytes": manifest.peak_memory_bytes,
        **manifest.summary,
    }


def kill(options: argparse.Namespace, home: Path) -> list[int]:
    """Start and kill `--kills` times; the number of shards left by each kill."""
    chance = random.Random(options.seed)
    shards = shard_count(options)
    left: list[int] = []
    for share in sorted(chance.uniform(0.2, 0.8) for _ in range(options.kills)):
        with subprocess.Popen(command(options, home), stdout=subprocess.DEVNULL) as worker:
            while done(home) < share * shards:
                if worker.poll() is not None:
                    raise SystemExit(f"the run ended by itself, with status {worker.returncode}")
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.5))
            worker.kill()
        if any(home.glob("store/benchmark_samples/*")):
            raise SystemExit("the pool was made before the kill: ask for more samples")
        left.append(done(home))
        print(f"killed at {left[-1]} of {shards} shards", flush=True)
    return left


def finish(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Continue to the end in a new process."""
    found = subprocess.run(command(options, home), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(found.stdout.splitlines()[-1])


def command(options: argparse.Namespace, home: Path) -> list[str]:
    asked = ["--problems", str(options.problems), "--samples", str(options.samples), "--worker", str(home)]
    return [sys.executable, str(Path(__file__).resolve()), *asked]


def shard_count(options: argparse.Namespace) -> int:
    """Shards of the whole pool."""
    from e2h_pipeline.generation.sample_pool import sample_blocks

    sampling = Recipe.from_key("ladder").sampling
    blocks = len(sample_blocks(options.samples, sampling.shard_samples))
    return blocks * -(-options.problems // sampling.shard_questions)


def done(home: Path) -> int:
    """Shards on disk."""
    return len(list(home.glob("work/*/*/part-*.parquet")))


def report(options: argparse.Namespace, runs: dict[str, dict[str, Any]], left: list[int]) -> None:
    """The table, the JSON line.

    Raises:
        SystemExit: a pool is not complete, or the pools differ.
    """
    names = ("complete", "rows", "parts", "tokens", "unfinished", "no_answer", "drawn", "reused")
    costs = ("seconds", "tokens_per_second", "peak_memory_bytes", "data_version")
    print(f"{options.problems} problems x {options.samples}, killed {options.kills} time(s) at {left} shards")
    print(f"{'':20}" + "".join(f"{name:>20}" for name in runs))
    for name in (*names, *costs):
        values = [run[name] for run in runs.values()]
        shown = [str(v)[:16] if isinstance(v, bool | str) else f"{v:,}" for v in values]
        print(f"{name:20}" + "".join(f"{text:>20}" for text in shown))
    equal = runs["killed"]["data_version"] == runs["whole"]["data_version"]
    threads = os.environ.get("OMP_NUM_THREADS")
    print(f"data versions {'equal' if equal else 'DIFFER'}")
    print(json.dumps({"kill_sampling": runs, "shards_left": left, "equal": equal, "threads": threads}))
    if not equal or not all(run["complete"] for run in runs.values()):
        raise SystemExit("the pools are not complete and equal")


if __name__ == "__main__":
    main()
