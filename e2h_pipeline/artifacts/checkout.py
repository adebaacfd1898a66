"""The commit of this project's checkout, for pages and records that people read.

Keys do not use it: code versions cover the code itself, whatever is committed.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 10.0
_LENGTH = 12


@cache
def commit(folder: Path = _ROOT) -> str:
    """The commit of a checkout, with `+changes` where files differ from it; empty where there is none."""
    if not (folder / ".git").exists():  # an installed package, perhaps inside another project's checkout
        return ""
    command = ["git", "-C", str(folder), "describe", "--always", f"--abbrev={_LENGTH}", "--exclude=*"]
    try:
        done = subprocess.run(
            [*command, "--dirty=+changes"], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # no git, or a file system that hangs
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
