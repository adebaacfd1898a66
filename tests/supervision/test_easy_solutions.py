"""Training solutions of the policy: only easy training problems, from any source, and only right
steps."""

import json
from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.problems.domain import Domain
from e2h_pipeline.problems.gsm8k.domain import GSM8K
from e2h_pipeline.problems.math.domain import MATH
from e2h_pipeline.problems.records import (
    Problem,
    ProblemError,
    ProblemSplit,
    easy_table,
    question_table,
)
from e2h_pipeline.recipe import FAMILIES
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.stages.findings import training_findings
from e2h_pipeline.supervision.easy_solutions import write_easy_solutions


def problem(name: str, level: int, question: str) -> Problem:
    return Problem(name, level, "a", question, ("We look.", "We see."), "7")


TRAIN = (
    problem("train/1", 1, "What is $3 + 4$?"),
    problem("train/2", 3, "What is $14/2$?"),
    problem("train/6", 3, "What is $\\int_1^8\\,dx$?"),
)
VALIDATION, TWIN, HARD, BENCHMARK = (
    problem("train/3", 2, "What is $8 - 1$?"),
    problem("train/7", 3, "What is $\\int_1^8 dx$?"),  # the text of train/6
    problem("train/4", 5, "What is $\\int_0^7 dx$?"),
    problem("test/5", 2, "What is the seventh natural number?"),
)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    split = ProblemSplit(TRAIN, (VALIDATION, TWIN), (HARD,), (BENCHMARK,))
    write_table(tmp_path / "easy_problems" / "data.parquet", easy_table(split))
    write_table(tmp_path / "hard_questions" / "data.parquet", question_table(split.hard))
    write_table(tmp_path / "benchmark_questions" / "data.parquet", question_table(split.benchmark))
    return tmp_path


def written(
    tables: Path, seed: int = 0, domain: Domain = MATH, **options: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    held_out = [tables / "hard_questions", tables / "benchmark_questions"]
    found = FAMILIES["solutions"].parse(options)
    work = Work(tables / "easy_solutions", tables / "work")
    summary = write_easy_solutions(tables / "easy_problems", held_out, found, domain, seed, work)
    return read_table(tables / "easy_solutions" / "data.parquet").to_pylist(), summary


def findings(tables: Path, domain: Domain = MATH) -> list[str]:
    """The findings of the asset check."""
    names = ("easy_solutions", "easy_problems", "hard_questions", "benchmark_questions")
    folders = {name: tables / name for name in names}
    return training_findings("easy_solutions", folders, domain.unlevelled_easy)


def rewrite(original: str, query: str = "", kind: str = "MATH_AnsAug", answer: str = "7") -> dict[str, str]:
    return {
        "query": query or original,
        "original_question": original,
        "type": kind,
        "response": f"We look at it.\nWe see {answer}.\nThe answer is: {answer}",
    }


def metamath(tables: Path, *records: dict[str, str]) -> str:
    path = tables / "MetaMathQA.json"
    path.write_text(json.dumps(records))
    return str(path)


def test_the_solutions_that_come_with_the_problems(tables: Path) -> None:
    rows, summary = written(tables)
    assert [row["problem_id"] for row in rows] == ["train/1", "train/2", "train/6"]
    for row, own in zip(rows, TRAIN, strict=True):
        assert row["question"] == own.question
        assert row["completion"] == MARKED.completion(own.steps, own.answer)
        assert (row["learned"], row["finished"]) == ([True, True, True], True)
    assert summary == {
        "solutions": 3,
        "problems": 3,
        "learned_steps": 9,
        "by_level": {"1": 1, "3": 2},
        "by_source": {"reference": 3},
    }
    assert findings(tables) == []


def test_rewritten_problems_of_easy_levels_and_all_of_gsm8k(tables: Path) -> None:
    gsm = "Ann has 3 apples and buys 4. How many?"
    path = metamath(
        tables,
        rewrite("What is  $3+4$?", "Three and four make?", "MATH_Rephrased"),  # different spacing
        rewrite(TRAIN[1].question),
        rewrite(gsm, kind="GSM_AnsAug"),
        rewrite(gsm, "Ann has x apples and buys 4. She has 7. What is x?", "GSM_SV", "3"),
        rewrite(VALIDATION.question),
        rewrite(HARD.question),
        rewrite(TRAIN[2].question),  # ambiguous: it fits two problems
        rewrite(BENCHMARK.question),
        rewrite("What is $100$?"),
        rewrite(HARD.question, kind="GSM_AnsAug"),  # the name of a hard problem does not matter
        rewrite(TRAIN[0].question, "What is the  seventh natural number?", "MATH_Rephrased"),
        rewrite(TRAIN[1].question),
        {"query": "no"},
    )
    rows, summary = written(tables, source="metamath", path=path)
    assert [(row["problem_id"][:6], row["level"], row["source"], row["question"]) for row in rows] == [
        ("train/", 1, "MATH_Rephrased", "Three and four make?"),
        ("train/", 3, "MATH_AnsAug", "What is $14/2$?"),
        ("unleve", None, "GSM_AnsAug", gsm),
        ("unleve", None, "GSM_SV", "Ann has x apples and buys 4. She has 7. What is x?"),
    ]
    assert rows[2]["problem_id"] == rows[3]["problem_id"]
    assert rows[3]["completion"] == "We look at it.\n\nWe see 3.\n\n# Answer\n\n3"
    assert summary["dropped"] == {
        "not an easy training problem": 6,
        "same as a question that is held out": 1,
        "there already": 1,
    }
    assert summary["by_level"] == {"1": 1, "3": 1, "none": 2}
    assert summary["bad_lines"] == 1 and "MetaMathQA.json:13: no field 'response'" in str(
        summary["first_bad_lines"]
    )
    assert findings(tables) == []


def test_a_set_counts_as_easy_only_beside_domains_that_say_so(tables: Path) -> None:
    """Not in GSM8K's own domain: which of its problems are easy its levels say, and a limit may keep
    the hard ones out of `hard_questions`."""
    unknown = "Ann has 3 apples and buys 4. How many?"
    path = metamath(
        tables, rewrite(unknown, kind="GSM_AnsAug"), rewrite(TRAIN[0].question, kind="GSM_AnsAug")
    )
    rows, summary = written(tables, domain=GSM8K, source="metamath", path=path)
    assert [row["problem_id"] for row in rows] == ["train/1"]
    assert summary["dropped"] == {"not an easy training problem": 1}
    assert findings(tables, GSM8K) == []
    rows, _ = written(tables, domain=MATH, source="metamath", path=path)
    assert len(rows) == 2
    assert findings(tables, MATH) == []
    (found,) = findings(tables, GSM8K)
    assert "is not an easy training problem" in found


def test_at_most_so_many_solutions_of_a_question(tables: Path) -> None:
    asked = [rewrite(TRAIN[0].question, answer=str(i)) for i in range(20)]
    path = metamath(tables, *asked, rewrite(TRAIN[0].question, "And $4 + 3$?", "MATH_Rephrased"))
    drawn = [written(tables, seed, source="metamath", path=path, per_question=3)[0] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for rows in drawn:
        answers = [int(MARKED.parse(row["completion"]).answer or -1) for row in rows[:-1]]
        assert len(answers) == 3 and answers == sorted(set(answers))
        assert rows[-1]["question"] == "And $4 + 3$?"
    _, summary = written(tables, source="metamath", path=path, per_question=3)
    assert summary["dropped"] == {"more of a question than wanted": 17}


def test_steps_that_people_rated_right_are_learned_once_and_no_others(tables: Path) -> None:
    lines = [
        {"unique_id": "train/1", "level": 1, "problem": "", "steps": ["a", "b", "c"], "ratings": [1, 0, 1]},
        {"unique_id": "train/1", "level": 1, "problem": "", "steps": ["a", "b", "d"], "ratings": [1, 0, -1]},
        {"unique_id": "train/1", "level": 1, "problem": "", "steps": ["a", "e"], "ratings": [1, 1]},
        {
            "unique_id": "train/2",
            "level": 3,
            "problem": "",
            "steps": ["a", "x\n\n# Answer\n\n7"],
            "ratings": [1, 1],
        },
        *(
            {"unique_id": name, "level": 1, "problem": "", "steps": ["a"], "ratings": [1]}
            for name in ("train/3", "train/4", "test/5")
        ),
    ]
    path = tables / "labels.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows, summary = written(tables, source="prm800k", path=str(path))
    assert [(row["problem_id"], row["completion"], row["learned"], row["finished"]) for row in rows] == [
        ("train/1", "a\n\nb\n\nc\n\n", [True, False, True], False),
        ("train/1", "a\n\ne\n\n", [False, True], False),
        ("train/2", "a\n\nx\n\n# Answer\n\n7", [True, True, True], True),
    ]
    assert summary["dropped"] == {"no new right step": 1, "not an easy training problem": 3}
    assert summary["learned_steps"] == 6
    assert findings(tables) == []


def test_nothing_behind_a_wrong_step_is_learned(tables: Path) -> None:
    line = {
        "question": {"problem": "What is $3 + 4$?"},
        "label": {
            "finish_reason": "solution",
            "steps": [
                {"completions": [{"text": text, "rating": rating}], "chosen_completion": 0}
                for text, rating in (("a", 1), ("b", -1), ("c", 1))
            ],
        },
    }
    path = tables / "phase1_train.jsonl"
    path.write_text(json.dumps(line) + "\n")
    rows, _ = written(tables, source="prm800k", path=str(path))
    assert [(row["completion"], row["learned"]) for row in rows] == [("a\n\n", [True])]


def test_a_file_of_another_format_or_of_other_problems_is_refused(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = metamath(tables, {"question": "q", "answer": "#### 4"})
    with pytest.raises(ProblemError, match=r"first of 1 bad lines: MetaMathQA\.json:1: no field 'query'"):
        written(tables, source="metamath", path=path)
    path = metamath(tables, rewrite(HARD.question))
    with pytest.raises(ProblemError, match=r"left out: \{'not an easy training problem': 1\}"):
        written(tables, source="metamath", path=path)
    monkeypatch.delenv("E2H_DATA_DIR", raising=False)
    for source in ("metamath", "prm800k"):
        with pytest.raises(ProblemError, match=r"set solutions\.path"):
            written(tables, source=source)


def test_the_check_sees_what_must_not_be_learned(tables: Path) -> None:
    written(tables)
    path = tables / "easy_solutions" / "data.parquet"
    table = read_table(path)
    rows = table.to_pylist()

    def changed(**values: str) -> list[str]:
        import pyarrow as pa

        write_table(path, pa.Table.from_pylist([{**rows[0], **values}, *rows[1:]], schema=table.schema))
        return findings(tables)

    assert changed(problem_id="train/4") == ["easy_solutions: train/4 is not an easy training problem"]
    assert changed(problem_id="train/3") == ["easy_solutions: train/3 is not an easy training problem"]
    assert changed(question=HARD.question) == [
        "easy_solutions has 1 questions that are same in hard_questions: train/1 as train/4"
    ]
    assert changed(question="which is the seventh natural number") == [
        "easy_solutions has 1 questions that are reworded in benchmark_questions: train/1 as test/5"
    ]
    assert changed(question="Rewritten.") == []


@pytest.mark.parametrize(
    "attack",
    [
        "WHAT IS THE SEVENTH NATURAL NUMBER",  # case
        "What is the seventh natural number.",  # a dot
        "What is the  seventh\n natural number",
        "Which is the seventh natural number?",  # a word
        "What is the seventh natural number, please?",
        "what is $\\int_0^7 \\, dx$ ...",  # a hard one
        "Find $\\int_0^7 dx$.",
    ],
)
def test_a_rewritten_question_that_is_held_out_is_left_out(tables: Path, attack: str) -> None:
    """Under the text of an easy problem as its original, and as GSM8K's."""
    path = metamath(
        tables,
        rewrite(TRAIN[0].question, attack, "MATH_Rephrased"),
        rewrite("Ann has 3 apples and buys 4. How many?", attack, "GSM_Rephrased", "8"),
        rewrite(TRAIN[1].question),
    )
    rows, summary = written(tables, source="metamath", path=path)
    assert [row["problem_id"] for row in rows] == ["train/2"]
    assert sum(summary["dropped"].values()) == 2
    assert all("as a question that is held out" in reason for reason in summary["dropped"])


def test_a_rewritten_question_like_a_held_out_one_is_listed(tables: Path) -> None:
    text = "Ann buys some apples and some pears and gives half of them to Bob who eats {}"
    asked = problem("test/8", 5, text.format(14))
    write_table(tables / "benchmark_questions" / "data.parquet", question_table([BENCHMARK, asked]))
    path = metamath(tables, rewrite(TRAIN[0].question, text.format(15), "MATH_Rephrased"))
    rows, summary = written(tables, source="metamath", path=path)
    assert len(rows) == 1  # another number: another problem
    assert summary["like_held_out"] == 1
    assert summary["first_like_held_out"] == ["train/1 as test/8, similarity 0.86"]


def test_right_steps_of_another_problem_under_an_easy_id_are_left_out(tables: Path) -> None:
    path = tables / "labels.jsonl"
    rated = {"level": 1, "steps": ["a"], "ratings": [1]}
    lines = [
        {"unique_id": "train/1", "problem": HARD.question, **rated},
        {"unique_id": "train/2", "problem": TRAIN[1].question.upper(), **rated},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows, summary = written(tables, source="prm800k", path=str(path))
    assert [row["problem_id"] for row in rows] == ["train/2"]
    assert summary["dropped"] == {"its text is not that of the problem its id names": 1}


def test_no_source_can_bring_the_id_of_a_held_out_problem(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one of an installed package."""
    from e2h_pipeline.supervision.solutions.reference import Reference
    from e2h_pipeline.supervision.solutions.source import DrawnSolutions, SolutionJob

    def draw(self: Reference, job: SolutionJob) -> DrawnSolutions:
        stranger = {**job.train[0], "problem_id": "train/4"}
        return DrawnSolutions(reference_solutions([stranger, job.train[1]], job.text))

    from e2h_pipeline.supervision.solutions.reference import reference_solutions

    monkeypatch.setattr(Reference, "draw", draw)
    rows, _ = written(tables)
    assert [row["problem_id"] for row in rows] == ["train/2"]
