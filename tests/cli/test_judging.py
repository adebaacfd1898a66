"""`e2h judge`, `e2h score` and `e2h rerank --evaluator` as people and scripts use them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import forked
import pytest
from typer.testing import CliRunner

from e2h_pipeline.artifacts.request import StoreError
from e2h_pipeline.cli.app import app
from e2h_pipeline.cli.shared import CommandError

Record = dict[str, Any]

LINES: list[Record] = [
    {
        "id": f"s{i}",
        "question": f"{i}+2",
        "steps": [f"{i}+2=3", "3+1=4", "so"],
        "labels": labels,
        "level": 1 + i,
    }
    for i, labels in enumerate([[1, 0, None], [1, 1, 1], [0, None, None], [1, 1, 0], [1, 1, 1]])
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home: a folder needs no experiment."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def e2h(home: Path, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "E2H_HOME": str(home)}
    return forked.run(forked.COMMAND_LINE, arguments, environment, stdin.encode())


def text_of(records: list[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_a_file_is_scored_then_judged_and_both_ways_agree(
    home: Path, ladder_evaluator: Path, tmp_path: Path
) -> None:
    file, scored = tmp_path / "steps.jsonl", tmp_path / "scored.jsonl"
    file.write_text(text_of(LINES))
    with_evaluator = ["--evaluator", ladder_evaluator, "--domain", "ladder"]
    done = e2h(home, "score", file, *with_evaluator, "--output", scored)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    lines = [json.loads(line) for line in scored.read_text().splitlines()]
    assert [{**line, "step_scores": 0, "scored_by": 0} for line in lines] == [
        {**line, "step_scores": 0, "scored_by": 0} for line in LINES
    ]
    results = []
    for arguments in ([], ["--scores", scored]):
        done = e2h(home, "judge", file, *with_evaluator, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout))
    assert results[0]["rows"] == results[1]["rows"]
    assert results[0]["threshold"]["rule"] == "fixed" and results[0]["threshold"]["value"] == 0.5
    assert {row["levels"] for row in results[0]["rows"]} == {"1", "2", "3", "4", "5", "easy", "hard", "all"}
    table = e2h(home, "judge", scored, "--threshold", "oracle", "--all").stdout
    assert "oracle, chosen on the judged file itself: not allowed for claims" in table
    assert "first-error F1" in table and "hard" in table and "level 5" in table


def test_samples_are_reranked_by_an_evaluator(home: Path, ladder_evaluator: Path, tmp_path: Path) -> None:
    """The scores of `e2h score`, and those of the evaluator itself, make the same votes."""
    samples = [
        {
            "problem_id": q,
            "question": q,
            "gold": "3",
            "responses": [f"1+2={i}\n\n# Answer\n\n{i}" for i in (3, 4, 3)],
        }
        for q in ("1+2", "4-1")
    ]
    (tmp_path / "samples.jsonl").write_text(text_of(samples))
    with_evaluator = ["--evaluator", ladder_evaluator, "--domain", "ladder"]
    scored = e2h(home, "score", tmp_path / "samples.jsonl", *with_evaluator).stdout
    assert [[len(own) for own in json.loads(line)["step_scores"]] for line in scored.splitlines()] == [
        [2] * 3
    ] * 2
    given = e2h(home, "rerank", "-", "--json", stdin=scored)
    direct = e2h(home, "rerank", tmp_path / "samples.jsonl", "--name", "-", *with_evaluator, "--json")
    assert (given.returncode, direct.returncode) == (0, 0), given.stderr + direct.stderr
    assert json.loads(given.stdout)["metrics"] == json.loads(direct.stdout)["metrics"]
    assert json.loads(direct.stdout)["scores"] == ["step_scores"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["score", "FILE"], "name an --evaluator"),
        (
            ["score", "FILE", "--evaluator", "nobody/knows"],
            "nobody/knows: no such folder, and not found on the Hub",
        ),
        (["score", "FILE", "--evaluator", "a=b/c"], "a=b/c: no such folder, and no experiment's key"),
        (["score", "FILE", "--evaluator", "ladder"], "ladder has no easy_evaluator yet"),
        (["judge", "FILE", "--threshold", "2"], "--threshold 2: a number from 0 to 1, easy or oracle"),
        (["judge", "FILE", "--threshold", "easy"], "of an experiment's key alone"),
        (["judge", "FILE", "--stored", "a", "--scores", "b"], "--stored"),
        (["judge", "FILE", "--evaluator", "a", "--logits"], "--logits is for scores made elsewhere"),
        (["judge", "FILE", "--domain", "chess"], "no domain 'chess'"),
        (["judge", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
    ],
)
def test_errors_are_told_in_a_line(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.setenv("E2H_HOME", str(home))
    file = tmp_path / "steps.jsonl"
    file.write_text(text_of([{**LINES[0], "step_scores": [0.1, 0.2, 0.3]}]))
    done = CliRunner().invoke(app, [str(file) if word == "FILE" else word for word in arguments])
    assert isinstance(done.exception, CommandError | StoreError), done.exception
    assert says in str(done.exception) and done.stdout == ""


def test_a_folder_that_is_no_evaluator_is_told_before_anything_is_read(
    home: Path, ladder_policy: Path, tmp_path: Path
) -> None:
    done = e2h(home, "score", "-", "--evaluator", ladder_policy, "--output", tmp_path / "out")
    assert done.returncode == 1 and "a language model without a head" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.glob("*out*"))
