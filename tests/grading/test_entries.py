"""The registry of graders: every entry can be opened, and its key covers exactly the code that
grades."""

from pathlib import Path

import pytest
from graded_texts import verdicts_of

from e2h_pipeline.artifacts.code_version import changed_since
from e2h_pipeline.grading.code import sandbox
from e2h_pipeline.grading.graders import Verdict, grader
from e2h_pipeline.recipe.sections.evaluation import GRADERS as WORDS
from e2h_pipeline.registry import GRADERS, RegistryError, only

OF_TESTS = {"unit-tests"}
"""Graders of what a problem's payload says; tests/grading/code has their verdicts."""


@pytest.mark.parametrize("word", GRADERS.entries)
def test_every_entry_grades_under_its_word(word: str) -> None:
    with grader(word, workers=1) as judge:
        if word not in OF_TESTS:
            assert verdicts_of(judge, [("7", "7"), ("7", "8")]) == [Verdict.EQUAL, Verdict.DIFFERENT]
        assert judge.classes([["7", None, "8", "7"]]) == [[0, None, 1, 0]]
        assert judge.name == word and judge.version and judge.undecided == 0
        assert judge.reads_problem == (word in ("math", "math-exact", *OF_TESTS))


def test_the_words_are_those_of_the_recipe() -> None:
    assert tuple(GRADERS.entries) == WORDS


def test_a_stage_must_declare_graders() -> None:
    with (
        only(["rl.algorithm"]),
        pytest.raises(RegistryError, match=r"methods of evaluation\.grader"),
        grader("exact"),
    ):
        pass


@pytest.mark.parametrize(
    ("word", "started"),
    [
        ("exact", set()),
        ("e2h-string", set()),
        ("math", {"worker.py", "tasks/math_verify.py"}),
        ("math-exact", {"worker.py", "tasks/math_verify.py"}),
        ("math-verify", {"worker.py", "tasks/math_verify.py"}),
        ("prm800k", {"worker.py", "tasks/prm800k.py"}),
        ("unit-tests", set()),
    ],
)
def test_a_key_covers_what_a_grader_starts(word: str, started: set[str]) -> None:
    covered = {str(path).partition("/grading/")[2] for path in changed_since([GRADERS.code(word)], 0.0)}
    assert {name for name in covered if name == "worker.py" or name.startswith("tasks/")} == started
    own = Path(GRADERS.entries[word].partition(":")[0].replace(".", "/") + ".py").relative_to(
        "e2h_pipeline/grading"
    )
    assert str(own) in covered


def test_a_key_covers_all_that_runs_in_the_sandbox() -> None:
    covered = {
        path.name for path in changed_since([GRADERS.code("unit-tests")], 0.0) if path.parent.name == "inside"
    }
    inside = {path.name for path in Path(sandbox.__file__).with_name("inside").glob("*.py")}
    assert covered - {"__init__.py"} == inside - {"__init__.py"}


def test_graders_share_no_code_of_their_own() -> None:
    versions = {word: GRADERS.code(word).version() for word in GRADERS.entries}
    assert len(set(versions.values())) == len(versions)
