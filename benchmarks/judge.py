"""Judge an evaluator on ProcessBench and PRMBench files.

    python benchmarks/judge.py EVALUATOR --labels EASY_STEP_LABELS --out FOLDER \\
        [--process-bench FILE] [--prm-bench FILE] [--seed 0]

EVALUATOR is a folder that `load_evaluator` reads: one of ours, or a published model with an
`evaluator.json`. The threshold is chosen on the validation part of the artifact EASY_STEP_LABELS.
PRMBench is judged at a threshold of one half, as by its authors. Files are JSON lines, plain or
gzipped. Tables for people, then one JSON line; Parquet goes to the folder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.step_benchmarks.prm_bench import judge_prm_bench
from e2h_pipeline.evaluation.step_benchmarks.process_bench import METRICS, judge_process_bench
from e2h_pipeline.evaluation.step_benchmarks.step_solutions import StepJudge
from e2h_pipeline.statistics.bootstrap import Bootstrap


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("evaluator", type=Path)
    parser.add_argument("--labels", type=Path, help="easy_step_labels artifact; needed for ProcessBench")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--process-bench", type=Path)
    parser.add_argument("--prm-bench", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-tokens", type=int, default=65536)
    options = parser.parse_args()
    if options.process_bench and not options.labels:
        parser.error("--process-bench needs --labels: the threshold comes from easy validation")
    bootstrap, work = Bootstrap(seed=options.seed), Work(options.out, options.out)
    judge = StepJudge.load(options.evaluator, batch_tokens=options.batch_tokens)
    line: dict[str, object] = {"evaluator": options.evaluator.name}
    if options.process_bench:
        found = judge_process_bench(judge, options.process_bench, options.labels, bootstrap, work)
        print(
            f"ProcessBench at threshold {found['threshold']:.3f} (easy validation F1 {found['validation_f1']:.3f})"
        )
        for metric in METRICS:
            print(f" {metric}")
            show(found[metric])
        line["process_bench"] = found
    if options.prm_bench:
        found = judge_prm_bench(judge, options.prm_bench, 0.5, bootstrap, work)
        print("PRMBench, PRMScore at threshold 0.5")
        show(found["prm_score"])
        line["prm_bench"] = found
    print(json.dumps(line))


def show(groups: dict[str, list[float]]) -> None:
    """A line per group: value and interval."""
    for name, (value, low, high) in groups.items():
        print(f"  {name:24}{value:7.3f}  [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
