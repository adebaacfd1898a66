"""Active selection against uniform selection, replayed on labels that people gave (PRM800K).

    E2H_DATA_DIR=... python benchmarks/replay.py BASE --work FOLDER [--layers 20] [--seeds 10]

BASE is the folder of a pretrained causal language model. An evaluator here is a logistic regression on
its states after --layers layers (`reward.training.head=regression`, as in the recipe real-evaluator), so
states are computed once, kept in --work, and shared by all arms. The pool are the rated solutions of easy
problems; buying a solution brings its ratings to light, and a step that solutions share is paid once
(supervision/ratings.py). Selector and selection are those of `labels.source=active`. Judged are all
rated steps of hard problems: step AUROC, as a mean over draws of the first lesson and of the uniform
order, with the standard deviation over draws, and an interval of the paired difference over draws. The
hard problems are the same in each draw, so the interval says nothing about other problems.

What a replay cannot show: people rated solutions that a selector had picked already, and only up to the
first error. So a pool solution that ends without an answer is known to have an error, which the
selection by wrong answers uses.

A table for people, then one JSON line. About 15 minutes of processor time for the states of a model of
135 million weights, seconds for the arms.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.models.adapters import keep_lowest_layers
from e2h_pipeline.models.load import new_evaluator
from e2h_pipeline.problems.math.domain import MATH
from e2h_pipeline.problems.math.prm800k import read_prm800k
from e2h_pipeline.problems.records import easy_table
from e2h_pipeline.problems.source import load_split
from e2h_pipeline.recipe import ActiveLabels, MathProblems, Prm800kLabels, Sampling
from e2h_pipeline.rewards.examples import step_example
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.logistic import fit_logistic
from e2h_pipeline.statistics.ranking import auroc
from e2h_pipeline.statistics.seeds import seed_intervals
from e2h_pipeline.supervision.active import Scorer, buy_actively, wrong_answers
from e2h_pipeline.supervision.buying import Buyer, labels_in, shuffled
from e2h_pipeline.supervision.ratings import rated_labels
from e2h_pipeline.supervision.rows import RIGHT, UNLABELLED, Rows
from e2h_pipeline.supervision.source import LabelJob
from e2h_pipeline.training.boundary import keep_states

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.training.boundary import Boundary

BUDGETS = (400, 800, 1600)
FIRST_LESSON = 30  # problems
RIDGE = 300.0
MAX_TOKENS = 1024


@dataclass(frozen=True)
class States:
    """The states of a model at the ends of the segments of rated solutions."""

    tokenizer: PreTrainedTokenizerBase
    kept: Boundary

    def of(self, row: Mapping[str, Any]) -> NDArray[np.float32]:
        """(segments, width)"""
        example = _example(self.tokenizer, row)
        return self.kept.of(example)[np.array(example["labels"]) != -100]


@dataclass(frozen=True)
class Head:
    """A fitted regression."""

    weights: NDArray[np.float64]
    constant: float

    def probabilities(self, states: NDArray[np.floating]) -> NDArray[np.float64]:
        """(segments,)"""
        found: NDArray[np.float64] = 1 / (1 + np.exp(-(states @ self.weights + self.constant)))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10, help="number of draws")
    options = parser.parse_args()
    rated, hard = pool(options.work)
    easy = rated.candidates("train")
    states = states_of(options, [*easy, *hard])
    fits = [row for row in easy if short(states.tokenizer, row)]
    hard = [row for row in hard if short(states.tokenizer, row)]
    judged = np.concatenate([states.of(row) for row in hard])
    truth = np.concatenate([np.array(row["labels"]) for row in hard])
    known = truth != UNLABELLED
    wrong = wrong_answers(rated.job, fits)
    lines = []
    for budget in BUDGETS:
        found: dict[str, list[float]] = {"uniform": [], "active": []}
        for seed, selection in ((s, name) for s in range(options.seeds) for name in found):
            bought = buy(rated, fits, wrong, (selection, budget, seed), states)
            head = fit(bought, states)
            score = auroc(head.probabilities(judged)[known], truth[known] == RIGHT)
            found[selection].append(score or 0.0)
        lines.append(line(budget, found))
    everything = fresh(rated).buy(fits)
    whole = auroc(fit(everything, states).probabilities(judged)[known], truth[known] == RIGHT)
    show(lines, labels_in(everything), whole or 0.0, int(known.sum()))
    print(json.dumps({"benchmark": "replay", "base": options.base.name, "all": whole, "rows": lines}))


def pool(work: Path) -> tuple[Buyer, Rows]:
    """A buyer of the ratings of easy solutions, which has bought nothing, and the rated hard solutions."""
    split = load_split(MathProblems(validation=0))
    easy = {row["problem_id"]: row for row in easy_table(split).to_pylist()}
    options = ActiveLabels(of=Prm800kLabels(), selector_problems=FIRST_LESSON)
    job = LabelJob(options, 0, easy, {}, MATH, Sampling(), "math", Work(work / "out", work / "buying", 0))
    hard = {
        p.problem_id: {"problem_id": p.problem_id, "level": p.level, "split": "hard", "question": p.question}
        for p in (*split.hard, *split.benchmark)
        if p.level not in MathProblems.supervisable_levels
    }
    return Buyer.of(job), rated_labels(read_prm800k(), hard, MATH.text, RIGHT).rows


def fresh(rated: Buyer) -> Buyer:
    """The same buyer before its first purchase, with the files read already."""
    return Buyer(rated.job, copy.copy(rated.source))


def _example(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A solution with a mark at each segment's end."""
    segments = len(MATH.text.parse(row["completion"]).spans)
    return step_example(tokenizer, {**row, "labels": [1.0] * segments}, MATH.text)


def short(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any]) -> bool:
    """Whether a solution is not too long."""
    return len(_example(tokenizer, row)["input_ids"]) <= MAX_TOKENS


def states_of(options: argparse.Namespace, rows: Rows) -> States:
    """States of all solutions that are not too long; computed once for a work folder."""
    model, tokenizer = new_evaluator(options.base)
    keep_lowest_layers(model, options.layers)
    examples = [_example(tokenizer, row) for row in rows if short(tokenizer, row)]
    folder = options.work / f"states-{options.layers}"
    return States(tokenizer, keep_states(model.eval(), examples, folder, Reporter(30), mixed_precision=True))


def buy(
    rated: Buyer, rows: Rows, wrong: set[tuple[str, int]], arm: tuple[str, int, int], states: States
) -> Rows:
    """Bought labels of one arm: selection, budget and seed."""
    selection, budget, seed = arm
    options = ActiveLabels(of=Prm800kLabels(), selector_problems=FIRST_LESSON, budget=budget)
    buyer, candidates = fresh(rated), shuffled(rows, f"replay/{seed}")
    if selection == "uniform":
        return buyer.buy(candidates, budget)

    def learn(_name: str, bought: Rows) -> Scorer:
        head = fit(bought, states)
        return lambda asked: [head.probabilities(states.of(row)).tolist() for row in asked]

    return buy_actively(buyer, candidates, wrong, options, learn)


def fit(rows: Rows, states: States) -> Head:
    """A regression on bought labels."""
    labels = np.concatenate([np.array(row["labels"]) for row in rows])
    features = np.concatenate([states.of(row) for row in rows])
    known = labels != UNLABELLED
    weights, constant = fit_logistic(features[known], labels[known], RIDGE).plain()
    return Head(weights, constant)


def line(budget: int, found: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Means, standard deviations and the paired difference of a budget."""
    gain = np.array(found["active"]) - np.array(found["uniform"])
    difference = seed_intervals(gain[:, None, None], Bootstrap())
    return {
        "budget": budget,
        **{name: [float(np.mean(x)), float(np.std(x, ddof=1))] for name, x in found.items()},
        "difference": [float(part[0]) for part in (difference.mean, difference.low, difference.high)],
    }


def show(lines: Sequence[Mapping[str, Any]], labels: int, whole: float, steps: int) -> None:
    """The table as markdown."""
    print(f"Step AUROC on {steps:,} rated steps of hard problems; all {labels:,} labels: {whole:.3f}")
    print("| labels | uniform (sd) | active (sd) | active - uniform |\n|---|---|---|---|")
    for told in lines:
        arms = " | ".join("{:.3f} ({:.3f})".format(*told[name]) for name in ("uniform", "active"))
        print(f"| {told['budget']} | {arms} | " + "{:+.3f} [{:+.3f}, {:+.3f}] |".format(*told["difference"]))


if __name__ == "__main__":
    main()
