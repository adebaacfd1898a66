"""Evaluators on the same steps that people labelled: the numbers of each, and paired differences.

    python benchmarks/real_arms.py KEY OTHER_KEY ... [--levels hard]

Keys of experiments in E2H_HOME whose evaluators were judged on labelled steps. The first is compared with
each other one on the solutions that all have judged, each at its own threshold, which its own easy
problems chose. `step_auroc_over` and `first_error_f1_over` are the first's minus the other's. Intervals
resample problems; another seed of a training is in none of them. A table for people, then one JSON
line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from e2h_pipeline.artifacts.home import home
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.evaluation.human_steps import EVALUATOR, HUMAN_SOLUTIONS, Judge, human_step_rows
from e2h_pipeline.evaluation.step_benchmarks.human_steps import HumanSolution
from e2h_pipeline.evaluation.step_benchmarks.process_bench import Threshold
from e2h_pipeline.orchestration.experiments import STEPS_STAGE, Experiments
from e2h_pipeline.orchestration.instance import open_to_read
from e2h_pipeline.statistics.bootstrap import Bootstrap
from resources.store import DagsterLedger

_METRICS = ("step_auroc", "step_auroc_over", "first_error_f1", "first_error_f1_over")
_EASY = (1, 2, 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("keys", nargs="+")
    parser.add_argument("--levels", nargs="+", default=["easy", "hard"])
    options = parser.parse_args()
    arms = [read_arm(key) for key in options.keys]
    common = sorted(set.intersection(*(set(rows) for rows, _ in arms)))
    solutions = [solution(arms[0][0][name]) for name in common]
    judges = {
        EVALUATOR if key is options.keys[0] else key: Judge(
            [rows[name]["scores"] for name in common], None if limit is None else Threshold(limit, 0.0, 0)
        )
        for key, (rows, limit) in zip(options.keys, arms, strict=True)
    }
    found = [
        row
        for row in human_step_rows(solutions, judges, _EASY, Bootstrap())
        if row["metric"] in _METRICS and row["levels"] in options.levels
    ]
    print(f"evaluator: {options.keys[0]}; {len(common):,} solutions that all have judged")
    for row in found:
        told = f"{row['value']:6.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
        print(f"  {row['source']:14}{row['levels']:6}{row['metric']:22}{told:26}{row['judge']}")
    print(json.dumps({"benchmark": "real_arms", "first": options.keys[0], "rows": found}))


def read_arm(key: str) -> tuple[dict[tuple[str, str], dict[str, Any]], float | None]:
    """The judged solutions of an experiment by source and id, and its threshold."""
    with open_to_read(home()) as instance:
        artifact = Experiments(DagsterLedger(instance), ArtifactStore(home())).artifact(STEPS_STAGE, key)
    rows = read_table(artifact.path / HUMAN_SOLUTIONS).to_pylist()
    return {(row["source"], row["id"]): row for row in rows}, artifact.manifest.summary["human_steps"][
        "thresholds"
    ][EVALUATOR]


def solution(row: dict[str, Any]) -> HumanSolution:
    """What the numbers need of a solution; its text is not kept."""
    steps: Sequence[float] = row["labels"]
    return HumanSolution(
        source=row["source"],
        identity=row["id"],
        problem=row["problem_id"],
        level=row["level"],
        question="",
        completion="",
        finished=False,
        segments=tuple((i,) for i in range(len(steps))),
        labels=tuple(steps),
        complete=row["complete"],
    )


if __name__ == "__main__":
    main()
