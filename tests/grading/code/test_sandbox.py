# ruff: noqa: E501
"""Verdicts, forms of tests, walls inside of walls, and what is left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2h_pipeline.grading.code import box, walls
from e2h_pipeline.grading.code.box import Limits, SandboxError
from e2h_pipeline.grading.code.grader import UnitTestGrader
from e2h_pipeline.grading.code.inside import landlock
from e2h_pipeline.grading.code.sandbox import Sandbox, TestResult
from e2h_pipeline.grading.code.suites import Asserts, CallCases, StdinCases, Suite, to_text
from e2h_pipeline.grading.verdicts import Gold, Verdict
from e2h_pipeline.registry import GRADERS
from resources.supervise import descendants

WALLS = [kind for kind in ("bubblewrap", "landlock") if kind != "bubblewrap" or shutil.which("bwrap")]
ADD = CallCases("add", (([1, 2], 3), ([2, 2], 4)))
DOUBLE = StdinCases((("2\n", "4\n"), ("3\n", "6\n")))
CHECKED = Asserts(
    "add",
    "import math\nZERO = 0\n",
    "assert add(1, 2) == 3\nassert candidate(1, b=ZERO) == math.floor(1.5)\n",
)


@pytest.fixture(scope="module", params=WALLS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(box, "kinds", lambda: (request.param,))
        with Sandbox(1, Limits(cpu_seconds=1.0)) as sandbox:
            yield sandbox


CASES: dict[str, tuple[str, Suite, str]] = {
    "reads and writes": ("print(2 * int(input()))", DOUBLE, "passed"),
    "reads by lines": ("import sys\nfor line in sys.stdin:\n    sys.stdout.write(str(2 * int(line)))", DOUBLE, "passed"),
    "reads bytes": ("import sys; sys.stdout.buffer.write(str(2 * int(sys.stdin.buffer.read())).encode())", DOUBLE, "passed"),
    "as a script": ("if __name__ == '__main__':\n    print(2 * int(input()))", DOUBLE, "passed"),
    "in a thread": ("import threading\nthreading.stack_size(1 << 26)\nthreading.Thread(target=lambda: print(2 * int(input()))).start()", DOUBLE, "passed"),
    "ends well": ("print(2 * int(input())); raise SystemExit", DOUBLE, "passed"),
    "a file of its own": ("open('a', 'w').write(input())\nprint(2 * int(open('a').read()))", DOUBLE, "passed"),
    "no file of the last": ("import os\nprint(len(os.listdir('.')) + 2 * int(input()))\nopen('a', 'w')", DOUBLE, "passed"),
    "second case": ("print(4)", DOUBLE, "failed at case 2: wrote '4\\n', not '6\\n'"),
    "ends badly": ("print(4); raise SystemExit(1)", DOUBLE, "error at case 1: exit status 1"),
    "raises": ("int('x')", DOUBLE, "error at case 1: ValueError: invalid literal for int() with base 10: 'x'"),
    "is called": ("def add(a, b): return a + b", ADD, "passed"),
    "prints too": ("def add(a, b):\n    print('x')\n    return a + b", ADD, "passed"),
    "as for LeetCode": ("class Solution:\n    def add(self, a, b): return a + b", ADD, "passed"),
    "keeps nothing": ("def add(a, b): return 3", ADD, "failed at case 2: 'add(2, 2)' is 3, not 4"),
    "second call": ("def add(a, b): return a + b / (a - 2)", ADD, "failed at case 1: 'add(1, 2)' is -1.0, not 3"),
    "error in a call": ("def add(a, b): return 3 if a < 2 else 1 / 0", ADD, "error at case 2: ZeroDivisionError: division by zero"),
    "no function": ("x = 1", ADD, "error at case 1: NameError: no function add"),
    "ends in a call": ("def add(a, b):\n    raise SystemExit(0)", ADD, "error at case 1: ended before its last call"),
    "is asserted": ("def add(a, b): return a + b", CHECKED, "passed"),
    "second assert": ("def add(a, b): return 3", CHECKED, "failed at case 2: with 1, b=0"),
    "error in an assert": ("def add(a, b): return a / b", CHECKED, "failed at case 1: with 1, 2"),
    "wrong type": ("def add(a, b): return 'x'", Asserts("add", "", "assert abs(add(1, 2) - 3) < 1"), "failed at case 1: with 1, 2: TypeError: unsupported operand type(s) for -: 'str' and 'int'"),
    "tuple": ("def f(): return (1, {2: {3}}, None, b'x', 1j)", Asserts("f", "", "assert f() == (1, {2: {3}}, None, b'x', 1j)"), "passed"),
    "no tests": ("def f(): return 1", Asserts("f", "", "pass"), "undecided: the tests call nothing"),
    "no cases": ("print(1)", StdinCases(()), "undecided: no case"),
    "slow tests": ("def f(): return 1", Asserts("f", "", "f()\nwhile True: pass"), "undecided: the tests themselves took too much time or memory"),
    "after slow tests": ("def f(): return 1", Asserts("f", "", "assert f() == 1"), "passed"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_verdicts(sandbox: Sandbox, name: str) -> None:
    program, suite, expected = CASES[name]
    assert str(sandbox.check([(program, to_text(suite))])[0]) == expected


def test_nothing_is_left_of_one_program_for_the_next(sandbox: Sandbox) -> None:
    change = (
        "import builtins, random, math\nbuiltins.pow = None\nmath.pi = 3\nrandom.seed(1)\ndef f(): return 1"
    )
    look = "import math, random\ndef f(): return [pow(2, 1), round(math.pi, 2)]"
    suite = [to_text(CallCases("f", (([], wanted),))) for wanted in (1, [2, 3.14])]
    assert [r.word for r in sandbox.check([(change, suite[0]), (look, suite[1])])] == ["passed", "passed"]


def test_a_known_program_is_not_run_again(sandbox: Sandbox) -> None:
    program, tests = "import time\ndef f(): return time.time()", to_text(CallCases("f", (([], 0),)))
    first = sandbox.check([(program, tests)])
    assert sandbox.check([(program, tests), (program, tests)]) == first * 2
    assert sandbox.check([(program + "\n", tests)]) != first


def test_unreadable_tests_are_undecided(sandbox: Sandbox) -> None:
    found = sandbox.check([("x", "no JSON"), ("x", "{}"), ("x", '{"form": "stdin", "cases": [1]}')])
    assert [result.word for result in found] == ["undecided"] * 3
    assert all("make the problems again" in result.detail or "there are" in result.detail for result in found)


def test_a_killed_zygote_is_replaced() -> None:
    mine = descendants(os.getpid())
    with Sandbox(1) as sandbox:
        job = ("print(2 * int(input()))", to_text(DOUBLE))
        assert sandbox.check([job])[0].word == "passed"
        os.kill(max(set(descendants(os.getpid())) - set(mine)), signal.SIGKILL)
        assert sandbox.check([(job[0] + "\n", job[1])])[0].word == "passed"


def test_no_walls_no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walls, "environment", lambda folder: {})
    monkeypatch.setattr(
        box, "command", lambda role, kind, *rest: [sys.executable, "-c", "raise OSError('no such thing')"]
    )
    with Sandbox(1) as sandbox, pytest.raises(SandboxError) as refused:
        sandbox.check([("print(4)", to_text(DOUBLE))])
    assert "cannot be run safely" in str(refused.value) and walls.UNSAFE in str(refused.value)
    assert "no such thing" in str(refused.value)


def test_without_walls_only_by_a_name_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(walls.UNSAFE, raising=False)
    assert "none" not in walls.kinds()
    monkeypatch.setenv(walls.UNSAFE, "1")
    assert walls.kinds()[-1] == "none"
    monkeypatch.setattr(box, "kinds", lambda: ("none",))
    with Sandbox(1, Limits(cpu_seconds=0.3)) as sandbox:
        jobs = [("print(2 * int(input()))", to_text(DOUBLE)), ("while True: pass", to_text(DOUBLE))]
        assert [result.word for result in sandbox.check(jobs)] == ["passed", "timeout"]


INSIDE_A_STAGE = """
import json, sys
from e2h_pipeline.artifacts.reads import Reads
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.grading.verdicts import Gold
from resources.landlock import restrict
assert restrict(Reads("toy", (), (sys.argv[1],)))
with grader("unit-tests", 1) as judge:
    gold = Gold("", "", (("tests", sys.argv[2]),))
    print(json.dumps([grade.tier for grade in judge.grade_pairs([(gold, p) for p in json.loads(sys.argv[3])])]))
"""


@pytest.mark.skipif(landlock.interface() < 2, reason="this kernel has no Landlock")
def test_the_sandbox_holds_inside_the_walls_of_a_stage(tmp_path: object) -> None:
    programs = ["print(2 * int(input()))", "print(open('/etc/passwd').read())", "import os; os.listdir('/')"]
    found = subprocess.run(
        [sys.executable, "-c", INSIDE_A_STAGE, str(tmp_path), to_text(DOUBLE), json.dumps(programs)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.strip() == json.dumps(["passed", "error", "error"]), found.stderr


AS_ANYBODY = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
from e2h_pipeline.grading.code import box
from e2h_pipeline.grading.code.sandbox import Sandbox
found = {}
for kind in json.loads(sys.argv[2]):
    box.kinds = lambda: (kind,)
    with Sandbox(1) as sandbox:
        found[kind] = [result.word for result in sandbox.check(json.loads(sys.argv[3]))]
print(json.dumps(found))
"""
MANY_THREADS = """
import os, threading
n = 0
try:
    while n < 1000:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        n += 1
except RuntimeError:
    pass
print("few" if n < 100 else "many", flush=True)
os._exit(0)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_the_sandbox_needs_no_root(tmp_path: Path) -> None:
    """With the system's Python, which any user can reach."""
    root, python, anybody = Path(box.__file__).parents[3], "/usr/bin/python3", 65534
    mine = tmp_path / "mine"
    mine.write_text("4")
    os.chown(mine, anybody, anybody)
    few = to_text(StdinCases((("", "few"),)))
    jobs = [
        ("print(2 * int(input()))", to_text(DOUBLE)),
        ("def add(a, b): return a + b", to_text(CHECKED)),
        (MANY_THREADS, few),
        (f"print(open({str(mine)!r}).read())", to_text(StdinCases((("", "4"),)))),
        (f"import os; os.chmod({str(mine)!r}, 0o777); print(4)", to_text(StdinCases((("", "4"),)))),
    ]
    command = [python, "-c", AS_ANYBODY, str(root), json.dumps(WALLS), json.dumps(jobs)]
    try:
        found = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            user=anybody,
            group=anybody,
            extra_groups=[],
            cwd="/",
        )
    except FileNotFoundError:
        pytest.skip("no system Python")
    if "No module named 'e2h_pipeline'" in found.stderr or "Permission denied" in found.stderr:
        pytest.skip("an ordinary user cannot read this checkout")
    assert json.loads(found.stdout or "{}") == {
        kind: ["passed", "passed", "passed", "error", "error"] for kind in WALLS
    }, found.stderr


def test_threads_are_few(sandbox: Sandbox) -> None:
    assert str(sandbox.check([(MANY_THREADS, to_text(StdinCases((("", "few"),))))])[0]) == "passed"


ORPHANED = """
import os, sys, threading, time
from e2h_pipeline.grading.code.sandbox import Sandbox
from e2h_pipeline.grading.code.suites import StdinCases, to_text
from resources.supervise import descendants
with Sandbox(1) as sandbox:
    job = ("while True: pass", to_text(StdinCases((("", ""),))))
    threading.Thread(target=sandbox.check, args=([job],), daemon=True).start()
    while len(found := descendants(os.getpid())) < 2:
        time.sleep(0.05)
    print(*found, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_no_process_outlives_a_killed_grader(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", ORPHANED],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # its empty folder stays
    )
    left = {int(pid) for pid in killed.stdout.split()}
    assert left
    deadline = time.monotonic() + 60
    while (
        alive := {pid for pid in left if os.path.exists(f"/proc/{pid}/exe") and _runs(pid)}
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive == set()


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_grades() -> None:
    gold = Gold("def add(a, b): return b + a", "", (("tests", to_text(ADD)),))
    with GRADERS.load("unit-tests").open(1, 1.0) as judge:
        assert isinstance(judge, UnitTestGrader) and judge.reads_problem
        right, wrong = "def add(a, b): return a + b", "def add(a, b): return 3"
        grades = judge.grade_pairs([(gold, right), (gold, wrong), (Gold(right), right), (gold, "def (")])
        equal, different, undecided = Verdict.EQUAL, Verdict.DIFFERENT, Verdict.UNDECIDED
        assert [g.verdict for g in grades] == [equal, different, undecided, different]
        assert [g.tier for g in grades] == ["passed", "failed", "untested", "error"]
        assert judge.undecided == 1
        assert judge.classes([[right, f"# sum\n\n{right}  \n", None, wrong]]) == [[0, 0, None, 1]]


def test_results_have_words() -> None:
    assert str(TestResult("passed")) == "passed"
    assert str(TestResult("failed", 3, "x")) == "failed at case 3: x"
