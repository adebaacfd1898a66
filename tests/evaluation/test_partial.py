"""Judging solutions before they end: the filter's tokens and votes, its baselines, and what chooses
its thresholds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save_file

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.early_stop import LOSSES
from e2h_pipeline.evaluation.graded import PoolFiles, load_graded
from e2h_pipeline.evaluation.partial.dropping import (
    SAVED,
    Dropped,
    drop_at_random,
    filters,
    running,
    saving,
    vote,
)
from e2h_pipeline.evaluation.partial.metrics import partial_metrics
from e2h_pipeline.evaluation.partial.seen import SEEN
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import Evaluation
from e2h_pipeline.reranking.curves import RerankPool
from e2h_pipeline.rewards.kinds.goal_conditioned import GOAL, GOAL_FILE, q_filter
from e2h_pipeline.rewards.scoring import score_solutions
from e2h_pipeline.rewards.token_values import SCORE, Q, token_values
from e2h_pipeline.solutions import MARKED

VALUES = st.lists(st.floats(-1, 1, width=32), max_size=12)


@given(st.lists(VALUES, min_size=1, max_size=4), st.floats(-1, 1, width=32))
def test_the_filter_is_that_of_the_authors(values: list[list[float]], threshold: float) -> None:
    """`q_filter` restates their code; this one does many thresholds over a whole pool."""
    flat = np.array([x for row in values for x in row], np.float32)
    signal = running(flat, np.array([len(row) for row in values]))
    effect = signal.effect(threshold, len(values))
    plain = q_filter(values, threshold)
    assert effect.saved.sum() == plain.saved
    assert tuple(np.flatnonzero(~effect.dropped[0])) == plain.kept


def test_random_dropping_saves_the_share_it_should_and_never_a_whole_problem() -> None:
    tokens = np.random.default_rng(0).integers(10, 60, (40, 8))
    names = [f"p{i}" for i in range(40)]
    effects = [drop_at_random(tokens, 0.3, names, draw) for draw in range(40)]
    shares = [effect.saved.sum() / tokens.sum() for effect in effects]
    assert np.mean(shares) == pytest.approx(0.3, abs=0.005)
    assert not any(effect.dropped.all(axis=1).any() for effect in effects)
    again = drop_at_random(tokens, 0.3, names, 0)
    assert (again.dropped == effects[0].dropped).all() and (effects[1].dropped != again.dropped).any()


def test_tied_votes_share_the_credit_and_all_dropped_are_all_kept() -> None:
    pool = RerankPool(("a",), np.array([[0, 0, 1]]), np.array([[False, False, True]]), {})

    def after(*dropped: bool) -> float:
        return float(vote(pool, Dropped.of(np.array([dropped]), np.ones((1, 3))))[0])

    assert after(False, False, False) == 0
    assert after(True, False, False) == 0.5  # the paper would say 1
    assert after(True, True, False) == 1
    assert after(True, True, True) == 0
    assert Dropped.of(np.array([[True] * 3]), np.ones((1, 3))).saved.sum() == 0


def test_every_filter_of_q_has_its_baselines_and_easy_problems_choose_the_thresholds() -> None:
    rng = np.random.default_rng(0)
    lengths = np.full(20, 15)
    signals = {name: running(rng.normal(size=300).astype(np.float32), lengths) for name in (Q, SCORE)}
    right = {Q: np.linspace(0, 1, 100), SCORE: np.linspace(-5, 5, 100)}
    found = list(filters(right, signals, 4))
    chosen = {(one.signal, one.at): one.threshold for one in found if one.chosen == "lose" and not one.as_q}
    assert set(chosen) == {(signal, lose) for signal in (Q, SCORE) for lose in LOSSES}
    assert chosen[Q, 0.1] == right[Q][10] and chosen[SCORE, 0.1] == right[SCORE][10]
    of_q = [(one.chosen, one.at) for one in found if one.signal == Q]
    assert of_q == [("paper", 0), *(("lose", x) for x in LOSSES), *(("saved", x) for x in SAVED)]
    for signal in (SCORE, "random"):
        assert [(one.chosen, one.at) for one in found if one.signal == signal and one.as_q] == of_q
    nothing = {Q: np.empty(0), SCORE: np.empty(0)}
    assert not any(one.chosen == "lose" for one in filters(nothing, signals, 4))


@given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=8, max_size=12), min_size=8, max_size=8))
@example(
    [*[[0.0] * 8] * 4, *[[*[0.0] * 7, -1.0]] * 2, [*[0.0] * 7, -0.00390625], [*[0.0] * 6, -0.0078125, -1.0]]
)
def test_a_threshold_saves_as_much_as_it_can_without_a_whole_problem(values: list[list[float]]) -> None:
    """Two problems of four samples. No threshold among the samples' own lowest values comes nearer."""
    lengths = np.array([len(row) for row in values])
    signal = running(np.array([x for row in values for x in row], np.float32), lengths)

    def saved(threshold: float) -> float:
        effect = signal.effect(threshold, 4)
        assert not effect.dropped.all(axis=1).any()
        return float(effect.saved.sum() / lengths.sum())

    best = min(abs(saved(float(x)) - 0.2) for x in signal.final)
    assert abs(saved(saving(signal, 0.2, 4, np.empty(0))) - 0.2) <= best + 1e-9


@pytest.fixture
def judge(ladder_evaluator: Path, tmp_path: Path) -> Path:
    """A random evaluator with a random goal."""
    folder = tmp_path / "judge"
    shutil.copytree(ladder_evaluator, folder)
    width = load_evaluator(folder)[0].config.hidden_size
    save_file({GOAL: torch.randn(width, generator=torch.Generator().manual_seed(0))}, folder / GOAL_FILE)
    return folder


def test_a_token_is_judged_by_what_stands_before_it(judge: Path) -> None:
    whole = "3+5=1\n\n# Answer\n\n1"
    solutions = [("3+5", whole, True), ("3+5", "3+5=1\n\n", False), ("3+5", whole, True), ("3+5", "", False)]
    told = token_values(judge, solutions, MARKED, batch_tokens=40)
    parts = {name: np.split(own, np.cumsum(told.lengths)[:-1]) for name, own in told.signals.items()}
    model, tokenizer = load_evaluator(judge)
    logits = score_solutions(model, tokenizer, solutions)
    for own, end in zip(parts[SCORE][:3], logits[:3], strict=True):
        assert own[-1] == pytest.approx(end[-1], abs=1e-4)  # after the last token: the solution's score
    for name in (Q, SCORE):
        short = parts[name][1]
        assert parts[name][0][: len(short)] == pytest.approx(short, abs=1e-4)
        assert (parts[name][0] == parts[name][2]).all()
    assert told.lengths[3] == 0 and np.abs(parts[Q][0]).max() <= 1 + 1e-6


def outcomes(folder: Path) -> Path:
    """Easy solutions with their outcome, two of them for validation."""
    rows = [
        {
            "split": split,
            "question": f"{digit}+1",
            "completion": f"{digit}+1={(digit + 1) % 7}\n\n# Answer\n\n{(digit + 1) % 7}",
            "finished": True,
            "outcome": outcome,
        }
        for digit, split, outcome in [
            (1, "validation", 1),
            (2, "validation", 1),
            (3, "validation", 0),
            (4, "train", 1),
        ]
    ]
    write_table(folder / "outcomes" / "data.parquet", pa.Table.from_pylist(rows))
    return folder / "outcomes"


def run(world: Path, judge: Path) -> dict[str, Any]:
    return partial_metrics(
        PoolFiles(world / "samples", world / "scores", world / "gold", "goal_conditioned"),
        judge,
        outcomes(world),
        LADDER,
        Evaluation(bootstrap=100, grader="exact", easy_levels=(1, 2, 3)),
        Work(world / "partial", world / "partial_work", recipe_seed=0),
    )


def test_a_pool_is_judged_by_share_of_tokens_and_filtered(world: Path, judge: Path) -> None:
    summary = run(world, judge)
    assert (summary["samples_judged"], summary["right_validation_solutions"]) == (24, 2)
    auroc = read_table(world / "partial" / "partial_auroc.parquet").to_pylist()
    assert {row["seen"] for row in auroc} == set(SEEN)
    assert {row["levels"] for row in auroc} >= {"easy", "hard", "all"}
    with grader("exact") as exact:
        graded = load_graded(world / "samples" / "data", world / "gold", exact, LADDER.answer_of)
    asked = [q for q in graded.questions for _ in range(4)]
    model, tokenizer = load_evaluator(judge)
    done = graded.finished.reshape(-1).tolist()
    scores = score_solutions(model, tokenizer, list(zip(asked, graded.completions, done, strict=True)))
    from e2h_pipeline.statistics.ranking import auroc as plain

    ends = np.array([own[-1] for own in scores])
    (last,) = [
        r for r in auroc if (r["signal"], r["seen"], r["pairs"], r["levels"]) == (SCORE, 1.0, "all", "all")
    ]
    assert last["value"] == pytest.approx(plain(ends, graded.correct.reshape(-1)))

    votes = read_table(world / "partial" / "filter_votes.parquet").to_pylist()
    everything = {
        (r["signal"], r["chosen"], r["at"], r["as_q"], r["metric"]): r for r in votes if r["levels"] == "all"
    }
    for share in SAVED:
        q, ours, luck = (
            {
                metric: everything[s, "saved", share, s != Q, metric]["value"]
                for metric in ("tokens_saved", "majority")
            }
            for s in (Q, SCORE, "random")
        )
        assert luck["tokens_saved"] == pytest.approx(q["tokens_saved"], abs=0.1)  # 24 samples, 16 draws
        over = everything[SCORE, "saved", share, True, "q_over_it"]["value"]
        assert over == pytest.approx(q["majority"] - ours["majority"])
        assert (SCORE, "saved", share, False, "q_over_it") not in everything
    assert (world / "partial" / "filter_votes.png").is_file()


def test_no_answer_of_the_benchmark_chooses_a_threshold(world: Path, judge: Path) -> None:
    def thresholds() -> list[Any]:
        run(world, judge)
        rows = read_table(world / "partial" / "filter_votes.parquet").to_pylist()
        return [
            (r["signal"], r["chosen"], r["at"], r["threshold"]) for r in rows if r["metric"] == "majority"
        ]

    before = thresholds()
    gold = read_table(world / "gold" / "data.parquet").to_pylist()
    write_table(
        world / "gold" / "data.parquet",
        pa.Table.from_pylist([{**row, "answer": str((int(row["answer"]) + 1) % 7)} for row in gold]),
    )
    assert thresholds() == before
