from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.evaluation.graded import PoolError
from e2h_pipeline.evaluation.scoreboard import differences_schema, metrics_schema

Run = Callable[..., dict[str, Any]]


def accuracy(world: Path, **wanted: Any) -> float:
    rows = read_table(world / "rerank" / "metrics.parquet").to_pylist()
    found = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
    assert len(found) == 1
    return found[0]["accuracy"]


def test_worked_accuracies(world: Path, rerank: Run) -> None:
    rerank()
    # Majority over all four: right; tie; lost; lost; lost; no answer at all.
    assert accuracy(world, method="majority", n=4, levels="all") == pytest.approx(1.5 / 6)
    # The evaluator is right: every problem with a right sample is solved, p0-p3.
    for method in ("weighted-vote", "best-of-n"):
        assert accuracy(world, method=method, aggregation="product", n=4, levels="all") == pytest.approx(
            4 / 6
        )
    assert accuracy(world, method="pass", n=4, levels="hard") == pytest.approx(1 / 3)
    assert accuracy(world, method="pass", n=1, levels="easy") == pytest.approx((3 / 4 + 2 / 4 + 1 / 4) / 3)


def test_summary_counts_and_leads(world: Path, rerank: Run) -> None:
    summary = rerank()
    assert (summary["problems"], summary["samples"], summary["unfinished"], summary["no_answer"]) == (
        6,
        4,
        7,
        7,
    )
    assert summary["hard_lead_over_majority"]["weighted-vote product"][0] == pytest.approx(1 / 3, abs=1e-4)


def test_tables_have_the_schemas_and_one_row_per_name(world: Path, rerank: Run) -> None:
    rerank()
    metrics = read_table(world / "rerank" / "metrics.parquet")
    assert metrics.schema.equals(metrics_schema())
    names = metrics.drop_columns(["accuracy", "ci_low", "ci_high", "problems"]).to_pylist()
    assert len({tuple(row.values()) for row in names}) == metrics.num_rows == (2 + 2 * 4) * 3 * 8
    differences = read_table(world / "rerank" / "differences.parquet")
    assert differences.schema.equals(differences_schema())
    assert set(differences["second"].to_pylist()) == {"majority"}
    assert "weighted-vote product" in set(differences["first"].to_pylist())


def test_same_inputs_same_bytes(world: Path, rerank: Run) -> None:
    rerank()
    rerank("again")
    for name in ("metrics", "differences", "values"):
        first, second = ((world / f / f"{name}.parquet").read_bytes() for f in ("rerank", "again"))
        assert first == second


def test_an_incomplete_pool_is_refused(world: Path, rerank: Run) -> None:
    part = world / "samples" / "data" / "part-00001.parquet"
    rows = read_table(part)
    write_table(part, rows.slice(1))
    with pytest.raises(PoolError, match="samples of p0 are not 0 to 3"):
        rerank()
    part.unlink()
    with pytest.raises(PoolError, match="benchmark problem p0 has no samples"):
        rerank()


def test_scores_of_another_pool_are_refused(world: Path, rerank: Run) -> None:
    part = world / "scores" / "data" / "part-00000.parquet"
    rows = read_table(part).to_pylist()
    write_table(part, pa.Table.from_pylist([r for r in rows if r["sample"] < 3]))
    with pytest.raises(PoolError, match="score the pool again"):
        rerank()


def test_what_an_evaluator_writes_is_a_length_of_its_own(world: Path, rerank: Run) -> None:
    file = world / "scores" / "data" / "part-00000.parquet"
    scores = read_table(file)
    written = pa.array([1 + row["sample"] for row in scores.to_pylist()], pa.int32())
    write_table(file, scores.append_column("written_tokens", written).slice(0))
    rerank()
    rows = read_table(world / "rerank" / "lengths.parquet").to_pylist()
    judged = {row["levels"]: row["tokens"] for row in rows if row["decoding"] == "judged"}
    assert judged["all"] == judged["hard"] == 2.5  # samples 0 to 3
    assert {row["tokens"] for row in rows if row["decoding"] == "sampled" and row["levels"] == "all"} == {25}
