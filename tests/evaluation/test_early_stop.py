"""The replay predicts the engine under a watch to the token, with the cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.early_stop import (
    Trial,
    WatchedSteps,
    _token_rows,
    early_stop_metrics,
    replay_watch,
    watched_step_ends,
    watched_steps,
)
from e2h_pipeline.evaluation.graded import PoolError, PoolFiles, load_graded, load_step_logits
from e2h_pipeline.generation.engines.protocol import SampleRequest
from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.generation.sample_pool import Drawing, sample_pool, sampling_options
from e2h_pipeline.generation.search.independent import Independent
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.models.load import load_policy
from e2h_pipeline.problems.ladder.checker import step_labels
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.records import gold_table
from e2h_pipeline.recipe import EarlyStop, Evaluation, Sampling, Scoring
from e2h_pipeline.reranking.aggregate import step_probabilities
from e2h_pipeline.rewards.early_stop import StepWatch, completed_steps
from e2h_pipeline.rewards.pool import score_pool
from e2h_pipeline.solutions import MARKED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from e2h_pipeline.problems.domain import StepChecker
    from e2h_pipeline.problems.records import ProblemSplit


def test_a_sample_is_given_up_at_the_first_look_behind_a_bad_step() -> None:
    steps = WatchedSteps(
        tokens=np.array([20, 20, 20, 16, 20, 5]),
        scores=np.array([0.9, 0.1, 0.2, 0.3, 0.9, 0.8, 0.1, 0.2]),
        ends=np.array([6, 12, 18, 8, 6, 15, 15, 3]),
        sample=np.array([0, 0, 0, 1, 2, 2, 3, 5]),
    )
    # 0: bad at 12, the look is at 16. 1: bad at 8, which is itself a look. 2: good. 3: bad at 15,
    # but it ends at 16, before the look. 4: without steps. 5: ends before the first look.
    assert replay_watch(steps, 0.5, 8).tolist() == [16, 8, 20, 16, 20, 5]
    assert replay_watch(steps, 0.15, 8).tolist() == [16, 20, 20, 16, 20, 5]
    assert replay_watch(steps, 0.5, 3).tolist() == [12, 9, 20, 15, 20, 3]
    assert replay_watch(steps, 0.0, 1).tolist() == steps.tokens.tolist()


def test_a_step_is_over_with_the_token_that_shows_it(tok: PreTrainedTokenizerFast) -> None:
    """Random tokens: steps, answers, half characters, and spellings that no tokenizer makes."""
    rng = np.random.default_rng(0)
    blank = tok("1\n\n# Answer", add_special_tokens=False)["input_ids"][1:]
    found = 0
    for _ in range(60):
        some = rng.integers(2, len(tok), 50)
        ids = np.where(rng.random(50) < 0.4, rng.choice(blank, 50), some).tolist()
        text = tok.decode(ids, skip_special_tokens=True)
        ends = watched_step_ends(tok, [*ids, tok.eos_token_id], text, MARKED)
        for drawn in range(1, len(ids) + 1):
            shown = completed_steps(tok.decode(ids[:drawn], skip_special_tokens=True))
            assert len(MARKED.parse(shown).spans) == sum(end <= drawn for end in ends), (drawn, text)
        found += len(ends)
    assert found > 60


@pytest.fixture(scope="module")
def drawn(
    ladder_policy: Path,
    ladder_evaluator: Path,
    ladder_tables: Path,
    ladder_split: ProblemSplit,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A pool of a random policy, drawn whole and scored by a random evaluator."""
    folder = tmp_path_factory.mktemp("drawn")
    questions = ladder_tables / "benchmark_questions"
    drawing = Drawing(ladder_policy, LADDER, OPTIONS, "pool", Independent())
    samples = Work(folder / "samples" / "data", folder / "work", recipe_seed=0)
    sample_pool(drawing, read_table(questions / "data.parquet"), samples)
    scores = Work(folder / "scores" / "data", folder / "scored")
    score_pool(ladder_evaluator, folder / "samples" / "data", questions, Scoring(), MARKED, scores)
    write_table(folder / "gold" / "data.parquet", gold_table(ladder_split))
    return folder


OPTIONS = Sampling(samples=16, temperature=6.0, top_k=0, max_new_tokens=40)


@pytest.mark.parametrize(("every", "lost"), [(4, 0.5), (7, 0.3), (1, 0.2), (16, 0.7)])
def test_the_replay_predicts_the_engine(
    drawn: Path, ladder_policy: Path, ladder_evaluator: Path, ladder_tables: Path, every: int, lost: float
) -> None:
    with grader("exact") as judge:
        graded = load_graded(drawn / "samples" / "data", drawn / "gold", judge, LADDER.answer_of)
    rows = _token_rows(drawn / "samples" / "data")
    logits, _ = load_step_logits(drawn / "scores" / "data", graded)
    threshold = float(np.quantile(step_probabilities(logits), lost)) + 1e-5
    model, tokenizer = load_policy(ladder_policy)
    # The lowest step scores of one right solution are the threshold at every share.
    trial = Trial(EarlyStop(every=every), np.array([threshold]), ladder_policy)
    steps = watched_steps(rows, graded, drawn / "scores" / "data", trial, MARKED)
    kept = replay_watch(steps, threshold, every)
    questions = read_table(ladder_tables / "benchmark_questions" / "data.parquet").to_pylist()
    requests = [
        SampleRequest(row["question"], MARKED, stream_key(0, "pool", row["problem_id"]), OPTIONS.samples)
        for row in sorted(questions, key=lambda row: row["problem_id"])
    ]
    watch = StepWatch(ladder_evaluator, threshold, every)
    again = TransformersEngine(model, tokenizer).sample(requests, sampling_options(OPTIONS), watch)
    samples = [sample for own in again for sample in own]
    assert [len(sample.token_ids) for sample in samples] == kept.tolist()
    given_up = kept < steps.tokens
    assert [sample.finish_reason == "abandoned" for sample in samples] == given_up.tolist()
    for sample, ids in zip(samples, rows["token_ids"].to_pylist(), strict=True):
        assert list(sample.token_ids) == ids[: len(sample.token_ids)]
    assert 10 < given_up.sum() < len(given_up) - 10


def run(
    folder: Path,
    policy: Path,
    right: list[float],
    every: int = 6,
    checker: StepChecker | None = step_labels,
    **options: Any,
) -> dict[str, Any]:
    return early_stop_metrics(
        PoolFiles(folder / "samples", folder / "scores", folder / "gold", "prm"),
        Trial(EarlyStop(every=every, **options), np.array(right), policy, checker),
        LADDER,
        Evaluation(bootstrap=200, grader="exact", easy_levels=(1, 2, 3)),
        Work(folder / "out", folder / "early_stop_work", recipe_seed=0),
    )


def rows(folder: Path) -> dict[tuple[float, str, str], dict[str, Any]]:
    table = read_table(folder / "out" / "metrics.parquet").to_pylist()
    return {(row["lose"], row["metric"], row["levels"]): row for row in table}


@pytest.fixture
def told(world: Path, ladder_tok: PreTrainedTokenizerFast) -> Path:
    """The graded world with the tokens of its samples."""
    for part in sorted((world / "samples" / "data").iterdir()):
        table = read_table(part)
        ids = [
            ladder_tok(text, add_special_tokens=False)["input_ids"]
            + [ladder_tok.eos_token_id] * (reason == "stop")
            for text, reason in zip(
                table["completion"].to_pylist(), table["finish_reason"].to_pylist(), strict=True
            )
        ]
        table = table.append_column("token_ids", pa.array(ids, pa.list_(pa.int32())))
        write_table(
            part,
            table.drop_columns("tokens").append_column(
                "tokens", pa.array([len(own) for own in ids], pa.int32())
            ),
        )
    return world


def test_what_is_saved_and_what_it_costs(told: Path, ladder_policy: Path) -> None:
    summary = run(told, ladder_policy, [0.5, 0.6])
    found = {
        metric: row for (lose, metric, levels), row in rows(told).items() if (lose, levels) == (0.01, "all")
    }
    # A step has six tokens; an answer has three and the end. The last step of a wrong solution is
    # wrong, and the solution is given up there. Each saves four tokens; there are 1 + 2 + 2 + 3 +
    # 2. Right ones: 3 of one step, 2 + 1 of two, 1 of two; wrong ones: 1, 2 + 2 + 3 of two, 2 of
    # three. Cut ones: 7 first steps without a blank line.
    assert found["tokens_saved"]["count"] == 3 * 10 + 4 * 16 + 10 + 7 * 16 + 2 * 22 + 7 * 5
    assert found["tokens_saved"]["value"] == pytest.approx(40 / 295)
    assert found["right_given_up"]["value"] == 0 and found["right_given_up"]["count"] == 7
    assert found["wrong_given_up"]["value"] == pytest.approx(10 / 17)
    # Without their wrong answers p1 is not a tie, and p2 and p3 are right.
    assert found["majority_change"]["value"] == pytest.approx(2.5 / 6)
    assert found["majority_change"]["ci_low"] < 2.5 / 6 < found["majority_change"]["ci_high"]
    assert found["pass_change"]["value"] == found["best_of_n_change"]["value"] == 0  # no right one was lost
    # The same saving leaves 3.5 of four samples, rounded to three, so a right one may be missing.
    assert found["pass_fewer_change"]["value"] < 0
    assert summary["replayed"] and summary["every"] == 6 and summary["right_validation_solutions"] == 2
    assert summary["all_levels"]["0.01"]["threshold"] == 0.5
    assert set(summary["all_levels"]) == {"0.001", "0.01", "0.05", "0.1"}
    assert (told / "out" / "early_stop.png").read_bytes().startswith(b"\x89PNG")
    # Problems 4 to 6 have one right solution: an easy and a hard group, and no share of zero
    # solutions.
    assert (0.01, "right_given_up", "hard") in rows(told) and (0.01, "right_given_up", "5") not in rows(told)


def test_a_look_too_late_saves_nothing(told: Path, ladder_policy: Path) -> None:
    run(told, ladder_policy, [0.5], every=32)
    assert {row["value"] for (_, metric, _), row in rows(told).items() if metric != "pass"} == {0.0}


def test_nothing_is_lost_where_nothing_says_what_right_looks_like(told: Path, ladder_policy: Path) -> None:
    summary = run(told, ladder_policy, [], lose=0.2)
    assert summary["all_levels"]["0.2"]["threshold"] == 0
    assert {row["value"] for row in rows(told).values()} == {0.0}


def test_a_right_solution_below_the_threshold_is_lost(told: Path, ladder_policy: Path) -> None:
    run(told, ladder_policy, [0.95])
    found = {metric: row["value"] for (lose, metric, levels), row in rows(told).items() if levels == "all"}
    assert found["right_given_up"] == found["sound_given_up"] == 1  # they score 0.88
    assert found["majority_change"] == pytest.approx(-1.5 / 6) and found["pass_change"] == pytest.approx(
        -4 / 6
    )


def test_a_right_answer_come_by_through_a_wrong_step_is_not_sound(told: Path, ladder_policy: Path) -> None:
    part = told / "samples" / "data" / "part-00001.parquet"
    table = read_table(part)
    texts = [
        text.replace("3+5=1", "3+5=9") if i == 0 else text
        for i, text in enumerate(table["completion"].to_pylist())
    ]
    write_table(part, table.set_column(table.column_names.index("completion"), "completion", pa.array(texts)))
    run(told, ladder_policy, [0.5])
    found = {metric: row["count"] for (lose, metric, levels), row in rows(told).items() if levels == "all"}
    assert found["right_given_up"] == 7 and found["sound_given_up"] == 6
    run(told, ladder_policy, [0.5], checker=None)  # no checker, so steps are not judged
    assert not any(metric == "sound_given_up" for _, metric, _ in rows(told))


def test_a_pool_drawn_under_a_watch_is_not_replayed(told: Path, ladder_policy: Path) -> None:
    part = told / "samples" / "data" / "part-00001.parquet"
    table = read_table(part)
    reasons = pa.array(["abandoned"] * 2 + ["stop"] * (table.num_rows - 2))
    write_table(part, table.drop_columns("finish_reason").append_column("finish_reason", reasons))
    summary = run(told, ladder_policy, [0.5])
    assert not summary["replayed"] and not (told / "out" / "early_stop.png").exists()
    assert {metric for _, metric, _ in rows(told)} == {"given_up"}
    row = rows(told)[0.01, "given_up", "all"]
    assert row["value"] == pytest.approx(2 / 24) and row["count"] == 24 and row["threshold"] == 0.5


def test_scores_of_other_samples_are_refused(told: Path, ladder_policy: Path) -> None:
    part = told / "scores" / "data" / "part-00000.parquet"
    changed = read_table(part).to_pylist()
    changed[11]["step_logits"] = [-3.0]  # p2, sample 3, is cut: one step; sample 2 has two
    changed[10]["step_logits"] = [-3.0]
    write_table(part, pa.Table.from_pylist(changed))
    with pytest.raises(PoolError, match="sample 2 of p2 has fewer scores than steps"):
        run(told, ladder_policy, [0.5])
