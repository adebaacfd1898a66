"""The ladder's tables of label sources that train an evaluator: what few, weak or made labels are worth.

    OMP_NUM_THREADS=1 python benchmarks/label_sources.py {active,weak_to_strong,non_causal}
        [--seeds 21,22,23] [--rows active ...] [--collect]

A row is a recipe key per seed: `ladder/problems.seed=S/seed=S/sampling.samples=16` with the row's own
overrides. Keys that are missing in the store (E2H_HOME) are run up to the evaluator and its scores of
the benchmark's samples; shared stages are made once. With --collect nothing is run. About a minute of
processor time for a seed's shared stages, and 20 to 60 seconds for a row (2 cores, no GPU).

Every evaluator judges the same 16 samples of each LADDER500 question by the SFT policy. The exact
checker tells which steps are right: an audit, nothing learns from it. Told by level group, as means
over seeds with 95% intervals over seeds and problems (statistics/seeds.py):

- step accuracy: share of steps, up to the first error, that the evaluator calls as they are, at
  probability one half
- step AUROC; its interval is over seeds alone
- best-of-16 accuracy by the product of step probabilities

PGR is (row - weak) / (ceiling - weak) of one of these, told where the gap is apart from 0. `agreement` is
the share of the weak evaluator's wrong calls that the row repeats. A table for people, then one JSON
line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
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
from e2h_pipeline.evaluation.label_efficiency import efficiency
from e2h_pipeline.problems.ladder.checker import step_labels
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import Recipe, canonical_key
from e2h_pipeline.reranking.aggregate import step_probabilities
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.levels import level_groups
from e2h_pipeline.statistics.ranking import auroc
from e2h_pipeline.statistics.seeds import seed_intervals, seed_ratio
from e2h_pipeline.supervision.once import step_keys

if TYPE_CHECKING:
    from e2h_pipeline.artifacts.request import Artifact
    from e2h_pipeline.orchestration.experiments import Experiments

SELECT = "+rerank_scores,gold_answers"
SAMPLES = 16
MEASURES = ("step accuracy", "best-of-16")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        overrides: of the key.
        teacher: judge by this evaluator of the label source, not by the one that learned from it.
        labels: labels that it is counted under in the curve of its arm.
        arm: name of its curve of accuracy over labels.
    """

    name: str
    overrides: tuple[str, ...]
    teacher: str = ""
    arm: str = ""

    def key(self, seed: int) -> str:
        """The recipe key of one seed."""
        parts = ["ladder", f"problems.seed={seed}", f"seed={seed}", f"sampling.samples={SAMPLES}"]
        return canonical_key("/".join([*parts, *self.overrides]))


@dataclass(frozen=True)
class Table:
    """Rows in order; names of the weak row and of the ceiling of PGR, if there are such; and the level groups."""

    rows: tuple[Row, ...]
    weak: str = ""
    ceiling: str = ""


BUDGETS = (300, 600, 1200, 2400)
# Not tuned: the smallest budget must leave something to choose.
FIRST_LESSON = "labels.selector_problems=50"
WEAK = ("labels.source=weak_to_strong",)
CONFIDENT = ("reward.kind=weak_to_strong",)
RELEASED = (*CONFIDENT, "reward.schedule=jump", "reward.confidence_warmup=0.1")
TRUTH, FLIPS, RULE = (("labels.labeller=" + word,) for word in ("truth", "flips", "simulable"))
FEW = ("labels.budget=300",)
NON_CAUSAL = ("labels.source=non_causal", *FEW)


def _active(selection: str, budget: int, *more: str) -> Row:
    overrides = ("labels.source=active", f"labels.selection={selection}", f"labels.budget={budget}")
    name = " ".join([selection, *(text.partition(".")[2] for text in more), str(budget)])
    first = (FIRST_LESSON,) if selection == "active" else ()
    return Row(name, (*overrides, *first, *more), arm=" ".join(name.split()[:-1]))


TABLES = {
    "active": Table(
        (
            *(_active("uniform", budget) for budget in BUDGETS),
            *(_active("active", budget) for budget in BUDGETS),
            _active("active", 1200, "labels.rounds=3"),
            _active("active", 1200, "labels.convincing=0.5"),
            Row("all labels", ()),
        )
    ),
    "weak_to_strong": Table(
        (
            Row("weak (2 layers)", WEAK, teacher="weak"),
            Row("naive student", WEAK),
            Row("confidence loss", (*WEAK, *CONFIDENT)),
            Row(
                "confidence loss, released code",
                (*WEAK, *RELEASED),
            ),
            Row("bootstrapping through 3 layers", (*WEAK, "labels.middle=3")),
            Row("naive, no pretraining", (*WEAK, "reward.training.init=random")),
            Row("ceiling: truth of the same rows", (*WEAK, *TRUTH)),
            Row("easy-to-hard form, naive", (*WEAK, "labels.form=hard")),
            Row("easy-to-hard form, confidence loss", (*WEAK, "labels.form=hard", *CONFIDENT)),
            Row("errors at random", (*WEAK, *FLIPS)),
            Row("errors by a rule", (*WEAK, *RULE)),
        ),
        weak="weak (2 layers)",
        ceiling="ceiling: truth of the same rows",
    ),
    "non_causal": Table(
        (
            Row("few labels alone", ("labels.source=active", "labels.selection=uniform", *FEW)),
            Row("causal labeller", (*NON_CAUSAL, "labels.causal=true", "labels.known_answer=false")),
            Row("causal labeller, sees the answer", (*NON_CAUSAL, "labels.causal=true")),
            Row("non-causal labeller", (*NON_CAUSAL, "labels.known_answer=false")),
            Row("non-causal labeller, sees the answer", NON_CAUSAL),
            Row("Monte-Carlo labels", ("labels.source=monte_carlo",)),
            Row("all labels", ()),
        ),
        weak="few labels alone",
        ceiling="all labels",
    ),
}


@dataclass
class Judged:
    """What an evaluator says of the benchmark's samples in one seed.

    Attributes:
        calls: whether each step that has a true label is called right, and `truth`; both with `problem`, its row.
        values: measure to one value per problem; nan where a problem has no step to judge.
    """

    scores: Array
    truth: NDArray[np.bool_]
    problem: NDArray[np.int64]
    values: dict[str, Array]

    @property
    def calls(self) -> NDArray[np.bool_]:
        """Steps that are called right."""
        return self.scores >= 0.5


@dataclass
class Measured:
    """A row in the store, by seed."""

    row: Row
    judged: dict[int, Judged] = field(default_factory=dict)
    labels: dict[int, dict[str, Any]] = field(default_factory=dict)
    levels: list[int] = field(default_factory=list)


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
    seeds, table = [int(seed) for seed in options.seeds.split(",")], TABLES[options.table]
    failed = [] if options.collect else run_missing(table, seeds, options.rows)
    lines = describe(table, measure(table, seeds))
    show(options.table, table, lines)
    for failure in failed:
        print(f"FAILED {failure}")
    print(json.dumps({"benchmark": "label_sources", "table": options.table, "rows": lines}))
    if failed:
        sys.exit(1)


def run_missing(table: Table, seeds: Sequence[int], beginnings: Sequence[str]) -> list[str]:
    """Run the keys of a table one after another; the failed keys with their errors."""
    from e2h_pipeline.operations.runner import RunError, run_experiment

    rows = [row for row in table.rows if any(row.name.startswith(name) for name in beginnings)]
    keys = list(dict.fromkeys(row.key(seed) for seed, row in product(seeds, rows)))
    failed = []
    for number, key in enumerate(keys, start=1):
        started = time.monotonic()
        try:
            run_experiment(key, home(), SELECT, lambda _: None)
        except RunError as error:  # keep the other rows; the failure is shown at the end
            failed.append(f"{key}: {error}")
        print(
            f"[{number}/{len(keys)}] {key}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True
        )
    return failed


def measure(table: Table, seeds: Sequence[int]) -> list[Measured]:
    """Rows with results for at least one seed."""
    from e2h_pipeline.orchestration.experiments import Experiments
    from e2h_pipeline.orchestration.instance import open_instance
    from resources.store import DagsterLedger

    found = [Measured(row) for row in table.rows]
    with open_instance(home()) as instance:
        experiments = Experiments(DagsterLedger(instance), ArtifactStore(home()))
        for measured, seed in product(found, seeds):
            _add(experiments, measured, seed)
    return [measured for measured in found if measured.judged]


def _add(experiments: Experiments, measured: Measured, seed: int) -> None:
    key = measured.row.key(seed)
    try:
        scored = experiments.artifact("rerank_scores", key)
    except StoreError:
        print(f"{measured.row.name}: nothing yet of {key}", file=sys.stderr)
        return
    labels = experiments.artifact("easy_step_labels", key)
    samples = experiments.artifact("benchmark_samples", key).path / "data"
    questions = _rows(experiments.artifact("benchmark_questions", key))
    gold = {row["problem_id"]: row["answer"] for row in _rows(experiments.artifact("gold_answers", key))}
    pool = read_table(samples).to_pylist()
    if measured.row.teacher:
        asked = {row["problem_id"]: row["question"] for row in questions}
        logits = _by_teacher(labels.path / "source-0" / measured.row.teacher, pool, asked)
    else:
        table = read_table(scored.path / "data").to_pylist()
        found = {(row["problem_id"], row["sample"]): row["step_logits"] for row in table}
        logits = [found[row["problem_id"], row["sample"]] for row in pool]
    measured.levels = [row["level"] for row in questions]
    measured.judged[seed] = judge(pool, logits, questions, gold)
    measured.labels[seed] = _labels(labels)


def _rows(artifact: Artifact) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_table(artifact.path / "data.parquet").to_pylist()
    return sorted(found, key=lambda row: str(row["problem_id"]))


def _by_teacher(
    evaluator: Path, pool: Sequence[Mapping[str, Any]], asked: Mapping[str, str]
) -> list[list[float]]:
    from e2h_pipeline.models.load import load_evaluator
    from e2h_pipeline.rewards.scoring import score_solutions

    solutions = [(asked[r["problem_id"]], r["completion"], r["finish_reason"] == "stop") for r in pool]
    return score_solutions(*load_evaluator(evaluator), solutions, text=LADDER.text)


def _labels(artifact: Artifact) -> dict[str, Any]:
    """Counts of labels, the source's own evaluators, and how made labels of easy solutions compare with the truth."""
    summary = artifact.manifest.summary
    rows = read_table(artifact.path / "data.parquet").to_pylist()
    train = [row for row in rows if row["split"] == "train"]
    steps = {
        step
        for row in train
        for step, label in zip(step_keys(row, LADDER.text), row["labels"], strict=True)
        if label >= 0
    }
    counts = ("training_labels_bought", "labels_bought", "labels_made", "wrong_labels")
    told = {name: summary[name] for name in counts if name in summary}
    right = total = 0
    for row in train:
        truth = step_labels(row["question"], row["completion"])
        for label, true in zip(row["labels"], truth, strict=True):
            if label >= 0 and true >= 0:
                total += 1
                right += (label >= 0.5) == (true == 1)
    return {
        "labels": len(steps),
        **told,
        "label_accuracy": right / max(total, 1),
        "teachers": summary.get("teachers", {}),
    }


def judge(
    pool: Sequence[Mapping[str, Any]],
    logits: Sequence[Sequence[float]],
    questions: Sequence[Mapping[str, Any]],
    gold: Mapping[str, str],
) -> Judged:
    """An evaluator's calls beside the truth."""
    place = {row["problem_id"]: i for i, row in enumerate(questions)}
    scores, truth, problem = [], [], []
    best: list[list[tuple[float, bool]]] = [[] for _ in questions]
    for row, own in zip(pool, logits, strict=True):
        i = place[row["problem_id"]]
        steps = step_probabilities(np.array(own))
        labels = step_labels(questions[i]["question"], row["completion"])
        for p, label in zip(steps, labels, strict=True):
            if label >= 0:
                scores.append(float(p))
                truth.append(label == 1)
                problem.append(i)
        answer = LADDER.answer_of(row["completion"], row["finish_reason"] == "stop")
        best[i].append((float(np.prod(steps)) if len(steps) else 0.0, answer == gold[row["problem_id"]]))
    found = Judged(np.array(scores), np.array(truth), np.array(problem), {})
    agree = (found.calls == found.truth).astype(float)
    counts = np.bincount(found.problem, minlength=len(questions))
    sums = np.bincount(found.problem, weights=agree, minlength=len(questions))
    found.values["step accuracy"] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    found.values["best-of-16"] = np.array([_best(own) for own in best])
    return found


def _best(scored: Sequence[tuple[float, bool]]) -> float:
    """Share of right answers among the samples with the highest score."""
    top = max(score for score, _ in scored)
    ties = [right for score, right in scored if score == top]
    return sum(ties) / len(ties)


def describe(table: Table, found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Estimates of every row, ready for JSON."""
    by_name = {measured.row.name: measured for measured in found}
    options = Recipe.from_key("ladder", recipe_folders(home())).evaluation
    bootstrap = Bootstrap(options.bootstrap, options.confidence)
    lines = []
    for measured in found:
        groups = level_groups(np.array(measured.levels), options.easy_levels)
        line: dict[str, Any] = {
            "row": measured.row.name,
            "arm": measured.row.arm,
            "seeds": sorted(measured.judged),
            "labels": measured.labels,
            **{name: {} for name in (*MEASURES, "step AUROC", "pgr")},
            "hard_by_seed": {},
        }
        for group, mask in groups.items():
            for name in MEASURES:
                line[name][group] = _interval(_stack(measured, name, mask), bootstrap)
            line["step AUROC"][group] = _interval(_aurocs(measured, mask), bootstrap)
            for name in MEASURES:
                if told := _recovered(table, by_name, measured, (name, mask), bootstrap):
                    line["pgr"].setdefault(name, {})[group] = told
        for name in MEASURES:
            values = np.nanmean(_stack(measured, name, groups["hard"]), axis=1)
            line["hard_by_seed"][name] = [round(float(value), 4) for value in values]
        if table.weak in by_name and measured.row.name != table.weak:
            line["agreement"] = _agreement(by_name[table.weak], measured)
        lines.append(line)
    return lines


def _stack(measured: Measured, name: str, mask: NDArray[np.bool_]) -> Array:
    """(seeds, problems); a problem that one seed has no value for is left out."""
    values = np.array([measured.judged[seed].values[name][mask] for seed in sorted(measured.judged)])
    return values[:, ~np.isnan(values).any(axis=0)]


def _aurocs(measured: Measured, mask: NDArray[np.bool_]) -> Array:
    """(seeds, 1)"""
    found = []
    for seed in sorted(measured.judged):
        own = measured.judged[seed]
        kept = mask[own.problem]
        found.append([auroc(own.scores[kept], own.truth[kept])])
    return np.array(found, dtype=float)


def _interval(values: Array, bootstrap: Bootstrap) -> tuple[float, float, float]:
    found = seed_intervals(values[:, :, None], bootstrap, (0, 1))
    return float(found.mean[0]), float(found.low[0]), float(found.high[0])


def _recovered(
    table: Table,
    by_name: Mapping[str, Measured],
    measured: Measured,
    part: tuple[str, NDArray[np.bool_]],
    bootstrap: Bootstrap,
) -> tuple[float, float, float] | None:
    weak, ceiling = by_name.get(table.weak), by_name.get(table.ceiling)
    if not weak or not ceiling or measured in (weak, ceiling):
        return None
    seeds = sorted(set(weak.judged) & set(ceiling.judged) & set(measured.judged))
    name, mask = part
    low, own, full = (
        np.array([m.judged[seed].values[name][mask] for seed in seeds]) for m in (weak, measured, ceiling)
    )
    kept = ~np.isnan(low + own + full).any(axis=0)
    return seed_ratio((own - low)[:, kept], (full - low)[:, kept], bootstrap) if seeds else None


def _agreement(weak: Measured, measured: Measured) -> list[float]:
    """By seed: share of the weak evaluator's wrong calls that another repeats."""
    shares = []
    for seed in sorted(set(weak.judged) & set(measured.judged)):
        one, other = weak.judged[seed], measured.judged[seed]
        wrong = one.calls != one.truth
        shares.append(round(float((one.calls == other.calls)[wrong].mean()), 4))
    return shares


def show(name: str, table: Table, lines: Sequence[Mapping[str, Any]]) -> None:
    """The table as markdown."""
    seeds = sorted({seed for line in lines for seed in line["seeds"]})
    print(f"{name}: LADDER500, means over seeds {', '.join(map(str, seeds))}, in %")
    heads = ["row", "labels bought", "made", "label accuracy", "step AUROC easy", "step AUROC hard"]
    heads += ["step accuracy easy", "step accuracy hard", "best-of-16 easy", "best-of-16 hard", "by seed"]
    heads += ["PGR, steps, hard", "PGR, best-of-16, hard", "agreement"] if table.weak else []
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    for line in lines:
        labels = list(line["labels"].values())
        cells = [line["row"], _count(labels, "training_labels_bought"), _count(labels, "labels_made")]
        cells.append(f"{100 * np.mean([found['label_accuracy'] for found in labels]):.1f}")
        cells += [_percent(line[m][g]) for m in ("step AUROC", *MEASURES) for g in ("easy", "hard")]
        cells.append("/".join(f"{100 * value:.1f}" for value in line["hard_by_seed"]["best-of-16"]))
        if table.weak:
            ends = line["row"] in (table.weak, table.ceiling)
            cells += ["" if ends else _share(line["pgr"].get(m, {}).get("hard")) for m in MEASURES]
            cells.append("/".join(f"{share:.2f}" for share in line.get("agreement", [])))
        print("| " + " | ".join(cells) + " |")
    _show_levels(lines)
    _show_efficiency(lines)


def _show_levels(lines: Sequence[Mapping[str, Any]]) -> None:
    """Step accuracy, and PGR where there is one, by level."""
    levels = [g for g in lines[0]["step accuracy"] if g not in ("easy", "hard", "all")]
    print("\nStep accuracy by level, and PGR of it")
    print("| row | " + " | ".join(levels) + " |\n|" + "---|" * (len(levels) + 1))
    for line in lines:
        recovered = line["pgr"].get("step accuracy", {})
        cells = [
            _percent(line["step accuracy"][g]) + (f"; {_share(recovered[g])}" if g in recovered else "")
            for g in levels
        ]
        print(f"| {line['row']} | " + " | ".join(cells) + " |")


def _show_efficiency(lines: Sequence[Mapping[str, Any]]) -> None:
    """Labels that uniform selection needs for each label of active selection."""
    arms: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        if line["arm"]:
            arms.setdefault(line["arm"], []).append(line)
    if not {"uniform", "active"} <= arms.keys():
        return
    for measure_name in MEASURES:
        curves = {}
        for arm in ("uniform", "active"):
            budgets = [next(iter(line["labels"].values()))["training_labels_bought"] for line in arms[arm]]
            curves[arm] = (budgets, np.array([line["hard_by_seed"][measure_name] for line in arms[arm]]).T)
        found = efficiency(*curves["uniform"], *curves["active"])
        print(f"\nLabel efficiency on hard levels by {measure_name}: {found.told()}")


def _count(labels: Sequence[Mapping[str, Any]], name: str) -> str:
    """A mean count; for sources that buy all their labels, these count as bought."""
    other = "labels" if name == "training_labels_bought" else ""
    counts = [found.get(name, found.get(other, 0)) for found in labels]
    return f"{np.mean(counts):,.0f}"


def _percent(estimate: tuple[float, float, float]) -> str:
    value, low, high = (100 * number for number in estimate)
    if low == high:  # one seed says nothing of others
        return f"{value:.1f}"
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _share(estimate: tuple[float, float, float] | None) -> str:
    return "no gap" if estimate is None else "{:.2f} [{:.2f}, {:.2f}]".format(*estimate)


if __name__ == "__main__":
    main()
