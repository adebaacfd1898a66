"""One zygote inside its walls, and our end of the channel to it."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from e2h_pipeline.grading.code.inside.zygote import KILL
from e2h_pipeline.grading.code.walls import command, environment, kinds, refusal

_START_SECONDS = 120.0
_REPLY_BYTES = 1 << 16


class SandboxError(RuntimeError):
    """Programs cannot be run on this host; the message says why and the mend."""


class BoxGone(RuntimeError):
    """A zygote ended on its own: it was killed from outside, or the machine is out of memory."""


@dataclass(frozen=True)
class Limits:
    """What one process may use.

    Attributes:
        cpu_seconds: CPU time.
        idle_seconds: time in a row without any use of the CPU: it waits for what never comes.
        wall_seconds: by the clock; far above the others, for what wakes now and then.
        memory_bytes: address space.
        file_bytes: of one file.
        folder_bytes: of all files together.
        output_bytes: of standard output.
        threads: at once.
    """

    cpu_seconds: float = 3.0
    idle_seconds: float = 5.0
    wall_seconds: float = 180.0
    memory_bytes: int = 1 << 30
    file_bytes: int = 4 << 20
    folder_bytes: int = 32 << 20
    output_bytes: int = 8 << 20
    threads: int = 64


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: as `os.wait4` gives it.
        killed: the limit for which it was killed; None where it ended by itself.
        cpu: seconds of CPU time.
    """

    status: int
    killed: str | None
    cpu: float


class Box:
    """A zygote of one kind of walls, or the process of tests.

    Args:
        role: `PROGRAMS` or `TESTS` of `inside.zygote`.

    Raises:
        SandboxError: it cannot start.
    """

    def __init__(self, role: str, kind: str, limits: Limits) -> None:
        self.kind = kind
        self._folder = tempfile.mkdtemp(prefix="e2h-box-")
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                command(role, kind, self._folder, json.dumps(asdict(limits))),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment(self._folder) | {"PATH": os.environ.get("PATH", os.defpath)},
                cwd="/",
            )
        except OSError as error:
            self._forget()
            raise SandboxError(f"{error.strerror}") from None
        finally:
            theirs.close()
        self._require_ready()

    def begin(self, source: str, handles: Sequence[int], entry_point: str | None = None) -> None:
        """Start a process with three handles: input, output, note; or tests with two: results, calls. They stay
        open here too.

        Raises:
            BoxGone: the zygote has ended.
        """
        file = memory_file(source)
        try:
            socket.send_fds(
                self.channel, [json.dumps({"entry_point": entry_point}).encode()], [file, *handles]
            )
        except OSError:
            raise BoxGone(self.kind) from None
        finally:
            os.close(file)

    def kill(self) -> None:
        """Kill the process that runs; nothing if it has ended."""
        with suppress(OSError):
            self.channel.send(KILL)

    def end(self) -> Ended:
        """Wait for the end of the process.

        Raises:
            BoxGone: the zygote has ended.
        """
        return Ended(**self.receive())

    def receive(self) -> dict[str, Any]:
        """The next message.

        Raises:
            BoxGone: the zygote has ended.
        """
        try:
            message = self.channel.recv(_REPLY_BYTES)
        except OSError:
            message = b""
        if not message:
            raise BoxGone(self.kind)
        found: dict[str, Any] = json.loads(message)
        return found

    def cpu_seconds(self) -> float:
        """CPU time of its processes, those that have ended too."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the zygote and its process; no folder is left."""
        self.channel.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._forget()

    def _require_ready(self) -> None:
        try:
            ready = select.select([self.channel], [], [], _START_SECONDS)[0]
            found = self.receive() if ready else {"refused": f"not ready in {_START_SECONDS:.0f} s"}
        except BoxGone:
            found = {"refused": self._last_words()}
        if "refused" in found:
            self.close()
            raise SandboxError(str(found["refused"]))

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        self._process.wait()
        lines = self._process.stderr.read(4096).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"ended with status {self._process.returncode}"

    def _forget(self) -> None:
        self.channel.close()
        process = getattr(self, "_process", None)
        if process is not None and process.stderr is not None:
            process.stderr.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def open_box(role: str, limits: Limits) -> Box:
    """A box behind the best walls of this host that hold.

    Raises:
        SandboxError: there are none.
    """
    reasons = {}
    for kind in kinds():
        try:
            return Box(role, kind, limits)
        except SandboxError as error:
            reasons[kind] = str(error)
    raise SandboxError(refusal(reasons))


def memory_file(text: str) -> int:
    """A handle of a file in memory, at its beginning, which nobody can change."""
    import fcntl

    handle = os.memfd_create("e2h", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    data = memoryview(text.encode("utf-8", "surrogatepass"))
    while data:
        data = data[os.write(handle, data) :]
    os.lseek(handle, 0, os.SEEK_SET)
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return handle
