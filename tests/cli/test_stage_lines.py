"""What `e2h run` prints of each stage and check."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from e2h_pipeline.cli.view import StageLines
from e2h_pipeline.operations.runner import StageEvent


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        (["check_passed"], "0 stages computed, 0 reused; 1 checks passed, 0 failed"),
        (
            ["check_passed", "check_warned"],
            "0 stages computed, 0 reused; 1 checks passed, 1 warned, 0 failed",
        ),
        (["check_failed"], "0 stages computed, 0 reused; 0 checks passed, 1 failed"),
    ],
)
def test_a_warning_is_no_failure(kinds: list[str], told: str) -> None:
    out = Console(file=io.StringIO(), width=100)
    with StageLines(out) as lines:
        for kind in kinds:
            lines.watch(StageEvent(kind, "rl_policy", "not_stopped"))
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert told in text
    assert ("check not_stopped warns" in text) == ("check_warned" in kinds)
    assert ("check not_stopped failed" in text) == ("check_failed" in kinds)
