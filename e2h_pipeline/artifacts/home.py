"""E2H_HOME: the one folder that the project writes to."""

from __future__ import annotations

import os
from pathlib import Path

HOME_VARIABLE = "E2H_HOME"
_IN_URLS = "%?#"
_PROJECT = Path(__file__).resolve().parents[2]


class HomeError(RuntimeError):
    """The home folder cannot be used; one line for people."""


def home() -> Path:
    """The home folder, absolute: the environment variable E2H_HOME, or `.e2h/` in the project.

    The project is where the package was installed from with `pip install -e`, so the answer does
    not depend on the working directory; a package installed as a wheel uses `~/.e2h`.

    Raises:
        HomeError: its path has a character that would lead databases elsewhere.
    """
    named = os.environ.get(HOME_VARIABLE)
    if named:
        return _checked(Path(named).expanduser().resolve())
    return _checked((_PROJECT if (_PROJECT / "pyproject.toml").is_file() else Path.home()) / ".e2h")


def _checked(folder: Path) -> Path:
    """Dagster and MLflow name their databases by URLs, in which these characters have a meaning."""
    bad = [sign for sign in str(folder) if sign in _IN_URLS or not sign.isprintable()]
    if bad:
        raise HomeError(f"{HOME_VARIABLE} {str(folder)!r} contains {bad[0]!r}; choose a path without it")
    return folder


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the folder that it would be made in."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return os.access(there, os.W_OK | os.X_OK)


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
