"""Streams that are closed, full, or left by their reader: one line and status 1 at most, never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from tiny_experiment import environment
from typer.testing import CliRunner

from e2h_pipeline.cli.app import app

_FULL = Path("/dev/full")
_COMMAND = '"$0" -m e2h_pipeline.cli.app '


def sh(home: Path, line: str) -> tuple[int, str, str]:
    """Run `e2h ...`, with a shell's redirections."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", _COMMAND + line, sys.executable],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("grade - <&-", "e2h: stdin is closed; name a file of JSON lines\n"),
        ("rerank - <&-", "e2h: stdin is closed; name a file of JSON lines\n"),
        ("recipes ladder --json >&-", "e2h: stdout is closed; redirect it to a file or to /dev/null\n"),
        ("results <&- >&- 2>&-", ""),
        ("recipes nothing 2>&-", ""),
        ("recipes ladder --json | true", ""),
        ("recipes ladder | true", ""),
    ],
)
def test_closed_streams(tmp_path: Path, line: str, says: str) -> None:
    status, _, errors = sh(tmp_path, line)
    assert status == 1
    assert errors == says


@pytest.mark.skipif(not _FULL.exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize(
    "line", ["recipes", "recipes ladder --json", "sweep", "grade --gold 1 --prediction 1 --json", "--help"]
)
def test_a_full_device(tmp_path: Path, line: str) -> None:
    assert sh(tmp_path, f"{line} >/dev/full") == (1, "", "e2h: output: No space left on device\n")


def test_a_stream_that_was_closed_is_not_the_number_of_a_database(tmp_path: Path) -> None:
    """With stdout closed, the next file that is opened would be number 1, and get what is printed."""
    status, _, errors = sh(tmp_path, "doctor >&-")
    assert (status, errors) == (1, "e2h: stdout is closed; redirect it to a file or to /dev/null\n")
    assert not tmp_path.joinpath("dagster").exists()


def test_graded_lines_are_json(tmp_path: Path) -> None:
    """Python reads NaN and writes it again; other programs do neither."""
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"gold": "1", "prediction": "1", "x": NaN, "y": [-Infinity, {"z": 1e999}], "w": 0.5}\n')
    status, found, errors = sh(tmp_path, f"grade {lines} --json")
    assert status == 0, errors

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    record = json.loads(found, parse_constant=refuse)
    assert (record["x"], record["y"], record["w"]) == (None, [None, {"z": None}], 0.5)


def test_the_version_is_told() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0 and done.stdout == f"e2h_pipeline {version('e2h-pipeline')}\n"
