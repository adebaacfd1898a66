"""`e2h grade` and `e2h rerank` as people and scripts use them."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest

Record = dict[str, Any]

LINES: list[Record] = [
    {"id": 1, "gold": "1/2", "prediction": "0.5", "note": "kept"},
    {"id": 2, "gold": "5", "response": "Hence it is \\boxed{5}."},
    {"id": 3, "gold": "5", "response": "Hence it is \\boxed{5}.", "finish_reason": "length"},
    {"id": 4, "gold": "5", "prediction": "6"},
]
SAMPLES: list[Record] = [
    {
        "problem_id": "a",
        "level": 1,
        "gold": "1",
        "answers": ["1", "2", "1", "3"],
        "scores": [0.9, 0.2, 0.8, 0.1],
    },
    {
        "problem_id": "b",
        "level": 5,
        "gold": "7",
        "answers": ["7", "8", "8", None],
        "scores": [0.9, 0.2, 0.3, 0.1],
    },
]


def e2h(*arguments: str | Path, stdin: str | bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    return forked.run(forked.COMMAND_LINE, arguments, os.environ, given)


def text_of(records: list[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def records_in(text: str) -> list[Record]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text(text_of(LINES))
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "samples.jsonl"
    path.write_text(text_of(SAMPLES))
    return path


def refused(done: subprocess.CompletedProcess[str], says: str) -> None:
    """One line on stderr, nothing on stdout."""
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("e2h: ") and says in line, line


def test_lines_come_back_with_verdicts(answers: Path) -> None:
    done = e2h("grade", answers, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = records_in(done.stdout)
    assert [record["verdict"] for record in found] == ["equal", "equal", "different", "different"]
    assert [record["answer"] for record in found] == ["0.5", "5", None, "6"]
    assert found[2]["tier"] == "no-answer"
    for given, got in zip(LINES, found, strict=True):
        assert given.items() <= got.items()
        assert got["grader"].startswith("math/") and got["ms"] >= 0


def test_the_summary_names_the_grader_and_what_counts_as_wrong(answers: Path) -> None:
    done = e2h("grade", answers, "--mode", "exact")
    assert "4 lines, 25.00 % equal" in done.stdout
    assert "0 undecided and 1 without an answer count as wrong" in done.stdout
    assert "grader exact/1" in done.stdout


def test_pipes_and_gzip_give_the_same_lines(answers: Path, tmp_path: Path) -> None:
    text = answers.read_text()
    plain = e2h("grade", answers, "--mode", "exact", "--json").stdout
    assert e2h("grade", "-", "--mode", "exact", "--json", stdin=text).stdout == plain
    packed, out = tmp_path / "answers.jsonl.gz", tmp_path / "graded.jsonl.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    done = e2h("grade", packed, "--mode", "exact", "--output", out)
    assert gzip.decompress(out.read_bytes()).decode() == plain
    assert "25.00 % equal" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "answers.jsonl",
        "answers.jsonl.gz",
        "graded.jsonl.gz",
    ]


def test_a_bad_line_leaves_the_old_output(answers: Path, tmp_path: Path) -> None:
    out = tmp_path / "graded.jsonl"
    out.write_text("before\n")
    answers.write_text(text_of([*LINES, {"gold": "5", "id": 5}]))
    refused(e2h("grade", answers, "--output", out), f"{answers}:5: neither 'prediction' nor 'response'")
    assert out.read_text() == "before\n"
    assert {path.name for path in tmp_path.iterdir()} == {"answers.jsonl", "graded.jsonl"}


def test_text_of_a_model_cannot_steer_the_terminal_or_break_the_json(tmp_path: Path) -> None:
    hostile = "\x1b[2J[bold]\ud800\u2028\n\x00é"
    path = tmp_path / "hostile.jsonl"
    path.write_text(text_of([{"gold": hostile, "prediction": "5", "\x1b[31m": hostile}]))
    done = e2h("grade", path, "--mode", "exact", "--compare", "math")
    assert done.returncode == 0 and "\x1b" not in done.stdout
    (found,) = records_in(e2h("grade", path, "--json").stdout)
    assert found["gold"] == found["\x1b[31m"] == hostile
    path.write_text(text_of([{"\x1b[31m": 1}]))
    done = e2h("grade", path)
    assert done.returncode == 1 and "\x1b" not in done.stderr


def test_modes_are_compared(answers: Path) -> None:
    done = e2h("grade", answers, "--compare", "exact", "--compare", "math")
    assert "1 of 4 lines have different verdicts" in done.stdout
    (row,) = (line for line in done.stdout.splitlines() if "1/2" in line)
    assert row.split() == ["1", "1/2", "0.5", "equal", "different"]
    (found,) = records_in(e2h("grade", answers, "--compare", "exact", "--json").stdout)
    assert LINES[0].items() <= found.items()
    assert found["line"] == 1
    assert {mode: said["verdict"] for mode, said in found["modes"].items()} == {
        "math": "equal",
        "exact": "different",
    }


def test_one_pair_by_options() -> None:
    done = e2h("grade", "--gold", "1/2", "--response", "so \\boxed{0.5}")
    assert "gold 1/2; answer 0.5 (characters 10 to 13 of the response, by boxed)" in done.stdout
    assert done.stdout.splitlines()[1].startswith("equal by ")
    (found,) = records_in(e2h("grade", "--gold", "1/2", "--prediction", "0.4", "--json").stdout)
    assert (found["gold"], found["prediction"], found["verdict"]) == ("1/2", "0.4", "different")
    assert "no answer" in e2h("grade", "--gold", "1/2", "--response", "").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give a FILE (- for stdin), or --gold with one of --prediction and --response"),
        (["a.jsonl", "--gold", "1"], "give a FILE"),
        (["--gold", "1"], "give a FILE"),
        (["--gold", "1", "--prediction", "1", "--response", "1"], "give a FILE"),
        (["nowhere.jsonl"], "nowhere.jsonl: No such file or directory"),
        ([".", "--json"], ".: Is a directory"),
        (["-", "--mode", "best"], "no grader 'best'; there are: math"),
        (["-", "--compare", "best"], "no grader 'best'; there are: math"),
        (["-", "--json", "--output", "x.jsonl"], "choose one"),
        (["-", "--output", "/dev/null"], "/dev/null: not a regular file"),
        (["-", "--output", "nowhere/x.jsonl"], "nowhere/x.jsonl: No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments: list[str], says: str) -> None:
    refused(e2h("grade", *arguments), says)


def test_lines_that_are_no_json_are_named() -> None:
    refused(e2h("grade", "-", stdin='{"gold": "5"'), "stdin:1: not JSON")
    refused(e2h("grade", "-", stdin="\n[1]"), "stdin:2: a line must be a JSON object")
    refused(e2h("grade", "-", stdin=b"\xff\n"), "stdin:1: not UTF-8")


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text(text_of(LINES[-1:]) * 20_000)
    command = f"{sys.executable} -m e2h_pipeline.cli.app grade {path} --mode exact --json | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300, check=False)
    assert len(records_in(done.stdout)) == 1
    assert "Traceback" not in done.stderr


def test_progress_is_shown_on_a_terminal(answers: Path) -> None:
    answers.write_text(text_of(LINES) * 2000)
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "e2h_pipeline.cli.app", "grade", str(answers), "--mode", "exact", "--json"],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "150"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=300,
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "8,000 lines" in shown and "/s" in shown and "left" in shown
    assert len(done.stdout.splitlines()) == 8000


def test_samples_are_reranked(samples: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = e2h("rerank", samples, "--html", page)
    assert done.returncode == 0, done.stderr
    # policy, method and N, then accuracies at easy, hard and all levels, without their intervals
    rows = [re.sub(r"\[[^]]*\]", "", line).split() for line in done.stdout.splitlines()]
    assert ["samples", "majority", "4", "100.0", "0.0", "50.0"] in rows
    assert ["samples", "best-of-n", "score", "4", "100.0", "100.0", "100.0"] in rows
    assert "best-of-n score − majority" in done.stdout
    assert "counted as wrong: 1 samples without an answer (0 cut off)" in done.stdout
    assert "graded by math/" in done.stdout
    assert done.stdout.splitlines()[-1] == str(page)
    text = page.read_text()
    assert "grader math." in text and "math/1" in text and "2 with 4 samples each" in text and "<svg" in text


def test_reranked_samples_as_json(samples: Path) -> None:
    done = e2h("rerank", "-", "--json", "--mode", "exact", "--name", "TWO", stdin=samples.read_text())
    found = json.loads(done.stdout)
    assert (found["benchmark"], found["grader"], found["grader_version"]) == ("TWO", "exact", "exact/1")
    assert (found["problems"], found["samples"], found["no_answer"], found["undecided"]) == (2, 4, 1, 0)
    assert {row["n"] for row in found["metrics"]} == {1, 2, 4}
    assert {row["method"] for row in found["metrics"]} == {"majority", "weighted-vote", "best-of-n", "pass"}
    assert all(row["ci_low"] <= row["accuracy"] <= row["ci_high"] for row in found["metrics"])
    assert {row["second"] for row in found["differences"]} == {"majority"}
    again = e2h("rerank", "-", "--json", "--mode", "exact", "--name", "TWO", stdin=text_of(SAMPLES[::-1]))
    assert again.stdout == done.stdout


def test_samples_that_cannot_be_reranked_are_refused(samples: Path) -> None:
    samples.write_text(text_of([{**SAMPLES[0], "scores": [3.5, -1.0, 0.0, 0.5]}, SAMPLES[1]]))
    refused(e2h("rerank", samples), f"{samples}:1: 'scores': entry 0 is 3.5; scores are probabilities")
    assert e2h("rerank", samples, "--logits").returncode == 0
    samples.write_text(text_of([SAMPLES[0], {**SAMPLES[1], "answers": ["7"], "scores": [0.5]}]))
    refused(e2h("rerank", samples), "--samples 1")
    assert e2h("rerank", samples, "--samples", "1").returncode == 0
