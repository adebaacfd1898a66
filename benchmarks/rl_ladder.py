"""The ladder's tables of reinforcement learning: methods, shaping schemes, curricula.

    OMP_NUM_THREADS=1 python benchmarks/rl_ladder.py {methods,table2,shaping,curricula,lora}
        [--seeds 21,22,23] [--rows PPO GRPO] [--collect]

A row is a recipe key per seed: `ladder/problems.seed=S/seed=S` with the row's own overrides. Keys
that are missing in the store (E2H_HOME) are run like `e2h run KEY --select +benchmark_metrics`;
shared stages are made once. With --collect nothing is run, and rows that were never run are left
out.

Accuracy is greedy, in % of LADDER500: a mean over seeds with a 95% interval over seeds and problems
(statistics/seeds.py); hard levels are also shown seed by seed. Differences are paired by seed and
problem, with the table's baseline or the row that the line names; they are told from five seeds on,
with Holm's p-values over the table. On hard levels PGR is (row - SFT) / (ceiling - SFT), told where
the gap is apart from 0. Checkpoints are chosen on easy validation. KL is to the SFT
policy, per token, at the chosen checkpoint and at its highest. An error is the first one of a
solution of a hard question, over all seeds, also if the answer is right. It is a fact (the next
operation with a wrong result) or belongs to the rest (an operand that is skipped, repeated or
miscopied, or an answer that is not the last result). A table for people, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.artifacts.request import StoreError
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.evaluation.pooling import untold
from e2h_pipeline.evaluation.scoreboard import Method, read_values
from e2h_pipeline.problems.ladder.checker import step_labels
from e2h_pipeline.problems.ladder.world import parse_question
from e2h_pipeline.recipe import Recipe, canonical_key
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.levels import level_groups
from e2h_pipeline.statistics.multiple import holm
from e2h_pipeline.statistics.seeds import LEAST_SEEDS, SeedIntervals, seed_intervals, seed_ratio

if TYPE_CHECKING:
    from e2h_pipeline.orchestration.experiments import Experiments

SELECT = "+benchmark_metrics"
GROUPS = ("easy", "hard", "all")
GREEDY, SFT_GREEDY = Method("rl", "greedy", 1), Method("sft", "greedy", 1)

EASY = ("rl.questions=easy",)
NO_STEP_REWARDS, NO_EVALUATOR = ("rl.process_scale=0",), ("rl.evaluator_agrees=false",)  # PPO and GRPO; DPO
OUTCOME_ONLY = (*NO_STEP_REWARDS, *EASY)
# Chosen on seeds 1 and 2 by easy validation and KL (docs/log.md); without the evaluator the
# recipe's own rate holds.
GRPO = ("rl.algorithm=grpo", "rl.kl=0.2", "rl.learning_rate=2e-4", "rl.step_bonus=0")
SOFT_MINIMUM = ("rl.shaping=soft_minimum",)
# Chosen on seed 1, in the same way; the model is 64 wide.
LORA = ("rl.learning_rate=3e-3", "rl.lora_rank=8", "rl.value_learning_rate=3e-3")
REST, DPO = ("rl.algorithm=rest",), ("rl.algorithm=dpo",)
# Three rounds on all questions draw as many solutions as five rounds on easy ones. PPO and GRPO
# draw the same number in both cases.
DPO_ALL = (*DPO, "rl.rounds=3")
# The paper's dagger rows: reinforcement learning on hard questions with their answers. Not strict.
ALL_ANSWERS = ("problems.hard_answers=true", "strict=false")
HARD_ANSWERS = (*ALL_ANSWERS, "rl.questions=hard")

Estimate = tuple[float, float, float]
Values = Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """One line of a table: recipe, overrides, the policy and method whose answers count, and the
    row to compare with if it is not the table's baseline."""

    name: str
    overrides: tuple[str, ...] = ()
    against: str = ""
    recipe: str = "ladder"
    method: Method = GREEDY

    def key(self, seed: int) -> str:
        """The recipe key of one seed."""
        return canonical_key(
            "/".join([self.recipe, f"problems.seed={seed}", f"seed={seed}", *self.overrides])
        )


@dataclass(frozen=True)
class Table:
    """Rows in order, and the names of two rows: the baseline and, if there is one, the ceiling of
    PGR."""

    rows: tuple[Row, ...]
    baseline: str
    ceiling: str = ""


REST_EASY, DPO_EASY, PPO_EASY, GRPO_EASY = (
    f"{name}, easy outcome only" for name in ("ReST-EM", "DPO", "PPO", "GRPO")
)

DPO_EASY_PRM = "DPO, easy questions, PRM"

SFT = Row("SFT", method=SFT_GREEDY)
CEILING = Row("ceiling: PPO, all levels supervised", recipe="ladder-ceiling")

TABLES = {
    "methods": Table(
        (
            SFT,
            Row(REST_EASY, (*REST, *EASY)),
            Row(DPO_EASY, (*DPO, *NO_EVALUATOR, *EASY)),
            Row(PPO_EASY, OUTCOME_ONLY),
            Row(GRPO_EASY, ("rl.algorithm=grpo", *OUTCOME_ONLY)),
            Row("GRPO, easy outcome only, slow", (*GRPO, *OUTCOME_ONLY)),
            Row("DPO, all questions, PRM", DPO_ALL, DPO_EASY),
            Row("PPO, all questions, PRM", (), PPO_EASY),
            Row("PPO, easy questions, PRM, soft minimum", (*EASY, *SOFT_MINIMUM), PPO_EASY),
            Row("PPO, all questions, PRM, soft minimum", SOFT_MINIMUM, PPO_EASY),
            Row("GRPO, all questions, PRM", GRPO, GRPO_EASY),
            Row("control: ReST-EM, all answers", (*REST, *ALL_ANSWERS), REST_EASY),
            Row("control: DPO, all answers", (*DPO_ALL, *NO_EVALUATOR, *ALL_ANSWERS), DPO_EASY),
            Row("control: PPO, all answers", (*NO_STEP_REWARDS, *ALL_ANSWERS), PPO_EASY),
            CEILING,
        ),
        baseline=SFT.name,
        ceiling=CEILING.name,
    ),
    # The rows of docs/rl.md and one more. DPO on all questions has five rounds, as in the paper.
    "table2": Table(
        (
            SFT,
            Row(REST_EASY, (*REST, *EASY)),
            Row("control: ReST-EM, hard answers", (*REST, *HARD_ANSWERS), REST_EASY),
            Row("control: ReST-EM, all answers", (*REST, *ALL_ANSWERS), REST_EASY),
            Row("ReST-EM, all questions, PRM", REST, REST_EASY),
            Row(DPO_EASY_PRM, (*DPO, *EASY)),
            Row(
                "control: DPO, all answers, PRM",
                (*DPO, *ALL_ANSWERS),
                DPO_EASY_PRM,
            ),
            Row(PPO_EASY, OUTCOME_ONLY),
            Row("control: PPO, hard answers", (*NO_STEP_REWARDS, *HARD_ANSWERS), PPO_EASY),
            Row("control: PPO, all answers", (*NO_STEP_REWARDS, *ALL_ANSWERS), PPO_EASY),
            Row("PPO, all questions, PRM", (), PPO_EASY),
            CEILING,
        ),
        baseline=SFT.name,
        ceiling=CEILING.name,
    ),
    "shaping": Table(
        (
            SFT,
            Row("running_minimum"),
            *(
                Row(scheme, (f"rl.shaping={scheme}",))
                for scheme in (
                    "running_product",
                    "soft_minimum",
                    "strict_minimum",
                    "delta",
                    "clip",
                    "first_error",
                    "sum",
                )
            ),
        ),
        baseline="running_minimum",
    ),
    "curricula": Table(
        (
            SFT,
            Row("uniform"),
            Row("easy_to_hard", ("rl.curriculum.kind=easy_to_hard",)),
            Row("learning_progress", ("rl.curriculum.kind=learning_progress",)),
        ),
        baseline="uniform",
    ),
    "lora": Table(
        (SFT, Row("PPO, all weights"), Row("PPO, LoRA of rank 8", LORA)),
        baseline="PPO, all weights",
    ),
}


def main() -> None:
    """Run what is missing, then one table and one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--seeds", default="21,22,23", help="comma-separated")
    parser.add_argument("--rows", nargs="+", default=[""], help="beginnings of row names to run")
    parser.add_argument("--collect", action="store_true", help="run nothing, tell what there is")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    table = TABLES[options.table]
    failed = [] if options.collect else run_missing(table, seeds, options.rows)
    found = measure(table, seeds)
    lines = describe(table, found)
    show(options.table, table, lines)
    for failure in failed:
        print(f"FAILED {failure}")
    print(json.dumps({"benchmark": "rl_ladder", "table": options.table, "rows": lines}))
    if failed:
        sys.exit(1)


def run_missing(table: Table, seeds: Sequence[int], beginnings: Sequence[str]) -> list[str]:
    """Run the keys of a table one after another, through Dagster and the store; the failed keys
    with their errors."""
    from e2h_pipeline.operations.runner import RunError, run_experiment

    rows = [row for row in table.rows if any(row.name.startswith(name) for name in beginnings)]
    keys = list(dict.fromkeys(row.key(seed) for row, seed in product(rows, seeds)))
    failed, began = [], time.monotonic()
    for number, key in enumerate(keys, start=1):
        started = time.monotonic()
        try:
            run_experiment(key, home(), SELECT, lambda _: None)
        except RunError as error:  # keep the other rows; the failure is shown at the end
            failed.append(f"{key}: {error}")
        now = time.monotonic()
        left = (now - began) / number * (len(keys) - number)
        print(
            f"[{number}/{len(keys)}] {key}: {now - started:.0f} s, about {left / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )
    return failed


@dataclass
class Measured:
    """The results of one row in the store, by seed.

    Attributes:
        values: problem id to 1 if the answer is right, else 0.
        training: summary of the policy artifact, with `kl`, `highest_kl` and `seconds`; empty for
            rows without a trained policy.
        easy_data: data version of the easy problems.
        errors: number of solutions of hard questions by their first error: `fact` or `operand`.
    """

    row: Row
    values: dict[int, Values] = field(default_factory=dict)
    training: dict[int, dict[str, Any]] = field(default_factory=dict)
    easy_data: dict[int, str] = field(default_factory=dict)
    levels: dict[str, int] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)


def measure(table: Table, seeds: Sequence[int]) -> list[Measured]:
    """Rows with results for at least one seed."""
    from e2h_pipeline.orchestration.experiments import Experiments
    from e2h_pipeline.orchestration.instance import open_instance
    from resources.store import DagsterLedger

    with open_instance(home()) as instance:
        experiments = Experiments(DagsterLedger(instance), ArtifactStore(home()))
        found = [_measured(experiments, row, seeds) for row in table.rows]
    return [row for row in found if row.values]


def _measured(experiments: Experiments, row: Row, seeds: Sequence[int]) -> Measured:
    found = Measured(row)
    for seed in seeds:
        key = row.key(seed)
        try:
            metrics = experiments.artifact("benchmark_metrics", key)
        except StoreError:
            print(f"{row.name}: nothing yet of {key}", file=sys.stderr)
            continue
        table = read_table(metrics.path / "values.parquet")
        found.levels = dict(zip(table["problem_id"].to_pylist(), table["level"].to_pylist(), strict=True))
        found.values[seed] = read_values(table)[row.method]
        found.easy_data[seed] = experiments.artifact("easy_problems", key).data_version
        found.errors.update(_first_errors(experiments, key, row.method.policy))
        if row.method.policy == "rl":
            found.training[seed] = _training(experiments, key)
    return found


def _training(experiments: Experiments, key: str) -> dict[str, Any]:
    """How the policy was trained: the algorithm's summary, KL from its curves, and its time."""
    policy = experiments.artifact("rl_policy", key)
    summary = policy.manifest.summary
    curves = _curves(policy.path / "curves.jsonl")
    divergence = {line["update"]: line["kl"] for line in curves if "kl" in line}
    return {
        **{name: summary.get(name) for name in ("best_update", "easy_validation_accuracy", "stopped")},
        "kl": divergence.get(summary.get("best_update")),
        "highest_kl": max(divergence.values(), default=None),
        "seconds": policy.manifest.wall_seconds,
    }


def _first_errors(experiments: Experiments, key: str, policy: str) -> Iterator[str]:
    """Kinds of the first errors in greedy solutions of hard questions."""
    table = read_table(experiments.artifact("benchmark_questions", key).path / "data.parquet")
    easy = Recipe.from_key(key, recipe_folders(home())).evaluation.easy_levels
    questions = {row["problem_id"]: row["question"] for row in table.to_pylist() if row["level"] not in easy}
    answers = experiments.artifact(f"{policy}_answers", key).path / "greedy"
    for row in read_table(answers, ["problem_id", "completion"]).to_pylist():
        question = questions.get(row["problem_id"], "")
        if question and (labels := step_labels(question, row["completion"])) and 0 in labels:
            place = labels.index(0)
            written, right = MARKED.parse(row["completion"]).steps, parse_question(question).true_steps()
            same = place < min(len(written), len(right)) and written[place][:-1] == right[place][:-1]
            yield "fact" if same else "operand"


def _curves(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]


def describe(table: Table, found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Estimates of every row, ready for JSON: accuracy and difference by level group, PGR,
    training."""
    by_name = {measured.row.name: measured for measured in found}
    ceiling, sft = by_name.get(table.ceiling), by_name.get(SFT.name)
    options = Recipe.from_key("ladder", recipe_folders(home())).evaluation
    bootstrap = Bootstrap(options.bootstrap, options.confidence)
    lines = []
    for measured in found:
        problems = sorted(measured.levels)
        levels = np.array([measured.levels[problem] for problem in problems])
        masks = level_groups(levels, options.easy_levels)
        line: dict[str, Any] = {
            "row": measured.row.name,
            "seeds": sorted(measured.values),
            "accuracy": {},
            "hard_by_seed": {},
            "against": measured.row.against or table.baseline,
            "difference": {},
            "p_value": {},
            "holm": {},
            "training": measured.training,
            "errors": measured.errors,
            "easy_data": measured.easy_data,
        }
        seeds = sorted(measured.values)
        own = _values(measured, seeds, problems)
        for group in GROUPS:
            found_here = seed_intervals(own[:, masks[group], None], bootstrap, (0, 1))
            line["accuracy"][group] = _estimate(found_here)
            if group == "hard":
                line["hard_by_seed"] = dict(zip(seeds, found_here.by_seed[:, 0].tolist(), strict=True))
        baseline = by_name.get(line["against"])
        if (
            baseline
            and baseline is not measured
            and len(shared := _shared(measured, baseline)) >= LEAST_SEEDS
        ):
            gain = _values(measured, shared, problems) - _values(baseline, shared, problems)
            for group in GROUPS:
                difference = seed_intervals(gain[:, masks[group], None], bootstrap, (-1, 1))
                line["difference"][group] = _estimate(difference)
                line["p_value"][group] = float(difference.p_value[0])
        if ceiling and sft and measured not in (sft, ceiling) and (shared := _shared(measured, ceiling, sft)):
            weak, ours, full = (
                _values(m, shared, problems)[:, masks["hard"]] for m in (sft, measured, ceiling)
            )
            if (recovered := seed_ratio(ours - weak, full - weak, bootstrap)) is not None:
                line["pgr"] = recovered
        lines.append(line)
    compared = [(line, group) for line in lines for group in line["p_value"]]
    adjusted = holm([line["p_value"][group] for line, group in compared])
    for (line, group), p in zip(compared, adjusted, strict=True):
        line["holm"][group] = p
    return lines


def _shared(*rows: Measured) -> list[int]:
    """Seeds that all rows have, so that pairs have the same problems and the same SFT policies."""
    return sorted(set.intersection(*(set(row.values) for row in rows)))


def _values(row: Measured, seeds: Sequence[int], problems: Sequence[str]) -> NDArray[Any]:
    """(seeds, problems); every seed has the same problems (`collect`)."""
    return np.array([[row.values[seed][problem] for problem in problems] for seed in seeds])


def _estimate(found: SeedIntervals) -> Estimate:
    return float(found.mean[0]), float(found.low[0]), float(found.high[0])


def show(name: str, table: Table, lines: Sequence[Mapping[str, Any]]) -> None:
    """The table as markdown."""
    seeds = sorted({seed for line in lines for seed in line["seeds"]})
    print(f"{name}: greedy accuracy in %, mean over seeds {', '.join(map(str, seeds))}")
    heads = [
        "row",
        *GROUPS,
        "hard by seed",
        f"hard - {table.baseline}",
        *(["PGR"] if table.ceiling else []),
        "easy validation",
        "best update",
        "KL (highest)",
        "seconds",
        "errors: facts + rest",
    ]
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    notes = []
    for line in lines:
        partial = "" if line["seeds"] == seeds else f" (seeds {', '.join(map(str, line['seeds']))})"
        cells = [line["row"] + partial, *(_percent(line["accuracy"][group]) for group in GROUPS)]
        cells.append("/".join(f"{100 * value:.1f}" for value in line["hard_by_seed"].values()))
        gain = _percent(line["difference"].get("hard"), signed=True)
        gain += f" p {line['holm']['hard']:.3f}" if gain else ""
        cells.append(
            gain if line["against"] == table.baseline or not gain else f"{gain} to {line['against']}"
        )
        if table.ceiling:
            cells.append(_interval(line["pgr"], ".2f") if "pgr" in line else "")
        trained = list(line["training"].values())
        cells.append(_each(trained, "easy_validation_accuracy", ".2f"))
        cells.append(_each(trained, "best_update", "d"))
        highest = _each(trained, "highest_kl", ".3f")
        cells.append(f"{_each(trained, 'kl', '.3f')} ({highest})" if highest else "")
        cells.append(_each(trained, "seconds", ".0f"))
        cells.append(f"{line['errors']['fact']} + {line['errors']['operand']}")
        print("| " + " | ".join(cells) + " |")
        notes += [
            f"{line['row']}, seed {seed}, stopped: {training['stopped']}"
            for seed, training in line["training"].items()
            if training["stopped"]
        ]
    for note in notes:
        print(note)
    if any(untold(len(line["seeds"])) for line in lines):
        print(untold(min(len(line["seeds"]) for line in lines)))
    print(f"p after Holm for the {sum(len(line['p_value']) for line in lines)} comparisons of this table")


def _percent(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None:
        return ""
    return _interval([100 * value for value in estimate], "+.1f" if signed else ".1f")


def _interval(estimate: Sequence[float], spec: str) -> str:
    value, low, high = (format(value, spec) for value in estimate)
    return f"{value} [{low}, {high}]"


def _each(trained: Sequence[Mapping[str, Any]], name: str, spec: str) -> str:
    """A number per seed, joined by slashes; empty if no seed has it."""
    values = [training.get(name) for training in trained]
    if all(value is None for value in values):
        return ""
    return "/".join("-" if value is None else format(value, spec) for value in values)


if __name__ == "__main__":
    main()
