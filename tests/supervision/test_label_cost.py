"""Labels bought and agreement of sources, as figures of the labels artifacts."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelling import label_steps

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.generation.sample_pool import pool_table
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.records import Problem, ProblemSplit, easy_table
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.supervision.cost import agreement_of_sources, labels_bought
from e2h_pipeline.supervision.rows import UNLABELLED, WRONG

NAME = "train/algebra/1"
SAMPLES = ["1+2=3\n\n3*2=6\n\n# Answer\n\n6", "1+2=3\n\n3*2=5\n\n# Answer\n\n5", "1+2=4"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An easy problem with three samples."""
    problem = Problem(NAME, 2, "arithmetic", "1+2*2", ("1+2=3", "3*2=6"), "6")
    write_table(tmp_path / "easy" / "data.parquet", easy_table(ProblemSplit((problem,), (), (), ())))
    pairs = [
        ({"problem_id": NAME, "level": 2}, Sample(i, text, (1, 2), "stop", -1.0))
        for i, text in enumerate(SAMPLES)
    ]
    write_table(tmp_path / "samples" / "data" / "part-00000.parquet", pool_table(pairs, LADDER))
    return tmp_path


def people(folder: Path, *solutions: tuple[list[str], list[int]], **options: Any) -> dict[str, Any]:
    """A source of people's ratings of these solutions."""
    lines = [
        {"unique_id": NAME, "level": 2, "problem": "1+2*2", "steps": steps, "ratings": ratings}
        for steps, ratings in solutions
    ]
    (folder / "people.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"source": "prm800k", "path": str(folder / "people.jsonl"), **options}


def checker(**options: Any) -> dict[str, Any]:
    return {"source": "checker", **options}


def bought(folder: Path, *sources: dict[str, Any]) -> int:
    return int(label_steps(folder, *sources)[1]["labels_bought"])


def test_a_step_after_the_same_steps_is_asked_for_once(folder: Path) -> None:
    assert bought(folder, checker(balance=False)) == 5  # 3 of the first sample, 1 more, 1 of the third


def test_balance_pays_for_what_it_drops_and_a_limit_does_not(folder: Path) -> None:
    rows, summary = label_steps(folder, checker(balance=True, limit=1))
    assert (len(rows), summary["labels_bought"]) == (1, 5)
    rows, summary = label_steps(folder, checker(balance=False, limit=1))
    assert summary["labels_bought"] == sum(label != UNLABELLED for label in rows[0]["labels"])


def test_people_are_asked_once_for_a_step_and_its_answer_block(folder: Path) -> None:
    together = (["1+2=3", "3*2=6\n\n# Answer\n\n6"], [1, 1])
    apart = (["1+2=3", "3*2=6", "# Answer\n\n6"], [1, 1, 1])
    assert bought(folder, people(folder, together)) == 2
    assert bought(folder, people(folder, apart)) == 3


@pytest.mark.parametrize("neutral", ["positive", "soft", "drop"])
def test_a_neutral_rating_costs_whatever_becomes_of_it(folder: Path, neutral: str) -> None:
    assert bought(folder, people(folder, (["A.", "B."], [0, 1]), neutral=neutral)) == 2


def test_each_source_pays_for_its_own_labels_and_the_agreement_is_told(folder: Path) -> None:
    # The checker says 1, 1, 1 of the first sample and 1, 0 of the second. People disagree on 3*2=5.
    rated = people(
        folder, (["1+2=3", "3*2=6\n\n# Answer\n\n6"], [1, 1]), (["1+2=3", "3*2=5"], [1, 1]), (["1+2=4"], [-1])
    )
    _, summary = label_steps(folder, rated, checker(balance=False))
    by_source = {name: told["labels_bought"] for name, told in summary["sources"].items()}
    assert by_source == {"1 prm800k": 4, "2 checker": 5}
    assert summary["labels_bought"] == 9
    found = summary["agreement"]["1 prm800k and 2 checker"]
    assert (found["steps"], found["equal"]) == (5, 0.8)  # 1+2=3, 3*2=6, the answer, 1+2=4; not 3*2=5
    assert (found["right_wrong"], found["wrong_wrong"], found["wrong_right"]) == (1, 1, 0)
    # By chance: .8 * .6 + .2 * .4 = .56
    assert found["kappa"] == pytest.approx((0.8 - 0.56) / 0.44)


LABELS = st.sampled_from([1.0, WRONG, UNLABELLED])
SOLUTIONS = st.lists(
    st.lists(st.tuples(st.sampled_from("ABC"), LABELS), min_size=1, max_size=4), min_size=1, max_size=6
)


def as_rows(solutions: list[list[tuple[str, float]]]) -> list[dict[str, Any]]:
    return [
        {
            "problem_id": "a",
            "completion": "\n\n".join(step for step, _ in steps),
            "labels": [x for _, x in steps],
        }
        for steps in solutions
    ]


@given(SOLUTIONS, SOLUTIONS)
def test_no_order_and_no_repetition_changes_the_cost(
    first: list[list[tuple[str, float]]], second: list[list[tuple[str, float]]]
) -> None:
    one, other, both = (labels_bought(as_rows(s), MARKED) for s in (first, second, first + second))
    assert labels_bought(as_rows(second + first), MARKED) == both
    assert labels_bought(as_rows(first * 2), MARKED) == one
    assert max(one, other) <= both <= one + other


@given(SOLUTIONS)
def test_a_source_agrees_with_itself(solutions: list[list[tuple[str, float]]]) -> None:
    rows = as_rows(solutions)
    (found,) = agreement_of_sources({"1": rows, "2": rows}, MARKED).values()
    assert found["equal"] == (1.0 if found["steps"] else None)
    assert found["kappa"] in (None, pytest.approx(1.0))
