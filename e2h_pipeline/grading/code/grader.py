"""`unit-tests`: a program is right if it passes the tests in the payload of its problem.

Tiers say what came of it: passed, failed, error, timeout, memory, undecided, or `untested` where a problem
carries no tests. The reference solution of a problem has no say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from e2h_pipeline.grading.classes import connected
from e2h_pipeline.grading.code.behaviour import Probe, probe_of
from e2h_pipeline.grading.code.box import Limits
from e2h_pipeline.grading.code.sandbox import PASSED, UNDECIDED, Sandbox, TestResult
from e2h_pipeline.grading.code.suites import PAYLOAD
from e2h_pipeline.grading.verdicts import Grade, Pair, Verdict

REVISION = 1
"""Raise when a rule changes: the version stands in every result."""
_UNTESTED = Grade(Verdict.UNDECIDED, "untested")


class UnitTestGrader:
    """Runs programs in a sandbox."""

    name = "unit-tests"
    reads_problem = True

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.undecided = 0
        self.version = f"{self.name}/{REVISION} python/{sys.version_info.major}.{sys.version_info.minor}"

    @classmethod
    @contextmanager
    def open(cls, workers: int | None, cpu_seconds: float) -> Iterator[UnitTestGrader]:
        """See `GraderEntry`. The limit holds for each case of a program that reads and writes, and for all
        calls of one that is called."""
        with Sandbox(workers, Limits(cpu_seconds=cpu_seconds)) as sandbox:
            yield cls(sandbox)

    def grade_pairs(self, pairs: Sequence[Pair]) -> list[Grade]:
        """A grade per pair, in order.

        Raises:
            SandboxError: this host cannot hold a program.
        """
        tests = [dict(gold.payload).get(PAYLOAD) for gold, _ in pairs]
        jobs = [(pair[1], suite) for pair, suite in zip(pairs, tests, strict=True) if suite is not None]
        results = iter(self._sandbox.check(jobs))
        grades = [_UNTESTED if suite is None else _grade(next(results)) for suite in tests]
        self.undecided += sum(grade.verdict is Verdict.UNDECIDED for grade in grades)
        return grades

    def classes(
        self, problems: Sequence[Sequence[str | None]], questions: Sequence[str] = ()
    ) -> list[list[int | None]]:
        """Programs that do the same on the inputs made for their question share a class; one that fails on all
        of them has none. Without an example in the question, programs with the same lines share a class.

        Raises:
            SandboxError: this host cannot hold a program.
        """
        probes = [probe_of(question) for question in questions] or [None] * len(problems)
        jobs = [
            (program, probe)
            for programs, probe in zip(problems, probes, strict=True)
            if probe is not None
            for program in dict.fromkeys(programs)
            if program is not None
        ]
        seen = dict(zip(jobs, self._sandbox.watch(jobs), strict=True))
        return [
            connected([_form(program, probe, seen) for program in programs], ())
            for programs, probe in zip(problems, probes, strict=True)
        ]


def _form(
    program: str | None, probe: Probe | None, seen: Mapping[tuple[str, Probe], tuple[str | None, ...]]
) -> str | None:
    """The same text for programs that vote together."""
    if program is None or probe is None:
        return None if program is None else _lines(program)
    does = seen[program, probe]
    return json.dumps(does) if any(result is not None for result in does) else None


def _grade(result: TestResult) -> Grade:
    if result.word == PASSED:
        return Grade(Verdict.EQUAL, result.word)
    verdict = Verdict.UNDECIDED if result.word == UNDECIDED else Verdict.DIFFERENT
    return Grade(verdict, result.word, detail=str(result))


def _lines(program: str) -> str:
    """The program without blank lines and lines of comment. It is not parsed: it is anybody's text."""
    lines = (line.rstrip() for line in program.splitlines())
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))
