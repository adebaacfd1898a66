"""Python in a namespace of its own where one folder can only be read, for root too."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from tiny_experiment import environment

ROOT = Path(__file__).resolve().parents[1]
_SHELL = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
_IN_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _SHELL)


@cache
def _possible() -> bool:
    try:
        done = subprocess.run([*_IN_NAMESPACE, "/tmp", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def python_without_writing(home: Path, code: str) -> str:
    """What a program prints where its home can only be read."""
    if not _possible():
        pytest.skip("no user namespaces here, so no mount that can only be read")
    done = subprocess.run(
        [*_IN_NAMESPACE, str(home), sys.executable, "-c", code],
        env=environment(home) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
