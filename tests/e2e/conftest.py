"""A whole experiment, run once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_experiment import e2h, new_home


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after a run of `tiny`."""
    home = new_home(tmp_path_factory.mktemp("home") / "e2h")
    done = e2h(home, "run", "tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    return home
