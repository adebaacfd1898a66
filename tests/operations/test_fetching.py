"""`e2h data get` against a real server on loopback: broken connections, ranges, wrong content, the Hub's
way of telling a hash."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from e2h_pipeline.cli.app import app
from e2h_pipeline.operations import fetching
from e2h_pipeline.operations.fetching import FetchError, fetch, fetch_data
from e2h_pipeline.problems import catalogue
from e2h_pipeline.problems.catalogue import CATALOGUE, DataSet, Source, make_math, state_of_file
from e2h_pipeline.problems.math.problems import MathReader
from e2h_pipeline.recipe import MathProblems

CONTENT = bytes(range(256)) * 2000
SHA = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """Serves CONTENT, or `files`. It breaks off after `limit` bytes of an answer, and notes what was asked."""

    address: str = ""
    limit: int | None = None
    ranges: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self, body: bool) -> None:
            given = self.headers.get("Range")
            found.asked.append((self.command, self.path, given))
            content = found.files.get(self.path, CONTENT)
            if self.path.startswith("/gone"):
                self.send_error(404)
                return
            start = int(given.removeprefix("bytes=").removesuffix("-")) if given and found.ranges else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if body:
                sent = content[start:] if found.limit is None else content[start : start + found.limit]
                self.wfile.write(sent)
                self.close_connection = found.limit is not None

        def do_GET(self) -> None:
            self._answer(True)

        def do_HEAD(self) -> None:
            self._answer(False)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(fetching, "_WAIT_SECONDS", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        found.address = f"http://127.0.0.1:{served.server_port}"
        yield found
        served.shutdown()


def _quiet(_name: str, _done: int, _size: int) -> None:
    pass


@pytest.mark.parametrize("ranges", [False, True])
def test_a_broken_download_is_gone_on_with_and_counts_when_its_hash_is_right(
    server: Server, tmp_path: Path, ranges: bool
) -> None:
    source, target = (
        Source(f"{server.address}/file.jsonl", SHA, len(CONTENT)),
        tmp_path / "data" / "file.jsonl",
    )
    server.limit, server.ranges = 100_000, ranges
    with pytest.raises(FetchError, match="goes on from here"):
        fetch(source, target, _quiet)
    assert not target.exists() and (tmp_path / "data" / "file.jsonl.part").exists()
    server.limit = None
    fetch(source, target, _quiet)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["file.jsonl"]
    begun = 400_000 if ranges else 100_000  # without ranges each attempt begins anew
    assert server.asked[-1][2] == f"bytes={begun}-"
    count = len(server.asked)
    fetch(source, target, _quiet)
    assert len(server.asked) == count  # it is there


def test_other_content_and_a_server_that_refuses_leave_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"SHA-256 .* instead of 00"):
        fetch(Source(f"{server.address}/file", "00", len(CONTENT)), tmp_path / "file", _quiet)
    with pytest.raises(FetchError, match="404"):
        fetch(Source(f"{server.address}/gone", SHA, 1), tmp_path / "gone", _quiet)
    with pytest.raises(FetchError, match="refused"):
        fetch(Source("http://127.0.0.1:1/file", SHA, 1), tmp_path / "closed", _quiet)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_the_hub_tells_the_hash_of_a_file(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    fetch(Source("datasets/some/one/resolve/main/file.jsonl"), tmp_path / "file.jsonl", _quiet)
    assert (tmp_path / "file.jsonl").read_bytes() == CONTENT
    asked = [(kind, path) for kind, path, _ in server.asked if path.startswith("/datasets")]
    assert asked == [
        ("HEAD", "/datasets/some/one/resolve/main/file.jsonl"),
        ("GET", "/datasets/some/one/resolve/main/file.jsonl"),
    ]


def test_the_command_lists_fetches_and_leaves_a_users_own_file_alone(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataSet(
        "toy",
        "nothing",
        "here",
        "none",
        {"toy/a.jsonl": Source(f"{server.address}/a.jsonl", SHA, len(CONTENT))},
    )
    monkeypatch.setitem(catalogue.CATALOGUE, "toy", data)  # type: ignore[arg-type]
    monkeypatch.setenv("E2H_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("E2H_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def state() -> str:
        rows = json.loads(CliRunner().invoke(app, ["data", "--json"]).stdout)
        return str(next(row for row in rows if row["name"] == "toy")["files"]["toy/a.jsonl"])

    assert state() == "missing"
    done = CliRunner().invoke(app, ["data", "get", "toy"], catch_exceptions=False)
    assert done.exit_code == 0 and str(tmp_path / "data" / "toy" / "a.jsonl") in done.stdout
    assert state() == "here"
    file = tmp_path / "data" / "toy" / "a.jsonl"
    with gzip.open(f"{file}.gz", "wb") as packed:
        packed.write(CONTENT)
    file.unlink()
    assert state() == "here"  # packed, with the same content
    file.write_text("mine")
    assert state() == "differs"
    wrong = CliRunner().invoke(app, ["data", "get", "toy"])
    assert (
        wrong.exit_code == 1 and "move it away first" in str(wrong.exception) and file.read_text() == "mine"
    )
    by_hand = CliRunner().invoke(app, ["data", "get", "mr-math"])
    assert "github.com/GAIR-NLP/ReasonEval" in str(by_hand.exception)
    assert "did you mean 'math'" in str(CliRunner().invoke(app, ["data", "get", "mth"]).exception)


def _math(folder: Path, pool: bytes, benchmark: bytes) -> tuple[dict[str, bytes], DataSet]:
    """MATH as it is published, with these files."""
    files = {"/train.jsonl": pool, "/test.jsonl": benchmark}
    made = tuple(
        Source(f"ADDRESS{path}", hashlib.sha256(content).hexdigest(), len(content))
        for path, content in files.items()
    )
    places = {**CATALOGUE["math"].files, "math/math500.jsonl": made[1]}
    return files, replace(CATALOGUE["math"], sources=made, files=places)


def test_math_is_made_of_what_is_published(server: Server, tmp_path: Path) -> None:
    record = {"problem": "1+1?", "solution": r"It is $\boxed{2}$.", "answer": "2", "subject": "Algebra"}
    pool = [
        {**record, "level": 3, "unique_id": "train/algebra/1.json"},
        {**record, "problem": "2+1?", "level": "Level ?", "unique_id": "test/algebra/2.json"},
    ]
    benchmark = [{**record, "problem": "3+1?", "level": 5, "unique_id": "test/algebra/3.json"}]
    lines = ["".join(json.dumps(one) + "\n" for one in part).encode() for part in (pool, benchmark)]
    server.files, data = _math(tmp_path, *lines)
    data = replace(
        data, sources=tuple(replace(s, url=s.url.replace("ADDRESS", server.address)) for s in data.sources)
    )
    fetch_data(data, tmp_path, _quiet)
    assert sorted(path.name for path in (tmp_path / "math").iterdir()) == [
        "math500.jsonl",
        "math_test.jsonl",
        "math_train.jsonl",
    ]
    found = MathReader().pool(MathProblems(path=str(tmp_path / "math"), strict_counts=False))
    assert [(p.problem_id, p.level) for p in found.train] == [
        ("train/algebra/1.json", 3),
        ("test/algebra/2.json", None),
    ]
    assert [(p.problem_id, p.level) for p in found.benchmark] == [("test/algebra/3.json", 5)]
    assert not list((tmp_path / ".fetched").rglob("*.jsonl"))


@pytest.mark.skipif(not os.environ.get("E2H_DATA_DIR"), reason="E2H_DATA_DIR is not set")
def test_real_math_so_made_is_the_published_split(tmp_path: Path) -> None:
    """From a copy of PRM800K's split: the counts of the paper, and the same problems as in the folder."""
    real = Path(os.environ["E2H_DATA_DIR"]) / "math"
    with gzip.open(real / "prm800k_split_train12k.jsonl.gz") as packed:
        (tmp_path / "train.jsonl").write_bytes(packed.read())
    (tmp_path / "test.jsonl").write_bytes((real / "math500.jsonl").read_bytes())
    assert state_of_file(tmp_path / "test.jsonl", catalogue.MATH_SOURCES[1])[0] == "here"
    make_math(tmp_path, tmp_path / "math")
    made = MathReader().pool(MathProblems(path=str(tmp_path / "math")))
    own = MathReader().pool(MathProblems(path=str(real)))
    assert {(p.problem_id, p.level, p.question) for p in made.train} == {
        (p.problem_id, p.level, p.question) for p in own.train
    }
