"""A grader whose work is done in shards: what is graded survives a kill, and a cluster can grade.

A shard grades a block of pairs, or puts the answers of a block of problems into classes. It is named
by a hash of what is asked, so that the same request finds its result, whatever was asked before.
Blocks are small enough to keep a cluster busy, and large enough for the workers behind each grader.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.shards import LocalRunner, Runner, complete_shards, shard_path
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.grading.remembered import RememberingGrader
from e2h_pipeline.grading.verdicts import Grade, Grader, Pair, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.artifacts.reporter import Reporter

PAIRS = 1024
"""Pairs of a shard: a second or two of canonical forms, up to some minutes of algebra."""
ANSWERS = 4096
"""Answers of a shard that makes classes. All answers of a problem are in one shard."""


@contextmanager
def sharded_grader(name: str, work: Path, runner: Runner, reporter: Reporter) -> Iterator[Grader]:
    """`graders.grader`, working in shards.

    Args:
        name: of the grader, as in the recipe.
        work: where shards are kept; made on first use.
        runner: who makes them, where there are several to make.
    """
    with grader(name) as judge:
        sharded = ShardedGrader(judge, work, runner, reporter)
    try:
        yield sharded
    finally:
        _judge.cache_clear()
        _OPEN.close()


class ShardedGrader(RememberingGrader):
    """Hands blocks of pairs and of problems to a runner; each shard asks the grader of that name."""

    def __init__(self, judge: Grader, work: Path, runner: Runner, reporter: Reporter) -> None:
        super().__init__()
        self.name = judge.name
        self.version = judge.version
        self.reads_problem = judge.reads_problem
        self._work = work
        self._runner = runner
        self._reporter = reporter
        self._asked: Counter[str] = Counter()
        self._done: Counter[str] = Counter()

    def classes(
        self, problems: Sequence[Sequence[str | None]], questions: Sequence[str] = ()
    ) -> list[list[int | None]]:
        """See `Grader.classes`: all answers of a problem are in one shard."""
        asked = questions if self.reads_problem and questions else [""] * len(problems)
        blocks: list[list[tuple[str, list[str | None]]]] = []
        size = 0
        for question, answers in zip(asked, problems, strict=True):
            if not blocks or size + len(answers) > ANSWERS:
                blocks.append([])
                size = 0
            blocks[-1].append((question, list(answers)))
            size += len(answers)
        return [row["classes"] for table in self._run("classes", blocks) for row in table.to_pylist()]

    def _decide(self, pairs: Sequence[Pair]) -> list[Grade]:
        blocks = [list(pairs[i : i + PAIRS]) for i in range(0, len(pairs), PAIRS)]
        return [
            Grade(Verdict(row["verdict"]), row["tier"], row["ms"], row["detail"])
            for table in self._run("grades", blocks)
            for row in table.to_pylist()
        ]

    def _run(self, kind: str, blocks: Sequence[Any]) -> list[pa.Table]:
        """The table of each block, in order."""
        names = [f"{kind}-{_digest([self.name, self.version, block])}" for block in blocks]
        tables: dict[str, pa.Table] = {}

        def keep(name: str, made: pa.Table | None) -> None:
            tables[name] = read_table(shard_path(self._work, name)) if made is None else made
            self._done[kind] += 1
            if len(calls) > 1:
                self._reporter.progress(self._done[kind], self._asked[kind], f"blocks of {kind}")

        calls = {name: (self.name, block) for name, block in zip(names, blocks, strict=True)}
        self._asked[kind] += len(calls)
        runner = self._runner if len(calls) > 1 else LocalRunner()  # a cluster takes longer to start
        complete_shards(self._work, list(calls.items()), _FUNCTIONS[kind], runner, self._reporter, keep)
        return [tables[name] for name in names]


def grade_block(name: str, pairs: Sequence[Pair]) -> pa.Table:
    """The grade of each pair."""
    import pyarrow as pa

    grades = _judge(name).grade_pairs(pairs)
    return pa.table(
        {
            "verdict": pa.array([grade.verdict.value for grade in grades], pa.string()),
            "tier": pa.array([grade.tier for grade in grades], pa.string()),
            "ms": pa.array([grade.ms for grade in grades], pa.float64()),
            "detail": pa.array([grade.detail for grade in grades], pa.string()),
        }
    )


def class_block(name: str, problems: Sequence[tuple[str, Sequence[str | None]]]) -> pa.Table:
    """The classes of each problem's answers; the problems as (question, answers)."""
    import pyarrow as pa

    found = _judge(name).classes([answers for _, answers in problems], [question for question, _ in problems])
    return pa.table({"classes": pa.array(found, pa.list_(pa.int32()))})


_FUNCTIONS: dict[str, Callable[..., pa.Table]] = {"grades": grade_block, "classes": class_block}
"""What makes a shard, by its kind. Kinds begin the names of shard files."""
_OPEN = ExitStack()


@lru_cache(maxsize=1)
def _judge(name: str) -> Grader:
    """The grader of this process, opened once for all its shards.

    It is closed with `sharded_grader`, or with the process.
    """
    return _OPEN.enter_context(grader(name))


def _digest(asked: Any) -> str:
    """Hash of what is asked. JSON escapes half a surrogate pair, which models write and no encoding takes."""
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]
