"""Golds of table rows, and pairs that are graded once; a toy grader that reads the problem."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.shards import LocalRunner
from e2h_pipeline.grading import sharded
from e2h_pipeline.grading.exact import ExactGrader
from e2h_pipeline.grading.remembered import RememberingGrader
from e2h_pipeline.grading.sharded import sharded_grader
from e2h_pipeline.grading.verdicts import Gold, Grade, Pair, Verdict, decide, verdicts
from e2h_pipeline.registry import GRADERS

EQUAL, DIFFERENT, UNDECIDED = Verdict.EQUAL, Verdict.DIFFERENT, Verdict.UNDECIDED


class WordsGrader(RememberingGrader):
    """An answer is right if it has every word that the problem requires; undecided if the problem
    requires none."""

    name, version, reads_problem = "words", "words/1", True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Pair] = []

    @classmethod
    @contextmanager
    def open(cls, workers: int | None, cpu_seconds: float) -> Iterator["WordsGrader"]:
        yield cls()

    def _decide(self, pairs: Sequence[Pair]) -> list[Grade]:
        self.asked += pairs
        return [Grade(self._verdict(gold, answer), "words") for gold, answer in pairs]

    def _verdict(self, gold: Gold, answer: str) -> Verdict:
        if not gold.payload:
            return UNDECIDED
        return EQUAL if all(word in answer for _, word in gold.payload) else DIFFERENT


def asking(question: str, *words: str) -> Gold:
    return Gold("", question, tuple((str(i), word) for i, word in enumerate(words)))


PAIRS: list[Pair] = [
    (asking("one", "a"), "a b"),
    (asking("two", "a", "c"), "a b"),
    (asking("three"), "a b"),
    (asking("one", "a"), "b"),
    (asking("one", "a"), "a b"),
]
VERDICTS = [EQUAL, DIFFERENT, UNDECIDED, DIFFERENT, EQUAL]


def test_a_gold_of_a_row() -> None:
    assert Gold.of_row({"answer": 7}) == Gold("7") == Gold("7", "", ())
    row = {"answer": "7", "question": "3+4", "payload": {"b": "2", "a": "1"}, "level": 1}
    assert Gold.of_row(row) == Gold("7", "3+4", (("a", "1"), ("b", "2")))
    assert Gold.of_row({**row, "payload": None, "question": None}) == Gold("7")


def test_a_gold_of_a_table_with_a_map() -> None:
    kind = pa.map_(pa.string(), pa.string())
    table = pa.table({"answer": ["7", "8"], "payload": pa.array([{"b": "2", "a": "1"}, None], kind)})
    assert [Gold.of_row(row) for row in table.to_pylist()] == [
        Gold("7", "", (("a", "1"), ("b", "2"))),
        Gold("8"),
    ]


def test_a_grader_that_reads_answers_only_is_asked_once_for_the_same_answers() -> None:
    asked: list[Pair] = []

    class Counting(ExactGrader):
        def grade_pairs(self, pairs: Sequence[Pair]) -> list[Grade]:
            asked.extend(pairs)
            return super().grade_pairs(pairs)

    pairs: list[Pair | None] = [(Gold("7", "p"), "8"), None, (Gold("7", "q"), "7"), (Gold("7", "q"), "8")]
    assert decide(Counting(), pairs) == ([DIFFERENT, None, EQUAL, DIFFERENT], 0)
    assert asked == [(Gold("7"), "7"), (Gold("7"), "8")]  # in order of their texts


def test_a_grader_that_reads_the_problem_sees_it() -> None:
    judge = WordsGrader()
    assert decide(judge, PAIRS) == (VERDICTS, 1)
    assert len(judge.asked) == 4  # the repeat is asked once
    assert verdicts(judge, PAIRS) == VERDICTS
    assert len(judge.asked) == 4 and judge.undecided == 1  # remembered


def test_a_gold_that_is_too_long_is_not_remembered() -> None:
    judge = WordsGrader()
    long = asking("one", "a" * 5000)
    assert verdicts(judge, [(long, "b")]) == verdicts(judge, [(long, "b")]) == [DIFFERENT]
    assert len(judge.asked) == 2


def test_shards_carry_the_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "PAIRS", 2)
    monkeypatch.setattr(type(GRADERS), "load", lambda _registry, _word: WordsGrader)
    with sharded_grader("words", tmp_path, LocalRunner(), Reporter()) as judge:
        assert (judge.name, judge.version, judge.reads_problem) == ("words", "words/1", True)
        assert verdicts(judge, PAIRS) == VERDICTS
        assert judge.undecided == 1
    assert len(list(tmp_path.glob("grades-*.parquet"))) == 2
