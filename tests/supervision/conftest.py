"""Real problems, read once for all tests of labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2h_pipeline.problems.records import ProblemSplit
from e2h_pipeline.problems.source import load_split
from e2h_pipeline.recipe import MathProblems


@pytest.fixture(scope="session")
def math_split(data_dir: Path) -> ProblemSplit:
    """All of MATH, split by supervision."""
    return load_split(MathProblems(validation=500, path=str(data_dir / "math")))
