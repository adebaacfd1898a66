import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from graded_texts import verdicts_of
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import children_of

from e2h_pipeline.grading.exact import ExactGrader
from e2h_pipeline.grading.graders import Verdict, grader
from e2h_pipeline.grading.published.math_verify import MathVerifyGrader, normalise
from e2h_pipeline.grading.worker_pool import GradingError, WorkerPool

TASK = "e2h_pipeline.grading.tasks.math_verify"
EQUAL, DIFFERENT, UNDECIDED = Verdict.EQUAL, Verdict.DIFFERENT, Verdict.UNDECIDED


@pytest.fixture(scope="module")
def math_verify() -> Iterator[MathVerifyGrader]:
    with WorkerPool(workers=2, cpu_seconds=2) as pool:
        yield MathVerifyGrader(pool)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_exact_is_string_equality() -> None:
    pairs = [("7", " 7\n"), ("7", "7.0"), ("", "")]
    assert verdicts_of(ExactGrader(), pairs) == [EQUAL, DIFFERENT, EQUAL]


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("\\frac{1}{2}", "0.5", EQUAL),
        ("\\frac{1}{2}", "$\\dfrac{1}{2}$", EQUAL),
        ("2\\sqrt{2}", "\\sqrt{8}", EQUAL),
        ("x+1", "1+x", EQUAL),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\frac{\\pi}{2})", EQUAL),
        ("1024", "2^{10}", EQUAL),
        ("7", "007", EQUAL),
        ("7", "8", DIFFERENT),
        ("\\frac{1}{2}", "\\frac{1}{3}", DIFFERENT),
        ("x+1", "x-1", DIFFERENT),
        ("7", "", DIFFERENT),
        ("7", "def f(): import os", DIFFERENT),
    ],
)
def test_math_verify(math_verify: MathVerifyGrader, gold: str, answer: str, verdict: Verdict) -> None:
    assert verdicts_of(math_verify, [(gold, answer)]) == [verdict]


def test_order_and_repeats_are_kept(math_verify: MathVerifyGrader) -> None:
    pairs = [("\\frac{3}{4}", "0.75"), ("3", "4"), ("\\frac{3}{4}", "0.75"), ("y+2", "2+y"), ("z", "y")] * 20
    expected = [EQUAL, DIFFERENT, EQUAL, EQUAL, DIFFERENT] * 20
    assert verdicts_of(math_verify, pairs) == expected
    start = time.perf_counter()
    assert verdicts_of(math_verify, pairs) == expected  # remembered
    assert time.perf_counter() - start < 0.1


def test_spaces_that_mean_something_stay() -> None:
    assert normalise("1, 234") != normalise("1,234")
    assert normalise("7 3/4") != normalise("73/4")
    assert normalise("5\\ cm") == "5\\ cm"
    assert normalise("$5.$") == normalise("$5$.") == normalise(" 5 ") == "5"
    assert normalise("It is  $x$.") == "It is $x$."
    assert normalise("\\left[ x \\right.") == "\\left[x\\right."
    assert normalise(" \\left( 1,  2 \\right). ") == "(1, 2)"


HOSTILE = [
    "2^{2^{2^{2^{2^{2}}}}}",
    "9^{9^{9^{9}}}",
    "9**9**9**9",
    "((10!)!)!",
    "10^{100000000}",
    "{" * 3000,
    "(" * 400 + "1" + ")" * 400,
    "\\frac{" * 300,
    "x" * 1_000_000,
    "\x00\x00",
    "\ud800",
    "__import__('os').system('touch pwned')",
    '{"gold": 1}\n"equal"\n',
    "\\boxed{",
    "}" * 100,
    "1,\n" * 500,
]


def test_hostile_answers_leave_no_trace() -> None:
    start = time.perf_counter()
    before = set(children_of(os.getpid()))
    with grader("math-verify", workers=2, cpu_seconds=0.5) as judge:
        words = verdicts_of(judge, [("\\frac{x}{3}", text) for text in HOSTILE])
        assert EQUAL not in words
        assert judge.undecided == words.count(UNDECIDED) >= 5
        assert verdicts_of(judge, [("\\frac{1}{2}", "0.5")]) == [EQUAL]  # still at work
        assert set(children_of(os.getpid())) - before
    assert set(children_of(os.getpid())) == before
    assert time.perf_counter() - start < 600


def test_memory_is_limited() -> None:
    with WorkerPool(workers=1, cpu_seconds=20, memory_bytes=1 << 29) as pool:
        assert pool.compare([("x", "10^{3000000000}")], TASK) != ["equal"]


def test_a_worker_that_cannot_start_is_an_error() -> None:
    with (
        WorkerPool(workers=1, memory_bytes=1 << 24) as pool,
        pytest.raises(GradingError, match="cannot start"),
    ):
        pool.compare([("x", "y")], TASK)


def test_a_killed_worker_is_replaced() -> None:
    with WorkerPool(workers=1) as pool:
        assert pool.compare([("x+1", "1+x")], TASK) == ["equal"]
        pool._workers[0].process.kill()
        pool._workers[0].process.wait()
        assert pool.compare([("x+1", "1+x")], TASK) == ["equal"]


PARENT = f"""
import sys, threading, time
from e2h_pipeline.grading.worker_pool import WorkerPool
pool = WorkerPool(workers=2, cpu_seconds=1)
pool.compare([("x", "y"), ("x+1", "1+x"), ("y", "x")], {TASK!r})
busy = threading.Thread(target=pool.compare, args=([("x", "9^{{9^{{9^{{9}}}}}}")], {TASK!r}), daemon=True)
busy.start()
time.sleep(0.2)
print(*[w.process.pid for w in pool._workers], flush=True)
time.sleep(60)
"""


def test_workers_die_with_their_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert pids and not any(alive(pid) for pid in pids)


def test_an_unknown_grader_is_named() -> None:
    with pytest.raises(ValueError, match=r"evaluation\.grader: no 'sympy'"), grader("sympy"):
        pass


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="0123456789xy+-*/^(){}\\frac sqrt,.$!", max_size=40))
def test_no_text_raises_and_every_answer_equals_itself(math_verify: MathVerifyGrader, text: str) -> None:
    same, other = verdicts_of(math_verify, [(text, text), ("\\frac{1}{3}", text)])
    assert same is EQUAL
    assert other in Verdict
