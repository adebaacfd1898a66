"""Samples made elsewhere: JSON lines give the numbers of our own pools, and errors name the
line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.evaluation.graded import PoolError
from e2h_pipeline.evaluation.outside.rerank import (
    ExternalOptions,
    ExternalResult,
    read_samples,
    rerank_external,
)
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.problems.jsonl import read_jsonl
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.recipe import Evaluation, Rerank

Record = dict[str, Any]


def reranked(
    records: Sequence[Record],
    *,
    mode: str = "exact",
    logits: bool = False,
    limit: int | None = None,
    draws: int = 8,
) -> ExternalResult:
    """Read the records as a file `s.jsonl`, and rerank them."""
    file = io.BytesIO("".join(json.dumps(record) + "\n" for record in records).encode())
    problems = read_samples(file, "s.jsonl", logits=logits, limit=limit)
    evaluation = Evaluation(bootstrap=200, easy_levels=(1, 2, 3))
    options = ExternalOptions("ELSEWHERE", logits, Rerank(draws=draws), evaluation, seed=0)
    with grader(mode) as judge:
        return rerank_external(problems, judge, options)


def accuracy(
    result: ExternalResult, method: str, n: int, aggregation: str = "", levels: str = "all"
) -> float:
    (row,) = (
        row
        for row in result.tables.metrics.to_pylist()
        if (row["method"], row["n"], row["aggregation"], row["levels"]) == (method, n, aggregation, levels)
    )
    return row["accuracy"]


def problem(number: int, answers: list[Any], **fields: Any) -> Record:
    return {"problem_id": f"p{number}", "gold": "1", "answers": answers, **fields}


def test_worked_numbers() -> None:
    result = reranked(
        [
            problem(1, ["1", "1", "2", None], scores=[0.5, 0.4, 0.95, 0.99]),
            problem(2, ["1", "2", "3", "2"], scores=[0.9, 0.1, 0.2, 0.1]),
        ]
    )
    # p1: two votes to one, but weights 0.9 to 0.95; p2: two wrong votes against weight 0.9.
    assert accuracy(result, "majority", 4) == 0.5
    assert accuracy(result, "weighted-vote", 4, "score") == 0.5
    # The best of p1 is wrong (a sample without an answer is never chosen); the best of p2 is right.
    assert accuracy(result, "best-of-n", 4, "score") == 0.5
    assert accuracy(result, "pass", 1) == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert accuracy(result, "pass", 4) == 1.0
    # Choosing among the pairs of p1 (12 13 14 23 24 34): 1 is right alone, with 2, and with no
    # answer.
    assert accuracy(result, "best-of-n", 2, "score") == pytest.approx((3 / 6 + 3 / 6) / 2)
    lead = [r for r in result.tables.differences.to_pylist() if r["n"] == 4 and r["levels"] == "all"]
    assert {r["first"]: r["difference"] for r in lead} == {"weighted-vote score": 0.0, "best-of-n score": 0.0}


def test_the_summary_counts_what_is_wrong_by_default() -> None:
    cut = {
        "problem_id": "p2",
        "gold": "1",
        "responses": ["\\boxed{1}", "\\boxed{1}"],
        "finish_reasons": ["stop", "length"],
    }
    summary = reranked([problem(1, ["1", None]), cut]).summary
    assert (summary["problems"], summary["samples"]) == (2, 2)
    assert (summary["no_answer"], summary["cut_off"], summary["undecided"]) == (2, 1, 0)
    assert (summary["grader"], summary["grader_version"]) == ("exact", "exact/1")
    assert (summary["scores"], summary["scores_are"]) == ([], "")


def test_without_scores_and_levels_there_are_votes_and_pass_at_n_over_all() -> None:
    rows = reranked([problem(1, ["1", "2"]), problem(2, ["1", "1"])]).tables.metrics.to_pylist()
    assert {(row["method"], row["levels"]) for row in rows} == {("majority", "all"), ("pass", "all")}


def test_a_problem_of_unknown_level_is_neither_easy_nor_hard() -> None:
    rows = reranked(
        [problem(1, ["1"], level=1), problem(2, ["1"], level=5), problem(3, ["1"], level=None)]
    ).tables.metrics.to_pylist()
    assert {row["levels"]: row["problems"] for row in rows} == {
        "1": 1,
        "5": 1,
        "easy": 1,
        "hard": 1,
        "all": 3,
    }


def world_records(world: Path, score: Callable[[float], float]) -> list[Record]:
    """The tiny world's artifacts as another tool would have written them."""
    found: dict[str, Record] = {}
    gold = {row["problem_id"]: row for row in read_table(world / "gold" / "data.parquet").to_pylist()}
    samples = read_table(world / "samples" / "data").sort_by(
        [("problem_id", "ascending"), ("sample", "ascending")]
    )
    scores = read_table(world / "scores" / "data").sort_by(
        [("problem_id", "ascending"), ("sample", "ascending")]
    )
    for row, scored in zip(samples.to_pylist(), scores.to_pylist(), strict=True):
        record = found.setdefault(
            row["problem_id"],
            {
                "problem_id": row["problem_id"],
                "level": row["level"],
                "gold": gold[row["problem_id"]]["answer"],
                "responses": [],
                "finish_reasons": [],
                "step_scores": [],
            },
        )
        record["responses"].append(row["completion"])
        record["finish_reasons"].append(row["finish_reason"])
        record["step_scores"].append([score(logit) for logit in scored["step_logits"]])
    return list(found.values())


@pytest.mark.parametrize("logits", [True, False])
def test_a_pool_of_ours_gives_the_same_numbers_from_lines(
    world: Path, rerank: Callable[..., Any], logits: bool
) -> None:
    rerank()
    records = world_records(world, float if logits else lambda logit: 1 / (1 + math.exp(-logit)))
    result = reranked(records[::-1], logits=logits)  # the order of lines does not matter
    for name, ours in (("metrics", result.tables.metrics), ("differences", result.tables.differences)):
        rows = zip(
            read_table(world / "rerank" / f"{name}.parquet").to_pylist(), ours.to_pylist(), strict=True
        )
        for expected, found in rows:
            for column in expected.keys() - {"benchmark", "policy", "evaluator"}:
                assert found[column] == pytest.approx(expected[column], abs=1e-12), column


def test_the_data_version_is_that_of_what_was_read() -> None:
    records = [problem(1, ["1", "2"], scores=[0.1, 0.2]), problem(2, ["1", "1"], scores=[0.3, 0.4])]
    version = reranked(records).summary["data_version"]
    noted = [{**record, "note": "x"} for record in reversed(records)]
    assert reranked(noted).summary["data_version"] == version
    records[0]["scores"] = [0.1, 0.25]
    assert reranked(records).summary["data_version"] != version


def test_scores_of_zero_are_scores() -> None:
    result = reranked([problem(1, ["2", "1"], step_scores=[[0.9, 0.0], [0.1, 1]])])
    assert accuracy(result, "weighted-vote", 2, "product") == 1.0
    assert accuracy(result, "best-of-n", 2, "last") == 1.0
    assert accuracy(result, "best-of-n", 2, "mean") == 1.0
    everything_zero = reranked([problem(1, ["1", "2"], step_scores=[[0], []])])
    assert accuracy(everything_zero, "weighted-vote", 2, "min") == 0.5


def test_the_first_samples_can_be_taken() -> None:
    records = [problem(1, ["1", "1", "2"]), problem(2, ["1", "2"])]
    with pytest.raises(PoolError, match="--samples 2"):
        reranked(records)
    result = reranked(records, limit=2)
    assert result.summary["samples"] == 2
    assert accuracy(result, "pass", 1) == 0.75
    with pytest.raises(PoolError, match=r"s.jsonl:2: 2 samples, and 3 are asked for"):
        reranked(records, limit=3)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"problem_id": None}, "s.jsonl:1: 'problem_id' must be text, not null"),
        ({"gold": [1]}, "s.jsonl:1: 'gold' must be text, not a list"),
        ({"level": 0}, "'level' must be a whole number from 1 to 127, not 0; leave it out"),
        ({"level": 128}, "'level' must be a whole number from 1 to 127, not 128"),
        ({"level": "Level 200"}, "'level' must be a whole number from 1 to 127, not 200"),
        ({"level": "hard"}, "'level' must be a whole number from 1 to 127, not 'hard'"),
        ({"level": 1.5}, "'level' must be a whole number from 1 to 127, not 1.5"),
        (
            {"scores": [[0.5, 0.4], [0.1]]},
            "'scores': entry 0 is a list.* with a number per step in 'step_scores'",
        ),
        ({"step_scores": [[[0.5]], [0.1]]}, "'step_scores' of sample 0: entry 0 is a list"),
        ({"scores": [0.5, 1.001]}, "entry 1 is 1.001; scores are probabilities from 0 to 1"),
        ({"level": True}, "'level' must be a whole number"),
        ({"answers": "12"}, "'answers' must be a list with an entry per sample, not '12'"),
        ({"answers": []}, "'answers' is empty"),
        ({"answers": ["1", 2.5]}, "'answers' of sample 1 must be text, not a decimal"),
        ({"scores": [0.5]}, "'scores' has 1 entries for 2 samples"),
        ({"scores": [0.5, None]}, "'scores': entry 1 must be a finite number, not None"),
        ({"scores": [0.5, True]}, "'scores': entry 1 must be a finite number, not True"),
        ({"scores": [0.5, math.nan]}, "'scores': entry 1 must be a finite number, not nan"),
        ({"scores": [0.5, 10**400]}, "'scores': entry 1 must be a finite number, not 1000"),
        ({"scores": [0.5, 1.5]}, "entry 1 is 1.5; scores are probabilities from 0 to 1.*--logits"),
        ({"step_scores": [[0.5], [-0.1]]}, "'step_scores' of sample 1: entry 0 is -0.1; scores are prob"),
        ({"step_scores": [0.5, 0.5]}, "'step_scores' of sample 0 must be a list of numbers"),
    ],
)
def test_bad_lines_are_named(fields: Record, says: str) -> None:
    with pytest.raises(ProblemError, match=says):
        reranked([{**problem(1, ["1", "2"]), **fields}])


def test_what_is_missing_is_named() -> None:
    with pytest.raises(
        ProblemError, match=r"s.jsonl:1: neither 'responses' nor 'answers'; there are problem_id, gold"
    ):
        reranked([{"problem_id": 1, "gold": "1"}])
    with pytest.raises(ProblemError, match="no field 'gold'"):
        reranked([{"problem_id": 1, "answers": ["1"]}])
    with pytest.raises(PoolError, match=r"s.jsonl: no line"):
        reranked([])


def test_problems_must_go_together() -> None:
    one = problem(1, ["1", "2"], scores=[0.5, 0.5])
    with pytest.raises(PoolError, match=r"s.jsonl:2: problem_id 'p1' was on s.jsonl:1 before"):
        reranked([one, one])
    with pytest.raises(PoolError, match=r"s.jsonl:2: no scores, but scores on s.jsonl:1"):
        reranked([one, problem(2, ["1", "2"])])


def outputs(data_dir: Path, name: str) -> list[Record]:
    path = data_dir / "outputs" / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no {path.name} here")
    return [record for _, record in read_jsonl(path)]


@pytest.mark.parametrize(
    ("name", "dataset", "temperature"),
    [
        ("amc23_qwen25math1.5b_instruct_t0.6_n64", "AMC23", "0.6"),
        ("aime25_qwen25math1.5b_instruct_t1.0_n64", "AIME25", "1.0"),
    ],
)
def test_published_curves_of_competition_problems(
    data_dir: Path, name: str, dataset: str, temperature: str
) -> None:
    """Published pass@N at every N, and the published majority of 64."""
    records = [
        {"problem_id": row["id"], "gold": row["gold"], "responses": row["responses"]}
        for row in outputs(data_dir, name)
    ]
    with (data_dir / "outputs" / "amc_aime_math500_published_metrics.csv").open() as file:
        (published,) = (
            row
            for row in csv.DictReader(file)
            if (row["model"], row["dataset"], row["temperature"]) == ("Instruct", dataset, temperature)
        )
    result = reranked(records, mode="math", draws=1)
    for n in (1, 2, 4, 8, 16, 32, 64):
        assert accuracy(result, "pass", n) == pytest.approx(float(published[f"pass@{n}"]), abs=1e-9)
    assert accuracy(result, "majority", 64) == pytest.approx(float(published["maj@1"]), abs=1e-9)


# The golds are `4:30p..` and `10{,}000`; Qwen's grader counts 4:30 and 10000 as wrong, ours does
# not.
QWEN_MISJUDGES = {"test/prealgebra/1462.json", "test/prealgebra/1130.json"}


def test_raw_rewards_of_a_published_model(data_dir: Path) -> None:
    """Qwen2.5-Math-RM on 98 problems of MATH x 8: rewards are not probabilities; the best counts."""
    rows = [
        row for row in outputs(data_dir, "qwen25math_rm_math100x8") if row["unique_id"] not in QWEN_MISJUDGES
    ]
    records = [
        {
            "problem_id": row["unique_id"],
            "level": int(row["level"].removeprefix("Level ")),
            "gold": row["gold"],
            "answers": row["preds"],
            "scores": row["rm_scores"],
        }
        for row in rows
    ]
    with pytest.raises(ProblemError, match="--logits"):
        reranked(records, mode="math")
    result = reranked(records, mode="math", logits=True)
    flags = [row["correct"] for row in rows]
    best = [row["correct"][np.argmax(row["rm_scores"])] for row in rows]
    assert accuracy(result, "pass", 1) == pytest.approx(np.mean(flags))
    assert accuracy(result, "pass", 8) == pytest.approx(np.mean([any(right) for right in flags]))
    assert accuracy(result, "best-of-n", 8, "score") == pytest.approx(np.mean(best))
    assert {row["levels"] for row in result.tables.metrics.to_pylist()} == {*"12345", "easy", "hard", "all"}


def test_gzipped_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(problem(1, ["1"])).encode()))
    with path.open("rb") as file:
        assert read_samples(file, str(path))[0].answers == ["1"]


def test_what_people_write_otherwise_means_the_same() -> None:
    """MATH's own levels, a probability that float32 rounded beyond 1, and Windows' byte-order mark."""
    plain = [
        problem(1, ["1", "2"], level=2, scores=[1, 0]),
        problem(2, ["1", "1"], level=None, scores=[1, 1]),
    ]
    odd = [
        problem(1, ["1", "2"], level="Level 2", scores=[1.0000001, -1e-9]),
        problem(2, ["1", "1"], level="Level ?", scores=[1.0, 1.000001]),
    ]
    text = "".join(json.dumps(record) + "\n" for record in odd)
    read = read_samples(io.BytesIO(b"\xef\xbb\xbf" + text.encode()), "s.jsonl")
    assert [(p.level, p.scores) for p in read] == [(2, [1.0, 0.0]), (None, [1.0, 1.0])]
    assert reranked(odd).tables.metrics == reranked(plain).tables.metrics
    (logit,) = read_samples(
        io.BytesIO(json.dumps(problem(1, ["1"], scores=[1.0000001])).encode()), "s", logits=True
    )
    assert logit.scores == [1.0000001]
