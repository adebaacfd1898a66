from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.generalization import evaluator_generalization, generalization_schema
from e2h_pipeline.evaluation.graded import PoolError, PoolFiles
from e2h_pipeline.evaluation.judged import solution_score
from e2h_pipeline.evaluation.step_benchmarks.process_bench import Threshold
from e2h_pipeline.problems.domain import StepChecker
from e2h_pipeline.problems.ladder.checker import step_labels
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import Evaluation
from e2h_pipeline.reranking.aggregate import Aggregation, last, product

HALF = Threshold(0.5, validation_f1=1.0, solutions=8)


def run(
    world: Path, checker: StepChecker | None = step_labels, threshold: Threshold | None = HALF
) -> dict[str, Any]:
    return evaluator_generalization(
        PoolFiles(world / "samples", world / "scores", world / "gold", "prm"),
        LADDER,
        checker,
        threshold,
        Evaluation(bootstrap=200, grader="exact", easy_levels=(1, 2, 3)),
        Work(world / "out", world / "work", recipe_seed=0),
    )


def rows(world: Path) -> dict[tuple[str, str], dict[str, Any]]:
    table = read_table(world / "out" / "metrics.parquet")
    assert table.schema.equals(generalization_schema())
    return {(r["metric"], r["levels"]): r for r in table.to_pylist()}


def test_an_evaluator_that_knows_is_perfect_on_steps(world: Path) -> None:
    summary = run(world)
    found = rows(world)
    assert found["step_auroc", "hard"]["value"] == 1
    assert found["step_mean_right", "all"]["value"] == pytest.approx(1 / (1 + 2.718281828**-2), abs=1e-6)
    # p4 has no right answer and two wrong ones: no outcome AUROC at level 5, but one at level 4.
    assert ("outcome_auroc", "5") not in found
    assert found["outcome_auroc_within", "4"]["value"] == 1
    assert summary["auroc"]["step_auroc"]["all"][0] == 1
    assert (world / "out" / "step_auroc.png").read_bytes().startswith(b"\x89PNG")


def test_steps_behind_the_first_error_and_cut_off_steps_do_not_count(world: Path) -> None:
    summary = run(world)
    # p0: 3 right with 2 segments each, 1 wrong with its first step; p1: 2 x 3, 2 x 2; p2: 3, 2 x 2;
    # p3: 3, 3 x 2; p4: 2 x 3; p5: only cut-off samples.
    assert summary["items"] == {"step": 6 + 1 + 6 + 4 + 3 + 4 + 3 + 6 + 6, "outcome": 17}


def test_without_checker_only_outcomes_are_measured(world: Path) -> None:
    summary = run(world, checker=None)
    assert set(summary["items"]) == {"outcome"}
    assert all(metric.startswith(("outcome", "generator")) for metric, _ in rows(world))
    assert (world / "out" / "outcome_auroc.png").is_file()


def test_calibration_slopes_and_first_errors_by_level(world: Path) -> None:
    run(world)
    found = rows(world)
    # All right steps have sigmoid(2): the gap is to 1, and there is no slope over length.
    sure = 1 / (1 + 2.718281828**-2)
    assert found["step_ece", "all"]["value"] == pytest.approx(1 - sure, abs=1e-6)
    assert found["step_position_slope", "all"]["value"] == pytest.approx(0, abs=1e-9)
    # The scores find the wrong step, and refuse no step of a right solution.
    for metric in ("accuracy_erroneous", "accuracy_correct", "f1"):
        assert found[f"first_error_{metric}", "all"]["value"] == 1
    assert ("first_error_f1", "1") in found


def test_evaluator_and_generator_from_easy_to_hard(world: Path) -> None:
    summary = run(world)
    found = rows(world)
    # Right answers: 3, 2 and 1 of 4 on easy problems, 1, 0 and 0 of 4 on hard ones.
    assert found["generator_accuracy", "easy"]["value"] == pytest.approx(6 / 12)
    assert found["generator_accuracy_change", "hard"]["value"] == pytest.approx(1 / 12 - 6 / 12)
    assert found["generator_accuracy_kept", "hard"]["value"] == pytest.approx(1 / 6)
    # The evaluator is perfect everywhere: no change, everything is kept, more than by the
    # generator.
    assert found["step_auroc_change", "hard"]["value"] == 0
    assert found["step_auroc_kept", "4"]["value"] == 1
    row = found["step_auroc_kept_over_generator", "hard"]
    assert row["value"] == pytest.approx(5 / 6) and 0 < row["ci_low"] < 5 / 6 < row["ci_high"] <= 1
    assert summary["generalizes"]["step_auroc_kept_over_generator"]["hard"][0] == pytest.approx(
        5 / 6, abs=1e-4
    )
    assert not any(metric.endswith("_change") and levels in ("easy", "1") for metric, levels in found)
    assert (world / "out" / "generalization.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("kind", "aggregation"), [("prm", product), ("oprm", product), ("orm", last), ("pairwise", last)]
)
def test_evaluators_of_whole_solutions_speak_at_the_last_position(
    kind: str, aggregation: Aggregation
) -> None:
    assert solution_score(kind) is aggregation


def test_scores_of_other_segments_are_refused(world: Path) -> None:
    import pyarrow as pa

    part = world / "scores" / "data" / "part-00000.parquet"
    changed = read_table(part).to_pylist()
    changed[0]["step_logits"] = [1.0]
    write_table(part, pa.Table.from_pylist(changed))
    with pytest.raises(PoolError, match="sample 0 of p0 has 1 step scores for 2 segments"):
        run(world)


def test_first_errors_are_named_by_the_threshold(world: Path) -> None:
    run(world, threshold=Threshold(0.0, 0.0, 8))  # no score is below it: no error is ever named
    assert rows(world)["first_error_f1", "all"]["value"] == 0
    assert run(world, threshold=None)["threshold"] is None
    assert not any(metric.startswith("first_error") for metric, _ in rows(world))
