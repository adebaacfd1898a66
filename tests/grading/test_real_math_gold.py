r"""The gold answers of MATH against themselves and against each other.

Distinct gold answers are a sharp test: nearly every pair of the 301 texts in MATH500 has two
different values. So a person can check all pairs that a grader calls equal: `SAME`.
"""

from collections.abc import Iterator
from itertools import combinations, permutations
from pathlib import Path

import pytest
from graded_texts import verdicts_of

from e2h_pipeline.grading.graders import Grader, Verdict, grader
from e2h_pipeline.problems.jsonl import read_jsonl

MODE = "math"

SAME = {
    (r"\frac14", r"\frac{1}{4}"),
    (r"2 \sqrt{5}", r"2\sqrt{5}"),
    (r"10,\!080", "10080"),
    ("-2,1", "1,-2"),  # solutions listed without brackets have no order
    ("(-2,1)", "-2,1"),  # brackets left out
    ("5", "x=5"),  # name left out
    ("36", r"\$36"),  # unit left out; 36 degrees are not 36 dollars
    ("36", r"36^\circ"),
    ("30", r"30^\circ"),
    ("90", r"90^\circ"),
    ("120", r"120^\circ"),
    ("15", r"15\mbox{ cm}^2"),
    (r"180^\circ", r"\pi"),  # an angle in degrees and in radians
}
r"""All equal pairs of MATH500 gold answers, each in order."""


@pytest.fixture(scope="module")
def judge() -> Iterator[Grader]:
    with grader(MODE, workers=2) as opened:
        yield opened


def test_every_math_gold_equals_itself(data_dir: Path, judge: Grader) -> None:
    golds = [
        row["answer"]
        for part in ("train", "test")
        for _, row in read_jsonl(data_dir / f"math/math_{part}.jsonl.gz")
    ]
    found = verdicts_of(judge, [(gold, gold) for gold in golds])
    assert len(golds) == 12_500
    assert [gold for gold, verdict in zip(golds, found, strict=True) if verdict is not Verdict.EQUAL] == []


def test_distinct_math500_golds(data_dir: Path, judge: Grader) -> None:
    pairs = list(permutations(math500_golds(data_dir), 2))
    found = dict(zip(pairs, verdicts_of(judge, pairs), strict=True))
    equal = {pair for pair, verdict in found.items() if verdict is Verdict.EQUAL}
    assert len(pairs) == 301 * 300
    assert equal == SAME | {(b, a) for a, b in SAME}
    assert [pair for pair, verdict in found.items() if verdict is Verdict.UNDECIDED] == []


def test_groups_of_math500_golds(data_dir: Path, judge: Grader) -> None:
    """Votes group equal answers only. An answer that fits two different groups joins one of
    them."""
    golds = math500_golds(data_dir)
    groups: dict[int | None, list[str]] = {}
    for gold, number in zip(golds, judge.classes([golds])[0], strict=True):
        groups.setdefault(number, []).append(gold)
    joined = {pair for group in groups.values() for pair in combinations(group, 2)}
    assert joined <= SAME
    assert SAME - joined <= {("-2,1", "1,-2"), ("(-2,1)", "-2,1"), ("36", r"\$36"), ("36", r"36^\circ")}
    assert len(SAME - joined) == 2


def math500_golds(data_dir: Path) -> list[str]:
    """The distinct texts, sorted."""
    return sorted({row["answer"] for _, row in read_jsonl(data_dir / "math/math500.jsonl")})
