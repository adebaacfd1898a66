"""Programs that try to see, change or outlive what they must not, or to pass without an answer.

Every suite expects a secret that no program is told. So a program that passes has seen something outside, or
has written its own verdict.
"""

import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hostile_programs import QUICK, SLOW

from e2h_pipeline.grading.code import box
from e2h_pipeline.grading.code.box import Limits
from e2h_pipeline.grading.code.sandbox import PASSED, UNDECIDED, Sandbox, TestResult
from e2h_pipeline.grading.code.suites import Asserts, CallCases, StdinCases, to_text
from resources.supervise import descendants

LIMITS = Limits(cpu_seconds=0.3, idle_seconds=0.4, memory_bytes=300 << 20, output_bytes=1 << 20)
LONGEST = 60.0  # seconds of a program by the clock, on a machine where a hundred others run
"""Programs are waited for while the machine is busy, so the bound is loose; what it is for takes forever."""
WALLS = [kind for kind in ("bubblewrap", "landlock") if kind != "bubblewrap" or shutil.which("bwrap")]


@dataclass(frozen=True)
class Outside:
    """What programs attack."""

    secret: str
    store: Path
    home: Path
    port: int
    servers: tuple[socket.socket, socket.socket]
    victim: "subprocess.Popen[bytes]"

    def aimed(self, attack: str) -> str:
        """An attack with its targets."""
        for name, target in (
            ("STORE", self.store / "secret.txt"),
            ("FOLDER", self.store),
            ("HOME", self.home),
            ("PORT", self.port),
            ("SOCKET", self.store / "socket"),
            ("VICTIM", self.victim.pid),
            ("PARENT", os.getpid()),
        ):
            attack = attack.replace(name, str(target))
        return attack

    def state(self) -> object:
        """All that an attack could have changed."""
        paths = sorted((*self.store.rglob("*"), *self.home.rglob("*"), self.store, self.home))
        seen = [
            (str(p), s.st_mode, s.st_uid, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
            for p in paths
            for s in [p.lstat()]
        ]
        planted = [
            path
            for path in ("/tmp/e2h-planted-by-program", "/dev/shm/e2h-planted-by-program")
            if os.path.exists(path)
        ]
        return seen, planted, self.victim.poll(), self._visitors()

    def _visitors(self) -> int:
        count = 0
        for server in self.servers:
            try:
                server.accept()
                count += 1
            except BlockingIOError:
                continue
        return count


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    store, home = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("home")
    secret = f"secret-{secrets.token_hex(16)}"
    for folder in (store, home):
        (folder / "secret.txt").write_text(secret)
    (store / "planted.py").write_text(f"SECRET = {secret!r}")
    with sqlite3.connect(store / "store.db") as base:
        base.execute("create table t (x text)")
        base.execute("insert into t values (?)", (secret,))
    base.close()
    network, local = socket.socket(), socket.socket(socket.AF_UNIX)
    network.bind(("127.0.0.1", 0))
    local.bind(str(store / "socket"))
    for server in (network, local):
        server.listen()
        server.setblocking(False)
    victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    os.environ["SECRET_TOKEN"] = secret
    try:
        yield Outside(secret, store, home, network.getsockname()[1], (network, local), victim)
    finally:
        del os.environ["SECRET_TOKEN"]
        victim.communicate(b"\n")
        network.close()
        local.close()


@pytest.fixture(scope="module", params=WALLS)
def results(
    request: pytest.FixtureRequest, outside: Outside, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, TestResult]]:
    """Every program's result behind one kind of walls, and the checks of what is outside."""
    boxes, before = tmp_path_factory.mktemp("boxes"), outside.state()
    mine = set(descendants(os.getpid()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(box, "kinds", lambda: (request.param,))
        patch.setattr(tempfile, "tempdir", str(boxes))
        programs = _programs(outside)
        with Sandbox(2, LIMITS) as sandbox:
            began = time.monotonic()
            found = dict(zip(programs, sandbox.check(list(programs.values())), strict=True))
            took = time.monotonic() - began
    assert outside.state() == before
    assert took < LONGEST * len(SLOW)
    assert set(descendants(os.getpid())) <= mine
    assert list(boxes.iterdir()) == []  # not in the folder of all: other tests have boxes there
    yield found


def _programs(outside: Outside) -> dict[str, tuple[str, str]]:
    """By name: program and tests."""
    reads = to_text(StdinCases((("x\n", outside.secret),)))
    calls = to_text(CallCases("solve", ((["x"], outside.secret),)))
    asserts = to_text(Asserts("solve", "", f"assert solve('x') == {outside.secret!r}"))
    found = {}
    for name, attack in QUICK.items():
        body = outside.aimed(attack)
        inner = "\n".join(f"    {line}" for line in body.splitlines())
        function = f"def solve(x):\n{inner}\n    return result\n"
        found[f"{name}, alone"] = (f"{body}\nprint(result)", reads)
        found[f"{name}, called"] = (function, calls)
        found[f"{name}, asserted"] = (function, asserts)
    for name, attack in SLOW.items():
        found[f"{name}, alone"] = (f"{outside.aimed(attack)}\nprint(result)", reads)
    return found


def test_no_hostile_program_passes(results: dict[str, TestResult]) -> None:
    assert len(results) >= 200
    assert {name: str(result) for name, result in results.items() if result.word == PASSED} == {}


def test_every_hostile_program_is_judged(results: dict[str, TestResult]) -> None:
    undecided = {name: str(result) for name, result in results.items() if result.word == UNDECIDED}
    assert undecided == {}


def test_programs_that_never_end_are_killed_at_a_limit(results: dict[str, TestResult]) -> None:
    words = {name: results[f"{name}, alone"].word for name in SLOW}
    assert set(words.values()) <= {"timeout", "memory", "error", "failed"}, words
    endless = set(SLOW) - {"output", "threads", "threads at work", "files", "hidden files"}
    assert {name for name in endless if words[name] != "timeout"} == set()


def test_too_much_memory_is_its_own_verdict(results: dict[str, TestResult]) -> None:
    names = [f"memory{how}, {mode}" for how in ("", " by pieces") for mode in ("alone", "called", "asserted")]
    assert {name: results[name].word for name in names} == dict.fromkeys(names, "memory")
