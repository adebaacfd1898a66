"""Records in the published formats, as problems whose reference programs pass their tests."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.grading.code.suites import Asserts, CallCases, StdinCases, from_text
from e2h_pipeline.grading.graders import Verdict, grader
from e2h_pipeline.grading.verdicts import Gold
from e2h_pipeline.problems.code.records import problem_of_record
from e2h_pipeline.problems.records import ProblemError, question_table
from e2h_pipeline.problems.source import load_pool, load_split
from e2h_pipeline.recipe import CodeProblems, Recipe

APPS: dict[str, Any] = {
    "problem_id": 7,
    "question": "Ada has some apples and gets as many again from her uncle; how many has she now?",
    "solutions": json.dumps(["n = int(input())\r\nprint(2 * n)\r\n"]),
    "input_output": json.dumps({"inputs": ["2\n", ["3", "x"]], "outputs": ["4\n", ["6"]]}),
    "difficulty": "introductory",
    "url": "https://example.org/7",
    "starter_code": "",
}
APPS_CALLED = {
    **APPS,
    "problem_id": 8,
    "question": "Give back what both things are when put together, numbers or lists.",
    "solutions": json.dumps(["class Solution:\n    def add(self, a, b):\n        return a + b"]),
    "input_output": json.dumps({"fn_name": "add", "inputs": [[1, 2], [[3], [4]]], "outputs": [3, [[3, 4]]]}),
    "difficulty": "interview",
    "starter_code": "class Solution:\n    def add(self, a, b):",
}
LIVE = {
    "question_id": "abc_a",
    "question_content": "A bear counts the stones of a river, one after the other; say what it says last.",
    "difficulty": "hard",
    "starter_code": "",
    "public_test_cases": json.dumps([{"input": "5\n", "output": "5", "testtype": "stdin"}]),
    "private_test_cases": json.dumps([{"input": "6\n", "output": "6", "testtype": "stdin"}]),
    "metadata": "{}",
}
LIVE_CALLED = {
    **LIVE,
    "question_id": "abc_b",
    "public_test_cases": json.dumps(
        [{"input": '[1, 2]\n"x"', "output": "[1, 2, 5]", "testtype": "functional"}]
    ),
    "private_test_cases": "",
    "metadata": json.dumps({"func_name": "grow"}),
    "starter_code": "class Solution:\n    def grow(self, a, b):",
}
HUMAN = {
    "task_id": "HumanEval/999",
    "prompt": 'ONE = 1\n\ndef inc(x):\n    """Add one."""\n',
    "entry_point": "inc",
    "canonical_solution": "    return x + ONE\n",
    "test": "def check(candidate):\n    assert candidate(1) == 1 + ONE\n",
    "level": 1,
}
MBPP = {
    "task_id": 11,
    "text": "Write a function that turns a list around.",
    "code": "def turned(a):\n    return a[::-1]",
    "test_list": ["assert set(turned([1, 2])) == {1, 2}", "assert turned([1, 2]) == [2, 1]"],
    "test_setup_code": "",
}
WITH_SOLUTION = [APPS, APPS_CALLED, HUMAN, MBPP]


@pytest.mark.parametrize(
    ("record", "level", "form", "cases"),
    [
        (APPS, 1, StdinCases, 2),
        (APPS_CALLED, 2, CallCases, 2),
        (LIVE, 3, StdinCases, 2),
        (LIVE_CALLED, 3, CallCases, 1),
        (HUMAN, 1, Asserts, 0),
        (MBPP, None, Asserts, 0),
    ],
)
def test_formats(record: dict[str, Any], level: int | None, form: type, cases: int) -> None:
    problem = problem_of_record(record, "train/1", "file", 1)
    suite = from_text(problem.payload["tests"])
    assert problem.level == level and isinstance(suite, form)
    assert len(getattr(suite, "cases", ())) == cases
    assert len(problem.steps) == (
        0
        if record in (LIVE, LIVE_CALLED)
        else len(problem.answer.strip().splitlines()) - problem.answer.count("\n\n")
    )


def test_questions_say_what_to_write_and_not_what_is_tested() -> None:
    asked = {name: problem_of_record(r, "p", "f", 1).question for name, r in
             {"apps": APPS, "called": APPS_CALLED, "live": LIVE_CALLED, "human": HUMAN, "mbpp": MBPP}.items()}  # fmt: skip
    assert asked["apps"].endswith("Read from standard input and write to standard output.")
    assert "class Solution" in asked["called"] and asked["called"].endswith("Write the function `add`.")
    assert "`grow`" in asked["live"] and "[1, 2, 5]" not in asked["live"]
    assert asked["human"].startswith("ONE = 1") and "check" not in asked["human"]
    assert "set(turned" in asked["mbpp"] and "[2, 1]" not in asked["mbpp"]


def test_reference_programs_pass_and_others_do_not() -> None:
    problems = [problem_of_record(record, "p", "f", 1) for record in WITH_SOLUTION]
    golds = [Gold(p.answer, p.question, tuple(p.payload.items())) for p in problems]
    broken = [p.answer.replace("+", "-").replace("2 *", "3 *").replace("::-1", "::") for p in problems]
    with grader("unit-tests", 1) as judge:
        right = judge.grade_pairs([(gold, p.answer) for gold, p in zip(golds, problems, strict=True)])
        wrong = judge.grade_pairs(list(zip(golds, broken, strict=True)))
        live = Gold("", "", tuple(problem_of_record(LIVE_CALLED, "p", "f", 1).payload.items()))
        (solved,) = judge.grade_pairs([(live, "def grow(a, b):\n    return a + [5]")])
    assert [grade.verdict for grade in right] == [Verdict.EQUAL] * 4
    assert [grade.tier for grade in wrong] == ["failed"] * 4
    assert solved.verdict is Verdict.EQUAL


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"input_output": "{"}, "'input_output' is not JSON"),
        ({"input_output": "[]"}, "'input_output' must hold dict"),
        ({"input_output": '{"inputs": ["1"], "outputs": []}'}, "1 inputs and 0 outputs"),
        ({"input_output": '{"fn_name": "f", "inputs": [1], "outputs": [1]}'}, "the list of its arguments"),
        ({"difficulty": "nice"}, "level 'nice' is not 1-3"),
        ({"question": 3}, "'question' must be str"),
        ({"solutions": "x"}, "'solutions' is not JSON"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(changes: Mapping[str, Any], told: str) -> None:
    with pytest.raises(ProblemError, match=rf"file:3: .*{told}"):
        problem_of_record({**APPS, **changes}, "p", "file", 3)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"question": "x"}, "input_output \\(APPS\\)"),
        ({**LIVE, "private_test_cases": "eJxrYJm"}, "decode it to JSON first"),
        ({**LIVE, "public_test_cases": '[{"input": "1"}]'}, "a test case cannot be used"),
        ({**MBPP, "test_list": ["assert 1 =="]}, "'test_list' is not Python"),
        ({**MBPP, "test_list": ["assert len([1]) == 1"]}, "calls no function"),
        ({**HUMAN, "test": None}, "'test' must be str"),
    ],
)
def test_other_records_that_cannot_be_used(record: dict[str, Any], told: str) -> None:
    with pytest.raises(ProblemError, match=told):
        problem_of_record(record, "p", "file", 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    train = [APPS, APPS_CALLED, LIVE, {**APPS, "problem_id": 9, "input_output": ""}, {**HUMAN, "level": None}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, train)))
    with gzip.open(tmp_path / "test.jsonl.gz", "wt") as file:
        file.write("\n".join(json.dumps({**record, "level": 2}) for record in (MBPP, LIVE_CALLED)))
    return tmp_path


def test_a_folder(folder: Path) -> None:
    options = CodeProblems(path=str(folder), validation=0)
    pool = load_pool(options)
    assert [p.problem_id for p in pool.train] == ["train/7", "train/8", "train/abc_a", "train/HumanEval/999"]
    assert [p.problem_id for p in pool.benchmark] == ["test/11", "test/abc_b"]
    assert pool.findings == {"without_tests": {"train": 1}}
    split = load_split(options)
    assert [p.level for p in split.easy_train] == [1] and sorted(p.level or 0 for p in split.hard) == [2, 3]
    assert "payload" not in question_table(split.hard).column_names


def test_a_folder_that_cannot_be_used(folder: Path) -> None:
    options = CodeProblems(path=str(folder))
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, [APPS, APPS])))
    with pytest.raises(ProblemError, match="train/7 is there more than once"):
        load_pool(options)
    (folder / "train.jsonl").write_text("")
    with pytest.raises(ProblemError, match="no problem with tests"):
        load_pool(options)


def test_a_recipe_of_programs() -> None:
    recipe = Recipe.from_key(
        "llemma-7b/problems.easy_levels=introductory/problems.source=code/reward.kind=orm"
    )
    assert recipe.problems.easy_levels == (1,) and recipe.problems.grader == "unit-tests"
