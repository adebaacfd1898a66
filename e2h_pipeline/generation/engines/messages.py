"""Messages between a process and a child that it started: JSON with its length in front, over a
socket pair.

There is no port and no pickle. Each side waits for the other until a deadline, also in the middle
of a message: a process that is stopped must not stop the one that waits for it.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

SOCKET = "E2H_ENGINE_FD"
"""Variable with the number of the child's end; `resources.supervise` hands that file on."""

ALIVE: Mapping[str, Any] = {"alive": True}
"""A sign of life, between a message and its answer."""

_LENGTH = struct.Struct(">Q")
_MOST = 1 << 31  # bytes of a message; 512 samples of 768 tokens have 10 million
_PIECE = 1 << 20


class Silence(TimeoutError):
    """The other side did not send, or take, a message in time."""


class Ended(ConnectionError):
    """The other side is gone."""


class Pipe:
    """One end of a socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        """For `select`."""
        return self._end.fileno()

    def send(self, message: Mapping[str, Any], seconds: float | None = None) -> None:
        """Send a message; `seconds` is for all of it, None waits for ever.

        Raises:
            Silence: the other side did not take it in time.
            Ended: the other side is gone.
        """
        text = json.dumps(message).encode()
        self._end.settimeout(seconds)
        try:
            self._end.sendall(_LENGTH.pack(len(text)) + text)
        except TimeoutError:
            raise Silence(f"took no message in {seconds:g} s") from None
        except OSError as error:
            raise Ended(str(error)) from None

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """The next message; `seconds` is for all of it, None waits for ever.

        Raises:
            Silence: it was not whole in time.
            Ended: the other side is gone.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size, deadline))
        if length > _MOST:
            raise Ended(f"announced a message of {length:,} bytes, and the most is {_MOST:,}")
        message: dict[str, Any] = json.loads(self._exactly(length, deadline))
        return message

    def close(self) -> None:
        """Close this end; the other side notices."""
        self._end.close()

    def _exactly(self, count: int, deadline: float | None) -> bytes:
        pieces: list[bytes] = []
        while count:
            left = None if deadline is None else max(deadline - time.monotonic(), 1e-3)
            self._end.settimeout(left)
            try:
                piece = self._end.recv(min(count, _PIECE))
            except TimeoutError:
                raise Silence("sent no whole message in time") from None
            except OSError as error:
                raise Ended(str(error)) from None
            if not piece:
                raise Ended("closed the connection")
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)
