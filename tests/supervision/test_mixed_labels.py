"""Several sources of step labels in one recipe: the first source that labels a step wins; rows
carry weights."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelling import Rows, label_steps

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.generation.sample_pool import pool_table
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.records import Problem, ProblemSplit, easy_table
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.supervision.once import EarlierLabels
from e2h_pipeline.supervision.rows import UNLABELLED, until_first_error

NAME = "train/algebra/1"
SAMPLES = ["1+2=3\n\n3*2=6\n\n# Answer\n\n6", "1+2=3\n\n3*2=5\n\n# Answer\n\n5", "1+2=4"]
COLUMNS = ["problem_id", "level", "sample", "split", "question", "completion", "labels", "finished"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An easy problem with three samples, labelled by two files of ratings."""
    problem = Problem(NAME, 2, "arithmetic", "1+2*2", ("1+2=3", "3*2=6"), "6")
    write_table(tmp_path / "easy" / "data.parquet", easy_table(ProblemSplit((problem,), (), (), ())))
    pairs = [
        ({"problem_id": NAME, "level": 2}, Sample(i, text, (1, 2), "stop", -1.0))
        for i, text in enumerate(SAMPLES)
    ]
    write_table(tmp_path / "samples" / "data" / "part-00000.parquet", pool_table(pairs, LADDER))
    rated(tmp_path / "one.jsonl", (["1+2=3", "3*2=5", "So."], [1, -1, 1]), (["Now.", "Then."], [1, 1]))
    rated(
        tmp_path / "two.jsonl",
        (["Now.", "Else."], [-1, 1]),  # wrong for the second, right for the first
        (["1+2=3", "3*2=5", "So."], [1, 1, 1]),  # goes on after a step that the first calls wrong
        (["Other.", "3*2=6"], [1, 1]),
    )
    return tmp_path


def rated(path: Path, *solutions: tuple[list[str], list[int]]) -> None:
    lines = [
        {"unique_id": NAME, "level": 2, "problem": "1+2*2", "steps": steps, "ratings": ratings}
        for steps, ratings in solutions
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def people(folder: Path, name: str, **options: Any) -> dict[str, Any]:
    return {"source": "prm800k", "path": str(folder / f"{name}.jsonl"), **options}


def told(rows: Rows) -> list[tuple[int, str, list[float]]]:
    return [(row["sample"], " ".join(row["completion"].split()), row["labels"]) for row in rows]


def test_the_source_that_is_listed_first_labels_a_step(folder: Path) -> None:
    rows, summary = label_steps(folder, people(folder, "one"), people(folder, "two"))
    assert told(rows) == [
        (0, "1+2=3 3*2=5 So.", [1, 0, -1]),
        (1, "Now. Then.", [1, 1]),
        (4, "Other. 3*2=6", [1, 1]),
    ]
    assert summary["solutions"] == 3
    second = summary["sources"]["2 prm800k"]
    assert (second["solutions"], second["right_steps"], second["wrong_steps"]) == (1, 2, 0)
    assert {
        name: second[name] for name in ("already_labelled", "labelled_otherwise", "without_new_label")
    } == {
        "already_labelled": 3,  # Now.; 1+2=3 and 3*2=5
        "labelled_otherwise": 2,
        "without_new_label": 2,
    }
    other, _ = label_steps(folder, people(folder, "two"), people(folder, "one"))
    assert told(other)[:3] == [
        (0, "Now. Else.", [0, -1]),
        (1, "1+2=3 3*2=5 So.", [1, 1, 1]),
        (2, "Other. 3*2=6", [1, 1]),
    ]
    assert len(other) == 3


def test_a_source_keeps_its_own_rule_within_itself(folder: Path) -> None:
    """The checker labels a step in every solution that has it; beside human labels it labels the
    other steps."""
    alone, _ = label_steps(folder, {"source": "checker", "balance": False})
    assert [row["labels"] for row in alone] == [[1, 1, 1], [1, 0, -1], [0]]
    first, _ = label_steps(folder, {"source": "checker", "balance": False}, people(folder, "one"))
    assert first[:3] == alone
    assert told(first[3:]) == [(4, "Now. Then.", [1, 1])]
    last, _ = label_steps(folder, people(folder, "one"), {"source": "checker", "balance": False})
    assert told(last[2:]) == [(2, "1+2=3 3*2=6 # Answer 6", [-1, 1, 1]), (4, "1+2=4", [0])]


def test_what_the_first_source_draws_does_not_depend_on_the_others(folder: Path) -> None:
    for limited in ({"source": "checker", "limit": 1}, {"source": "checker", "balance": True}):
        alone, _ = label_steps(folder, limited)
        both, _ = label_steps(folder, limited, people(folder, "one"))
        numbers = {row["sample"] for row in alone}
        assert [row for row in both if row["sample"] in numbers] == alone


def test_a_limit_is_of_one_source(folder: Path) -> None:
    rows, summary = label_steps(folder, people(folder, "one", limit=1), people(folder, "two"))
    assert summary["sources"]["1 prm800k"]["solutions"] == 1
    assert summary["sources"]["2 prm800k"]["solutions"] == len(rows) - 1 >= 1


def test_weights_are_a_column_where_one_is_not_1(folder: Path) -> None:
    rows, _ = label_steps(folder, people(folder, "one"), people(folder, "two", weight=0.5))
    assert [row["weight"] for row in rows] == [1, 1, 0.5]
    assert read_table(folder / "out" / "data.parquet").column_names == [*COLUMNS, "weight"]
    for sources in ([people(folder, "one"), people(folder, "two")], [people(folder, "one")]):
        label_steps(folder, *sources)
        assert read_table(folder / "out" / "data.parquet").column_names == COLUMNS


def test_a_source_alone_is_told_as_it_always_was(folder: Path) -> None:
    _, summary = label_steps(folder, people(folder, "one"))
    assert "sources" not in summary
    assert summary["source_records"] == {"records": 2}


def test_a_recipe_names_sources_in_order() -> None:
    recipe = Recipe.model_validate(
        {"name": "x", "labels": [{"source": "prm800k"}, {"source": "shepherd", "weight": 0.5}]}
    )
    assert [(options.source, options.weight) for options in recipe.labels] == [
        ("prm800k", 1),
        ("shepherd", 0.5),
    ]


SOLUTIONS = st.lists(
    st.lists(
        st.tuples(st.sampled_from("ABC"), st.sampled_from([1.0, 0.0, UNLABELLED])), min_size=1, max_size=4
    ),
    max_size=6,
)


@given(st.lists(SOLUTIONS, min_size=1, max_size=3))
def test_no_step_has_labels_of_two_sources_and_no_number_comes_twice(
    sources: list[list[list[tuple[str, float]]]],
) -> None:
    earlier = EarlierLabels(MARKED)
    owner: dict[tuple[str, ...], int] = {}
    numbers: list[int] = []
    for place, drawn in enumerate(sources):
        rows = [
            {
                "problem_id": "a",
                "sample": number,
                "completion": "\n\n".join(step for step, _ in steps),
                "labels": until_first_error(label for _, label in steps),
            }
            for number, steps in enumerate(drawn)
        ]
        new, _ = earlier.new_rows(rows)
        earlier.add(new)
        for row in new:
            steps = MARKED.parse(row["completion"]).steps
            assert len(row["labels"]) == len(steps)
            assert row["labels"] == until_first_error(row["labels"])
            for k, label in enumerate(row["labels"], start=1):
                if label != UNLABELLED:
                    assert owner.setdefault(steps[:k], place) == place
            numbers.append(row["sample"])
    assert len(set(numbers)) == len(numbers)
