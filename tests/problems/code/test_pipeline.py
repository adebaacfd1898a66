# ruff: noqa: E501
"""Programs through the stages that judge them: outcome labels, voting and reranking, and who sees the tests.

Samples and scores are written by hand; everything else is the stages' own code.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.graded import PoolFiles
from e2h_pipeline.evaluation.rerank import rerank_metrics
from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.problems.code.domain import CODE
from e2h_pipeline.problems.code.text import TEXT, logical_lines
from e2h_pipeline.problems.declassify import write_part, write_pool
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.source import load_pool
from e2h_pipeline.recipe import CodeProblems, Evaluation, PpoRl, Rerank
from e2h_pipeline.rl.metrics import measures
from e2h_pipeline.rl.questions import Question, read_questions
from e2h_pipeline.rl.rollouts import Rollout
from e2h_pipeline.supervision.outcome_labels import label_easy_outcomes

TASKS = {
    "double": ("Somebody doubles what she has: give twice the number that is read.", "print(2 * int(input()))", "3\n", "6\n"),
    "largest": ("Of all the mountains in a list, which one is the largest?", "print(max(map(int, input().split())))", "1 7 5\n", "7\n"),
    "shout": ("Write the word again, loud, with letters that are capitals.", "print(input().upper())", "abc\n", "ABC\n"),
    "length": ("How many letters does a word of a strange tongue have?", "print(len(input()))", "abc\n", "3\n"),
}  # fmt: skip
SECRET = "hidden 77"
SAMPLES = {
    "length": [
        ("print(len(input()))", 2.0),
        ("n = 0\nfor letter in input():\n    n += 1\nprint(n)", 1.0),
        ("print(3)", 3.0),
        ("print(input())", -3.0),
        ("print(", -3.0),
    ]
}
"""Programs with the logit of each of their segments."""


def _record(name: str, level: int) -> dict[str, Any]:
    question, solution, given, wanted = TASKS[name]
    cases = {"inputs": [given, SECRET + "\n"], "outputs": [wanted, None]}
    cases["outputs"][1] = {"double": "", "largest": "", "shout": "HIDDEN 77", "length": "9"}[name]
    if name in ("double", "largest"):
        cases = {key: values[:1] for key, values in cases.items()}
    shown = f"{question}\n\nInput\n{given}\nOutput\n{wanted}"
    return {
        "problem_id": name,
        "question": shown,
        "solutions": [solution],
        "input_output": cases,
        "level": level,
    }


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four parts of the split."""
    folder = tmp_path_factory.mktemp("code")
    for part, records in {
        "train": [_record("double", 1), _record("largest", 1), _record("shout", 3)],
        "test": [_record("length", 2)],
    }.items():
        (folder / f"{part}.jsonl").write_text("\n".join(map(json.dumps, records)))
    options = CodeProblems(path=str(folder), validation=1)
    (folder / "source").mkdir()
    write_pool(folder / "source", load_pool(options))
    for part in ("easy_problems", "hard_questions", "benchmark_questions", "gold_answers"):
        (folder / part).mkdir()
        write_part(part, folder / "source", options, folder / part)
    return folder


def _samples(programs: Mapping[str, Sequence[str]], level: int) -> pa.Table:
    rows = [
        {"problem_id": name, "level": level, "sample": i, "completion": TEXT.completion([], program), "finish_reason": "stop", "tokens": 5}
        for name, own in programs.items()
        for i, program in enumerate(own)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def test_tests_stay_with_easy_problems_and_gold(parts: Path) -> None:
    seen = {part: SECRET in str(read_table(parts / part / "data.parquet").to_pylist()) for part in
            ("easy_problems", "hard_questions", "benchmark_questions", "gold_answers")}  # fmt: skip
    assert seen == {
        "easy_problems": False,
        "hard_questions": False,
        "benchmark_questions": False,
        "gold_answers": True,
    }
    hard, benchmark = (
        read_table(parts / part / "data.parquet") for part in ("hard_questions", "benchmark_questions")
    )
    assert (
        hard.num_rows == benchmark.num_rows == 1
        and "payload" not in hard.column_names + benchmark.column_names
    )
    easy = read_table(parts / "easy_problems" / "data.parquet").to_pylist()
    assert all(dict(row["payload"])["tests"] for row in easy)


def test_rl_sees_tests_of_easy_problems_only(parts: Path) -> None:
    """Its outcome reward on easy problems is the tests'; hard ones have the evaluator alone."""
    training, validation = read_questions(
        {name: parts / name for name in ("easy_problems", "hard_questions")}, PpoRl()
    )
    golds = {question.problem_id: question.gold for question in (*training, *validation)}
    assert golds["train/shout"] is None
    assert all(dict(golds[f"train/{name}"].payload)["tests"] for name in ("double", "largest"))  # type: ignore[union-attr]


def test_outcome_labels_come_from_the_tests(parts: Path, tmp_path: Path) -> None:
    (name,) = (
        r["problem_id"]
        for r in read_table(parts / "easy_problems" / "data.parquet").to_pylist()
        if r["split"] == "train"
    )
    right = TASKS[name.removeprefix("train/")][1]
    samples = _samples({name: [right, f"x = 1\n{right}", "print(0)", "while True: pass"]}, 1)
    write_table(tmp_path / "samples" / "part-00000.parquet", samples)
    work = Work(tmp_path / "out", tmp_path / "work", recipe_seed=0)
    summary = label_easy_outcomes(tmp_path / "samples", parts / "easy_problems", CODE, "unit-tests", work)
    rows = read_table(tmp_path / "out" / "data.parquet").to_pylist()
    assert [(row["sample"], row["outcome"]) for row in rows] == [(0, 1), (1, 1), (2, 0), (3, 0)]
    assert summary["right"] == summary["wrong"] == 2 and summary["grader"].startswith("unit-tests/")


def test_votes_by_behaviour_and_failing_cases_are_told(parts: Path, tmp_path: Path) -> None:
    programs = {f"test/{name}": [program for program, _ in own] for name, own in SAMPLES.items()}
    samples = _samples(programs, 2)
    write_table(tmp_path / "samples" / "data" / "part-00000.parquet", samples)
    logits = [[logit] * (len(logical_lines(p)) + 1) for own in SAMPLES.values() for p, logit in own]
    scores = samples.select(["problem_id", "level", "sample"]).append_column(
        "step_logits", pa.array(logits, pa.list_(pa.float32()))
    )
    write_table(tmp_path / "scores" / "data" / "part-00000.parquet", scores)
    files = PoolFiles(tmp_path / "samples", tmp_path / "scores", parts / "gold_answers", "orm")
    work = Work(tmp_path / "out", tmp_path / "work", recipe_seed=0)
    evaluation = Evaluation(bootstrap=100, grader="unit-tests", easy_levels=(1,))
    rerank_metrics(files, CODE, Rerank(draws=4), evaluation, work)
    choices = {
        tuple(row["roles"]): row for row in read_table(tmp_path / "out" / "choices.parquet").to_pylist()
    }
    vote = next(row for roles, row in choices.items() if "majority" in roles)
    best = next(row for roles, row in choices.items() if "best-of-n" in roles)
    assert (vote["right"], vote["votes"], vote["why"]) == (True, 2, "")
    assert (best["right"], best["sample"]) == (False, 2)
    assert best["why"] == "failed at case 2: wrote '3\\n', not '9'"


def test_rl_counts_programs_that_look_at_nothing() -> None:
    """The measure is a domain's to have: answers of the ladder are no programs."""
    question = Question("q", "Double it.", None, 1)
    measured = [
        measures(Rollout(question, (1,), Sample(0, "", (1,), "stop", 0.0), (0.0,), 0.5, 1, program, None, blind=domain.blind(program)))
        for domain, program in ((CODE, "print(6)"), (CODE, "print(2 * int(input()))"), (CODE, None), (LADDER, "6"))
    ]  # fmt: skip
    assert [found.get("blind") for found in measured] == [True, False, None, None]
