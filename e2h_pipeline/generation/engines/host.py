"""A live engine in a process of its own: `python -m e2h_pipeline.generation.engines.host`.

The parent (`fleet`) starts it under `resources.supervise` and hands it one end of a socket pair, by
number in `messages.SOCKET`. Each message is answered by one; in between come signs of life, while
tokens are drawn. A sign says that work goes on, not only that the process is there: an engine that
hangs gives none. Any error ends the process, after its traceback was sent.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.generation.engines.broadcast import Meeting, TensorInfo
from e2h_pipeline.generation.engines.messages import ALIVE, SOCKET, Ended, Pipe
from e2h_pipeline.generation.engines.protocol import Candidate, SampleRequest, SamplingOptions
from e2h_pipeline.registry import ENGINES
from e2h_pipeline.solutions import MARKED
from resources.supervise import die_with_parent

if TYPE_CHECKING:
    from e2h_pipeline.generation.engines.live import LiveEngine

_EVERY_SECONDS = 1.0  # between two signs of life
_EVERY_TOKENS = 32  # of a sample, between two chances to give one


def main(pipe: Pipe) -> None:
    """Serve the parent until it closes the pipe."""
    try:
        asked = pipe.receive()
        with _signs_of_life(pipe):
            engine = _open(asked)
        pipe.send({"pid": os.getpid(), "workers": engine.workers})
        while True:
            asked = pipe.receive()
            pipe.send(_do(asked, engine, Pulse(pipe)))
    except Ended:
        return  # the parent needs no more
    except Exception as error:
        pipe.send(
            {
                "error": traceback.format_exception_only(error)[0].strip(),
                "traceback": "".join(traceback.format_exception(error)),
            }
        )
        raise


class Pulse:
    """A watch that gives no sample up. It tells the parent that tokens are being drawn."""

    every = _EVERY_TOKENS

    def __init__(self, pipe: Pipe) -> None:
        self._pipe, self._last = pipe, time.monotonic()

    def hopeless(self, candidates: Sequence[Candidate]) -> list[bool]:
        """See `Watch`."""
        if time.monotonic() - self._last >= _EVERY_SECONDS:
            self._pipe.send(ALIVE)
            self._last = time.monotonic()
        return [False] * len(candidates)


def _open(asked: Mapping[str, Any]) -> LiveEngine:
    """The engine that the first message asks for.

    Raises:
        ValueError: this engine cannot take new weights.
    """
    entry = ENGINES.load(asked["engine"])()
    if not hasattr(entry, "open_live"):
        raise ValueError(
            f"the engine '{asked['engine']}' cannot take new weights while it runs: set E2H_ENGINE to transformers or "
            "vllm, or unset E2H_ROLLOUT_ENGINES"
        )
    engine: LiveEngine = entry.open_live(Path(asked["model"]), asked["cards"], asked["adapter_rank"])
    return engine


def _do(asked: Mapping[str, Any], engine: LiveEngine, pulse: Pulse) -> dict[str, Any]:
    """The answer to a message.

    Raises:
        ValueError: it asks for something unknown.
    """
    match asked["do"]:
        case "sample":
            requests = [
                SampleRequest("", MARKED, key, count, first, tokens=tuple(tokens), drawn=tuple(drawn))
                for tokens, key, count, first, drawn in asked["requests"]
            ]
            options = SamplingOptions(**{**asked["options"], "stop": tuple(asked["options"]["stop"])})
            found = engine.sample(requests, options, pulse)
            return {"samples": [[asdict(sample) for sample in samples] for samples in found]}
        case "join":
            engine.join(Meeting(**asked["meeting"]), asked["rank"])
        case "start":
            engine.start()
        case "update":
            engine.update([TensorInfo(name, dtype, tuple(shape)) for name, dtype, shape in asked["tensors"]])
        case "adapter":
            return {"version": engine.take_adapter(Path(asked["folder"]), asked["version"])}
        case "finish":
            return {"version": engine.finish(asked["version"])}
        case other:
            raise ValueError(f"a rollout engine knows no '{other}'")
    return {}


@contextmanager
def _signs_of_life(pipe: Pipe) -> Iterator[None]:
    """Within it, a thread gives them: a model is loaded in one call, which shows no progress."""
    done = threading.Event()

    def tell() -> None:
        while not done.wait(_EVERY_SECONDS):
            pipe.send(ALIVE)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    die_with_parent()
    main(Pipe(socket.socket(fileno=int(os.environ[SOCKET]))))
