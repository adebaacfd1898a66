"""Which walls this host has between a program and everything else, and the command that starts the inside.

Two kinds are enough by themselves. *bubblewrap* shows a program a file system with nothing but Python in it.
*Landlock* forbids it all other files; it needs no mounts, so it also works inside of a stage's own
Landlock, which forbids mounts. Both come with the filter of system calls (`inside.seccomp`) and the
limits of `inside.confine`. With neither, nothing runs.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from e2h_pipeline.grading.code.inside.places import python_folders
from e2h_pipeline.grading.code.inside.zygote import LANDLOCK, NAMESPACES, NONE

UNSAFE = "E2H_LET_GENERATED_PROGRAMS_DO_ANYTHING"
"""Set to 1 to run programs without walls: they can read, change, delete and send all that you can."""
SCRIPTS = (
    "e2h_pipeline.grading.code.inside.zygote",
    "e2h_pipeline.grading.code.inside.confine",
    "e2h_pipeline.grading.code.inside.landlock",
    "e2h_pipeline.grading.code.inside.places",
    "e2h_pipeline.grading.code.inside.program",
    "e2h_pipeline.grading.code.inside.seccomp",
    "e2h_pipeline.grading.code.inside.tester",
    "e2h_pipeline.grading.code.inside.values",
)
"""All that runs inside. Code versions take the name of a module for an import of it."""
_INSIDE = Path(__file__).with_name("inside")
_TEMPORARY_BYTES = 64 << 20
_RIGHTS = ("CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_READ_SEARCH")  # root needs them to be no root


def kinds() -> tuple[str, ...]:
    """The kinds of walls to try, best first."""
    found = (NAMESPACES, LANDLOCK) if shutil.which("bwrap") else (LANDLOCK,)
    return (*found, NONE) if os.environ.get(UNSAFE) == "1" else found


def refusal(reasons: dict[str, str]) -> str:
    """Why nothing runs, and the mend."""
    told = "; ".join(f"{kind}: {reason}" for kind, reason in reasons.items())
    return (
        f"generated programs cannot be run safely on this host ({told}). Install bubblewrap and libseccomp2, or use "
        f"a kernel with Landlock (5.13 or later). In a container that holds nothing of value, {UNSAFE}=1 runs them "
        "without walls"
    )


def command(role: str, kind: str, folder: str, limits: str) -> list[str]:
    """The command that starts the inside.

    Args:
        role: of `inside.zygote`.
        limits: as JSON.
        folder: an empty folder for its programs; not used by bubblewrap, which makes one.
    """
    python = os.path.realpath(sys.executable)
    if kind != NAMESPACES:
        return [python, "-P", "-s", "-S", "-B", str(_INSIDE / "zygote.py"), role, kind, folder, limits]
    inside = ["/inside/zygote.py", role, kind, "/tmp", limits]
    return ["bwrap", *_namespaces(python), "--", python, "-P", "-s", "-S", "-B", *inside]


def _namespaces(python: str) -> Iterator[str]:
    yield from ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
    if os.geteuid():
        yield "--unshare-user"
    else:
        yield from (word for right in _RIGHTS for word in ("--cap-add", right))
    yield from ("--new-session", "--clearenv")
    for name, value in environment("/tmp").items():
        yield from ("--setenv", name, value)
    for place in python_folders():
        if os.path.islink(place):
            yield from ("--symlink", os.readlink(place), place)
        else:
            yield from ("--ro-bind", place, place)
    yield from ("--ro-bind", python, python)
    for name in SCRIPTS:
        script = name.rpartition(".")[2] + ".py"
        yield from ("--ro-bind", str(_INSIDE / script), f"/inside/{script}")
    for device in ("/dev/null", "/dev/zero", "/dev/urandom"):
        yield from ("--dev-bind", device, device)
    yield from ("--size", str(_TEMPORARY_BYTES), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp")


def environment(folder: str) -> dict[str, str]:
    """All that the inside sees of variables: none of ours."""
    return {"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
