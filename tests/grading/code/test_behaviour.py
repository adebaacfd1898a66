"""Programs vote by what they do."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.shards import LocalRunner
from e2h_pipeline.evaluation.graded import vote_classes
from e2h_pipeline.grading.code.behaviour import INPUTS, canonical, probe_of
from e2h_pipeline.grading.graders import Grader, grader
from e2h_pipeline.grading.sharded import sharded_grader
from e2h_pipeline.reranking.vote import pass_at_n, subset_shares

CALLED = "Give the largest.\n\ndef top(numbers):\n    >>> top([3, 1, 2])\n    3\n    >>> top([-1])\n    -1"
READS = "Add the numbers.\n\n-----Examples-----\nInput\n3\n1 2 3\n\nOutput\n6\n\nInput\n1\n5\n\nOutput\n5\n"
TOPS = [
    "def top(numbers):\n    return max(numbers)",
    "def top(numbers):\n    best = numbers[0]\n    for n in numbers:\n        best = max(n, best)\n    return best",
    "def top(numbers):\n    return sorted(numbers)[-1]",
    "def top(numbers):\n    return numbers[0]",
    "def top(numbers):\n    return numbers[0]  # the first",
    "def top(numbers):\n    return numers",
    "def top(",
]  # fmt: skip


@pytest.fixture(scope="module")
def judge() -> Iterator[Grader]:
    with grader("unit-tests", 1, 1.0) as judge:
        yield judge


def test_programs_that_do_the_same_vote_together(judge: Grader) -> None:
    reads = [
        "input(); print(sum(map(int, input().split())))",
        "n = input()\nprint(eval('+'.join(input().split())))",
    ]
    answers = [[*TOPS, None], [*reads, "print(6)"]]
    assert judge.classes(answers, [CALLED, READS]) == [[0, 0, 0, 1, 1, None, None, None], [0, 0, 1]]
    assert judge.classes([TOPS[::-1]], [CALLED]) == [[None, None, 0, 0, 1, 1, 1]]


def test_without_an_example_texts_vote(judge: Grader) -> None:
    assert judge.classes([TOPS[3:5]], ["Give the first."]) == [[0, 1]]
    assert judge.classes([[TOPS[0], TOPS[0] + "\n\n"]], [""]) == [[0, 0]]


def test_the_majority_is_that_of_behaviour(judge: Grader, tmp_path: object) -> None:
    from pathlib import Path

    with sharded_grader("unit-tests", Path(str(tmp_path)), LocalRunner(), Reporter()) as sharded:
        classes = vote_classes([TOPS], sharded, [CALLED])
    assert np.array_equal(classes, [[0, 0, 0, 1, 1, -1, -1]])
    assert np.array_equal(classes, vote_classes([TOPS], judge, [CALLED]))


def test_pass_at_n_is_the_unbiased_estimate() -> None:
    """Chen et al. 2021, section 2.1: 1 - C(n - c, k) / C(n, k) with n = 5, c = 2."""
    correct = np.array([True, False, True, False, False])
    assert pass_at_n(correct, subset_shares(5, [1, 2, 4])) == pytest.approx([0.4, 0.7, 1.0])


@pytest.mark.parametrize(
    ("question", "entry_point", "first"),
    [
        (CALLED, "top", "[[3, 1, 2]]"),
        (READS, None, "3\n1 2 3\n"),
        (
            "Turn it.\nYour program must pass this test:\nassert turned('ab', 2) == 'ba'",
            "turned",
            '["ab", 2]',
        ),
        ("def f(x):\n    f(2) is 4, and f(g(1)) is 3", "f", "[2]"),
        ("Write the function `add`. For example add(1, -2) = -1.", "add", "[1, -2]"),
        ("Sample Input 1:\n```\n7\n```\nSample Output 1:\n```\n8\n```", None, "7\n"),
    ],
)
def test_inputs_come_from_the_examples_of_a_question(
    question: str, entry_point: str | None, first: str
) -> None:
    probe = probe_of(question)
    assert probe is not None and probe.entry_point == entry_point and probe.inputs[0] == first
    assert 1 < len(probe.inputs) <= INPUTS and len(set(probe.inputs)) == len(probe.inputs)
    assert probe == probe_of(question)


@pytest.mark.parametrize(
    "question", ["", "def f(x):\n    Add x.", "Input is a number.", "Input\n\nOutput\n3", "f((((((("]
)
def test_questions_without_examples(question: str) -> None:
    assert probe_of(question) is None


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="def f(x):'[]1,> \n`InputOu", max_size=80))
def test_any_text_is_a_question(question: str) -> None:
    probe = probe_of(f"def f(x):\n{question}")
    for given_to in probe.inputs if probe and probe.entry_point else ():
        assert isinstance(json.loads(given_to), list)


def test_results_have_one_text() -> None:
    assert canonical({"b": {3, 1}, "a": (True, 0.1 + 0.2)}) == canonical({"a": [1, 0.3], "b": {1, 3}})
    assert len({canonical(value) for value in (1, "1", [1], None, {1}, {"1": 1}, 1.5)}) == 7
