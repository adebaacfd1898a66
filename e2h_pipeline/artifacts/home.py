"""E2H_HOME: the one folder that the project writes to."""

from __future__ import annotations

import os
from pathlib import Path

HOME_VARIABLE = "E2H_HOME"
_PROJECT = Path(__file__).resolve().parents[2]


def home() -> Path:
    """The home folder, absolute: the environment variable E2H_HOME, or `.e2h/` in the project.

    The project is where the package was installed from with `pip install -e`, so the answer does
    not depend on the working directory; a package installed as a wheel uses `~/.e2h`.
    """
    named = os.environ.get(HOME_VARIABLE)
    if named:
        return Path(named).expanduser().resolve()
    return (_PROJECT if (_PROJECT / "pyproject.toml").is_file() else Path.home()) / ".e2h"


def project_file(name: str) -> Path | None:
    """A file at the top of the project (dagster.yaml), or None in a wheel."""
    path = _PROJECT / name
    return path if path.is_file() else None


def sweep_folders(home_folder: Path) -> list[Path]:
    """Folders of the user's own sweeps; searched before the shipped ones."""
    return [home_folder / "sweeps"]


def recipe_folders(home_folder: Path) -> list[Path]:
    """Folders of the user's own recipes; searched before the shipped ones."""
    return [home_folder / "recipes"]
