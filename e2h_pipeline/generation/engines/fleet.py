"""Rollout engines: live engines in processes of their own, driven by the process that trains.

Each runs under `resources.supervise`, so it ends with this process, however that ends. Requests are
split by question; randomness is counter-based, so samples do not depend on the number of engines
(in float32; in 16 bits other batches round differently).

Nothing waits for ever. An engine answers, or gives a sign of life, within `Settings.seconds`; a
transfer of weights runs on a thread beside, and its end is awaited as long. An engine that dies,
fails or falls silent ends all of them with an error that has its traceback or its last lines. A
new run continues from the last checkpoint, with new engines.
"""

from __future__ import annotations

import math
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from e2h_pipeline.generation.engines.broadcast import Broadcast, Meeting, TensorInfo
from e2h_pipeline.generation.engines.messages import ALIVE, SOCKET, Ended, Pipe, Silence
from e2h_pipeline.generation.engines.protocol import (
    Sample,
    SampleRequest,
    SamplingOptions,
    prompt_ids,
    sample_of,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_HOST = "e2h_pipeline.generation.engines.host"
_WEIGHTS, _DRAWING = "taking new weights", "drawing"
CARDS, SHARE = "CUDA_VISIBLE_DEVICES", "E2H_ROLLOUT_GPU_SHARE"  # the latter is vllm_live's
_SHARED = 0.35  # of a GPU's memory, for an engine that shares it with the trainer
_GROUP_BYTES = 256 << 20  # tensors that are sent between two answers
_LOOK_SECONDS = 0.2  # between two looks at the thread that sends
_GRACE_SECONDS = 5.0  # for a process that ends to be seen as ended
_END_SECONDS = 15.0  # supervise gives 5 of grace
_LAST_LINES = 20
# Variables that torch's and accelerate's launchers set for a rank.
_LAUNCHERS = re.compile(
    r"(E2H_LOCK_FD|E2H_CARD_FDS|(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|(MASTER|TORCHELASTIC|ACCELERATE|FSDP)_.*|ROLE_NAME)$"
)


class RolloutEngineError(RuntimeError):
    """A rollout engine died, failed or fell silent. Notes hold its traceback or last lines."""


class Weights(Protocol):
    """Weights to send: descriptions first, then the tensors, in the same order."""

    def infos(self) -> Sequence[TensorInfo]:
        """All tensors, without gathering them."""
        ...

    def tensors(self) -> Iterator[torch.Tensor]:
        """The tensors, whole, one at a time."""
        ...


@dataclass(frozen=True)
class Settings:
    """How a host runs rollout engines.

    Attributes:
        engines: their number; 0 draws in the process that trains.
        cards: GPUs that share one copy of the model.
        seconds: the longest silence of an engine.
        start_seconds: the longest start, which loads the model.
    """

    engines: int = 0
    cards: int = 1
    seconds: float = 45.0
    start_seconds: float = 1800.0

    @classmethod
    def from_environment(cls) -> Settings:
        """E2H_ROLLOUT_ENGINES, E2H_ROLLOUT_CARDS, E2H_ROLLOUT_SECONDS.

        Raises:
            ValueError: one is not a number of its kind; the message names it.
        """
        return cls(
            _number("E2H_ROLLOUT_ENGINES", cls.engines, 0),
            _number("E2H_ROLLOUT_CARDS", cls.cards, 1),
            _number("E2H_ROLLOUT_SECONDS", int(cls.seconds), 1),
        )


def _number(name: str, default: int, least: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"{name} is '{text}'; set it to a whole number, {least} or more")
    return int(text)


class Fleet:
    """Rollout engines of one run."""

    def __init__(
        self,
        engine: str,
        model: Path,
        tokenizer: PreTrainedTokenizerBase,
        settings: Settings,
        folder: Path,
        adapter_rank: int = 0,
    ) -> None:
        """Start the engines, and let them join the group that weights come over.

        Args:
            engine: its name in the registry.
            model: a Hugging Face folder. Its weights serve until `take_weights`.
            tokenizer: the policy's.
            folder: of the engines' output.
            adapter_rank: of the LoRA adapters that learn; 0 where weights do.

        Raises:
            RolloutEngineError: an engine did not start.
        """
        self._tokenizer, self._settings = tokenizer, settings
        self._folder = Path(tempfile.mkdtemp(prefix="rollout-engines-", dir=folder))
        self._processes: list[_Process] = []
        self._drawing: _Asked | None = None
        try:
            for number in range(settings.engines):
                placed = cards_of(number, settings, _cards(), int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
                name = f"rollout engine {number} ({engine})"
                self._processes.append(_Process(name, self._folder / f"{number}.log", placed))
            opening = {"engine": engine, "model": str(model), "cards": settings.cards}
            opening["adapter_rank"] = adapter_rank
            started = self._ask([opening] * settings.engines, "starting", settings.start_seconds)
            for process, answer in zip(self._processes, started, strict=True):
                process.pid = answer["pid"]
            self._group = self._join([answer["workers"] for answer in started])
        except BaseException:
            self.close()
            raise

    def sample(self, requests: Sequence[SampleRequest], options: SamplingOptions) -> list[list[Sample]]:
        """Samples of each request, in the order asked. See `Engine`.

        Raises:
            RolloutEngineError: an engine died, failed or fell silent.
        """
        self.begin(requests, options)
        return self.drawn()

    def begin(self, requests: Sequence[SampleRequest], options: SamplingOptions) -> None:
        """Let the engines draw while this process goes on; `drawn` then waits for the samples. In
        between they can be asked for nothing else.

        Raises:
            RolloutEngineError: an engine died, or took no message.
        """
        count = len(self._processes)
        messages = [
            {
                "do": "sample",
                "options": asdict(options),
                "requests": [
                    [prompt_ids(self._tokenizer, replace(r, drawn=())), r.key, r.count, r.first, r.drawn]
                    for r in requests[number::count]
                ],
            }
            for number in range(count)
        ]
        self._drawing = self._send(messages, _DRAWING)

    def drawn(self) -> list[list[Sample]]:
        """The samples of `begin`, in the order asked.

        Raises:
            RolloutEngineError: an engine died, failed or fell silent.
        """
        assert self._drawing is not None
        answers = self._answers(self._drawing, _DRAWING)
        self._drawing = None
        count = sum(len(answer["samples"]) for answer in answers)
        found: list[list[Sample]] = [[] for _ in range(count)]
        for number, answer in enumerate(answers):
            samples = [[sample_of(values) for values in own] for own in answer["samples"]]
            found[number :: len(answers)] = samples
        return found

    def take_weights(self, weights: Weights, version: int) -> None:
        """Send weights to all engines. From here on their samples are of this version.

        Raises:
            RolloutEngineError: an engine died, failed or fell silent, or has other weights.
        """
        self._ask_all(do="start")
        tensors = weights.tensors()
        for infos in _groups(weights.infos()):
            some = [next(tensors) for _ in infos]  # on this thread: ranks that hold shards gather together
            message = {"do": "update", "tensors": [[i.name, i.dtype, i.shape] for i in infos]}
            self._beside(partial(self._group.send, some), [message] * len(self._processes))
        self._require(version, self._ask_all(do="finish", version=version))

    def take_adapter(self, save: Callable[[Path], None], version: int) -> None:
        """Give all engines a LoRA adapter. From here on their samples are of this version.

        Args:
            save: writes it to a folder, in PEFT's format.

        Raises:
            RolloutEngineError: as of `take_weights`.
        """
        folder = self._folder / f"adapter-{version}"
        save(folder)
        self._require(version, self._ask_all(do="adapter", folder=str(folder), version=version))
        shutil.rmtree(folder)

    def _require(self, version: int, answers: Sequence[Mapping[str, Any]]) -> None:
        """Refuse engines that have other weights."""
        for process, answer in zip(self._processes, answers, strict=True):
            if answer["version"] != version:
                raise self._failure(
                    [process], f"has weights of version {answer['version']} instead of {version}"
                )

    def pids(self) -> list[int]:
        """Of the engines."""
        return [process.pid for process in self._processes]

    def require_alive(self) -> None:
        """Ask whether all engines run; of those that draw, hear what they have sent.

        Raises:
            RolloutEngineError: one has ended, failed or fallen silent.
        """
        if not self._processes:
            raise RolloutEngineError("the rollout engines of this run have ended")
        while self._drawing is not None and self._hear(self._drawing, _DRAWING, 0.0):
            continue  # signs of life that nobody takes would fill the pipe and stop the engine
        for process in self._processes:
            if process.ended():
                raise self._failure([process], f"ended{process.how_it_ended()} while it waited")

    def close(self) -> None:
        """End all engines. Closing again does nothing."""
        for process in self._processes:
            process.end()
        for process in self._processes:
            process.wait()
        self._processes, self._drawing = [], None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _join(self, workers: Sequence[int]) -> Broadcast:
        """The group of this process and all engines' workers."""
        meeting = Meeting(str(self._folder / "meeting"), 1 + sum(workers), self._settings.seconds)
        ranks = [1 + sum(workers[:number]) for number in range(len(workers))]
        messages = [{"do": "join", "meeting": asdict(meeting), "rank": rank} for rank in ranks]
        found: list[Broadcast] = []
        self._beside(lambda: found.append(Broadcast(meeting, 0)), messages)
        return found[0]

    def _ask_all(self, **message: Any) -> list[dict[str, Any]]:
        """Send all engines the same message about weights."""
        return self._ask([message] * len(self._processes), _WEIGHTS)

    def _beside(self, work: Callable[[], None], messages: Sequence[Mapping[str, Any]]) -> None:
        """Ask all engines for what needs our part in it, which is done on a thread: the main one
        must notice an engine that does not do its part."""
        part = _Part(work)
        self._ask(messages, _WEIGHTS, part=part)
        try:
            part.finish(self._settings.seconds)
        except RuntimeError as error:
            raise self._failure(self._processes, f"took no weights: {error}") from error

    def _ask(
        self,
        messages: Sequence[Mapping[str, Any]],
        doing: str,
        limit: float = math.inf,
        part: _Part | None = None,
    ) -> list[dict[str, Any]]:
        """Send each engine its message; their answers.

        Args:
            doing: for errors.
            limit: seconds until the answers, signs of life or not.
            part: ours, which runs meanwhile.
        """
        asked = self._send(messages, doing)
        asked.limit(limit)
        return self._answers(asked, doing, part)

    def _send(self, messages: Sequence[Mapping[str, Any]], doing: str) -> _Asked:
        """Send each engine its message. They must have answered all earlier ones."""
        if not self._processes:
            raise RolloutEngineError("the rollout engines of this run have ended")
        assert self._drawing is None
        asked = _Asked(self._processes, self._settings.seconds)
        for process, message in zip(self._processes, messages, strict=True):
            self._of(process, doing, lambda p=process, m=message: asked.send(p, m))  # type: ignore[misc]
        return asked

    def _answers(self, asked: _Asked, doing: str, part: _Part | None = None) -> list[dict[str, Any]]:
        """Wait for the answers."""
        while asked.waiting():
            self._hear(asked, doing, _LOOK_SECONDS)
            if part is not None and part.failed_long_ago():  # an engine is the cause, and would say so first
                raise self._failure(asked.waiting(), f"took no weights: {part.error}")
        return asked.answers()

    def _hear(self, asked: _Asked, doing: str, seconds: float) -> bool:
        """Take a message of each engine that has sent one, or does so within some seconds; whether
        there was any."""
        ready = asked.ready(seconds)
        for process in ready:
            answer = self._of(process, doing, lambda p=process: asked.receive(p))  # type: ignore[misc]
            if "error" in answer:
                raise self._failure(
                    [process], f"failed while {doing}: {answer['error']}", answer["traceback"]
                )
        if silent := asked.silent():
            raise self._failure(
                silent, f"gave no sign of life for {self._settings.seconds:g} s while {doing}"
            )
        if late := asked.late():
            raise self._failure(late, f"took too long for {doing}")
        return bool(ready)

    def _of(self, process: _Process, doing: str, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A message to or from a process, with its failure as an error."""
        try:
            return call()
        except Silence as silence:
            raise self._failure([process], f"{silence} while {doing}") from None
        except Ended:
            raise self._failure([process], f"ended{process.how_it_ended()} while {doing}") from None

    def _failure(self, processes: Sequence[_Process], what: str, trace: str = "") -> RolloutEngineError:
        """The error of some processes; all engines are ended."""
        names = " and ".join(process.name for process in processes)
        error = RolloutEngineError(f"{names} {what}; run again to go on from the last checkpoint")
        output = "".join(f"last lines of {process.name}:\n{process.last_lines()}\n" for process in processes)
        error.add_note(trace or output)
        self.close()
        return error


class _Asked:
    """A message to each process, and the answers so far."""

    def __init__(self, processes: Sequence[_Process], seconds: float) -> None:
        """
        Args:
            seconds: the longest silence.
        """
        self._processes, self._seconds, self._deadline = processes, seconds, math.inf
        self._heard: dict[_Process, float] = {}
        self._answers: dict[_Process, dict[str, Any]] = {}

    def send(self, process: _Process, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send one."""
        process.pipe.send(message, self._seconds)
        self._heard[process] = time.monotonic()
        return {}

    def waiting(self) -> list[_Process]:
        """Processes without an answer."""
        return [process for process in self._processes if process not in self._answers]

    def limit(self, seconds: float) -> None:
        """From now until all answers, signs of life or not."""
        self._deadline = time.monotonic() + seconds

    def ready(self, seconds: float) -> list[_Process]:
        """Those of them that have sent something, or do so within some seconds."""
        waiting = self.waiting()
        found, _, _ = select.select([process.pipe for process in waiting], [], [], seconds)
        return [process for process in waiting if process.pipe in found]

    def receive(self, process: _Process) -> dict[str, Any]:
        """An answer, or a sign of life."""
        message = process.pipe.receive(self._seconds)
        self._heard[process] = time.monotonic()
        if message != ALIVE:
            self._answers[process] = message
        return message

    def silent(self) -> list[_Process]:
        """Processes that were heard of too long ago."""
        limit = time.monotonic() - self._seconds
        return [process for process in self.waiting() if self._heard[process] < limit]

    def late(self) -> list[_Process]:
        """Processes without an answer at the deadline."""
        return self.waiting() if time.monotonic() > self._deadline else []

    def answers(self) -> list[dict[str, Any]]:
        """Of all, in order."""
        return [self._answers[process] for process in self._processes]


class _Part:
    """Our part of a transfer, on a thread of its own.

    Attributes:
        error: why it failed.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self.error: RuntimeError | None = None
        self._failed = math.inf
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def failed_long_ago(self) -> bool:
        """Whether it failed, and the engines had time to say why."""
        return time.monotonic() > self._failed + _GRACE_SECONDS

    def finish(self, seconds: float) -> None:
        """Wait for its end.

        Raises:
            RuntimeError: it failed, or has not ended in time.
        """
        self._thread.join(seconds)
        if self.error is not None:
            raise self.error
        if self._thread.is_alive():
            raise RuntimeError(f"the transfer has not ended in {seconds:g} s")

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except RuntimeError as error:  # of gloo
            self.error, self._failed = error, time.monotonic()


class _Process:
    """A rollout engine's process, with its supervisor.

    Attributes:
        pid: of the engine; told by itself, because it is a child of its supervisor.
        pipe: to it.
    """

    def __init__(self, name: str, output: Path, variables: Mapping[str, str]) -> None:
        self.name, self.pid, self._output = name, 0, output
        ours, theirs = socket.socketpair()
        environment = environment_of({**variables, SOCKET: str(theirs.fileno())})
        with theirs, output.open("wb") as log:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-m", "resources.supervise", sys.executable, "-m", _HOST],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self.pipe = Pipe(ours)

    def ended(self) -> bool:
        """Whether it has."""
        return self._supervisor.poll() is not None

    def how_it_ended(self) -> str:
        """By which signal or with which status; nothing where its supervisor still runs."""
        with suppress(subprocess.TimeoutExpired):
            status = self._supervisor.wait(_GRACE_SECONDS)
            by = -status if status < 0 else status - 128  # supervise adds 128, as shells do
            if by > 0:
                killed = by == signal.SIGKILL
                return f" by {signal.Signals(by).name}" + (" (out of memory?)" if killed else "")
            return f" with status {status}"
        return ""

    def end(self) -> None:
        """Make it end: it sees the pipe closed, or else its supervisor ends it."""
        self.pipe.close()
        if self._supervisor.stdin is not None:
            self._supervisor.stdin.close()

    def wait(self) -> None:
        """Wait for its end."""
        try:
            self._supervisor.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()  # the kernel ends the engine then: supervise.die_with_parent
            self._supervisor.wait()

    def last_lines(self) -> str:
        """Of its output."""
        lines = self._output.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LAST_LINES:]) or "(none)"


def is_of_launcher(variable: str) -> bool:
    """Whether a variable tells a process which rank of the training it is, or which locks it
    holds."""
    return bool(_LAUNCHERS.match(variable))


def environment_of(variables: Mapping[str, str]) -> dict[str, str]:
    """Of an engine. It must not take itself for a rank of the training, and the locks of the
    artifact and of its cards are not handed on: the engine ends with this process."""
    kept = {name: value for name, value in os.environ.items() if not is_of_launcher(name)}
    return {
        **kept,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        **variables,
    }


def cards_of(number: int, settings: Settings, cards: Sequence[str], trainers: int) -> dict[str, str]:
    """Variables that give an engine its GPUs: those behind the trainers', or where there are too
    few a share of all.

    Args:
        number: of the engine.
        cards: that this host lets us use; CUDA's names of them.
        trainers: processes that train, with a card each.
    """
    wanted = settings.cards
    if not cards:
        return {}
    first = trainers + number * wanted
    if trainers + settings.engines * wanted <= len(cards):
        return {CARDS: ",".join(cards[first : first + wanted])}
    shared = [cards[(number * wanted + i) % len(cards)] for i in range(wanted)]
    return {CARDS: ",".join(shared), SHARE: str(_SHARED)}


def _cards() -> list[str]:
    """GPUs of this process."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get(CARDS)
    return named.split(",")[:count] if named else [str(i) for i in range(count)]


def _groups(infos: Sequence[TensorInfo]) -> Iterator[list[TensorInfo]]:
    """Tensors in groups of at most `_GROUP_BYTES`, or of one tensor."""
    group: list[TensorInfo] = []
    size = 0
    for info in infos:
        if group and size + info.bytes > _GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(info)
        size += info.bytes
    if group:
        yield group
