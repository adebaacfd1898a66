"""Rollout engines in processes of their own, here with the embedded engine in each."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import alive
from transformers import PreTrainedTokenizerFast

from e2h_pipeline.generation.engines.broadcast import Broadcast, Meeting, TensorInfo
from e2h_pipeline.generation.engines.fleet import (
    Fleet,
    RolloutEngineError,
    Settings,
    cards_of,
    environment_of,
)
from e2h_pipeline.generation.engines.live import LiveTransformers
from e2h_pipeline.generation.engines.messages import Ended, Pipe, Silence
from e2h_pipeline.generation.engines.protocol import SampleRequest, SamplingOptions, prompt_ids
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.models.load import load_policy
from e2h_pipeline.solutions import MARKED

QUESTIONS = ["3+5", "1-2*3+4+5-6*0", "6*6*6", "4*4", "2+2-2+2"]
HOT = SamplingOptions(temperature=0.8, max_new_tokens=24, token_logprobs=True)
LONG = replace(HOT, max_new_tokens=1000)


class ModelWeights:
    """Weights of a model."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    def infos(self) -> list[TensorInfo]:
        """See `fleet.Weights`."""
        return [TensorInfo.of(name, tensor) for name, tensor in self._model.named_parameters()]

    def tensors(self) -> Iterator[torch.Tensor]:
        """See `fleet.Weights`."""
        return iter(self._model.parameters())


def requests(count: int = 3) -> list[SampleRequest]:
    """Some for each question."""
    return [SampleRequest(q, MARKED, stream_key(0, "test", q), count) for q in QUESTIONS]


@pytest.fixture
def start(
    ladder_tok: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Fleet]]:
    """Starts engines of an installed package, which need no model; ends them after the test."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "installed")  # it is handed on to child processes
    started: list[Fleet] = []

    def fleet(engine: str, engines: int, seconds: float = 60.0) -> Fleet:
        started.append(Fleet(engine, tmp_path, ladder_tok, Settings(engines, 1, seconds), tmp_path))
        return started[-1]

    yield fleet
    for one in started:
        one.close()


def moved(model: torch.nn.Module) -> torch.nn.Module:
    """The model with other weights everywhere."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def test_requests_are_split_and_tokenized_here(
    start: Callable[..., Fleet], ladder_tok: PreTrainedTokenizerFast
) -> None:
    """A parrot repeats what it was asked. With the embedded engine: tests/rl/online."""
    asked = [*requests(2), *(replace(r, first=5, prefix="3+5=1\n\n") for r in requests(3))]
    drawn = start("parrot", 3).sample(asked, HOT)
    for request, samples in zip(asked, drawn, strict=True):
        assert [s.index for s in samples] == list(range(request.first, request.first + request.count))
        assert {s.token_ids for s in samples} == {tuple(prompt_ids(ladder_tok, request))}


def test_every_tensor_arrives_and_none_may_be_missing(ladder_policy: Path, tmp_path: Path) -> None:
    model = moved(load_policy(ladder_policy)[0]).bfloat16()
    engine = LiveTransformers(ladder_policy)
    engine.model.bfloat16()
    meeting = Meeting(str(tmp_path / "meeting"), 2, 20.0)
    sender: list[Broadcast] = []
    thread = threading.Thread(target=lambda: sender.append(Broadcast(meeting, 0)))
    thread.start()
    engine.join(meeting, 1)
    thread.join()
    weights = ModelWeights(model)

    def send(infos: list[TensorInfo]) -> None:
        tensors = list(weights.tensors())[: len(infos)]
        beside = threading.Thread(target=sender[0].send, args=(tensors,))
        beside.start()
        try:
            engine.update(infos)
        finally:
            beside.join()

    engine.start()
    send(weights.infos())
    assert engine.finish(3) == 3
    assert {s.version for samples in engine.sample(requests(), HOT) for s in samples} == {3}
    for (name, sent), (_, found) in zip(
        model.named_parameters(), engine.model.named_parameters(), strict=True
    ):
        assert torch.equal(sent, found), name
    engine.start()
    with pytest.raises(ValueError, match=r"the trainer sent no .*norm\.weight.*weights of two versions"):
        engine.finish(4)
    wrong = [replace(weights.infos()[0], name="model.other")]
    engine.start()
    with pytest.raises(ValueError, match=r"sent model\.other of shape .* the engine has no such parameter"):
        send(wrong)


def _while_drawing(fleet: Fleet, act: Callable[[], None]) -> tuple[RolloutEngineError, float]:
    """Act in the middle of a draw without an end: its error, and how long after the act it came."""
    acted: list[float] = []

    def later() -> None:
        acted.append(time.monotonic())
        act()

    timer = threading.Timer(0.5, later)
    timer.start()
    with pytest.raises(RolloutEngineError) as caught:
        fleet.sample(requests(), LONG)
    timer.join()
    return caught.value, time.monotonic() - acted[0]


def test_an_engine_that_is_killed_fails_the_draw_at_once(start: Callable[..., Fleet]) -> None:
    fleet = start("parrot", 2)
    pids = fleet.pids()
    error, seconds = _while_drawing(fleet, lambda: os.kill(pids[1], signal.SIGKILL))
    assert str(error).startswith(
        "rollout engine 1 (parrot) ended by SIGKILL (out of memory?) while drawing; run again"
    )
    assert seconds < 45
    assert not any(map(alive, pids))
    for draw in (lambda: fleet.sample(requests(), HOT), fleet.require_alive):
        with pytest.raises(RolloutEngineError, match="have ended"):
            draw()


def test_an_engine_that_stands_still_fails_the_draw_after_its_time(start: Callable[..., Fleet]) -> None:
    fleet = start("parrot", 2, seconds=3.0)
    pids = fleet.pids()
    error, seconds = _while_drawing(fleet, lambda: os.kill(pids[0], signal.SIGSTOP))
    assert str(error).startswith("rollout engine 0 (parrot) gave no sign of life for 3 s while drawing; run")
    assert 2 < seconds < 45
    assert not any(map(alive, pids))


def test_an_engine_dies_with_its_supervisor_and_with_its_parent(
    start: Callable[..., Fleet], kill_midway: Callable[[str], None], tmp_path: Path
) -> None:
    """The kernel ends it: neither can tell it to."""
    fleet = start("parrot", 1)
    (pid,) = fleet.pids()
    supervisor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    error, _ = _while_drawing(fleet, lambda: os.kill(supervisor, signal.SIGKILL))
    assert str(error).startswith("rollout engine 0 (parrot) ended by SIGKILL")
    _end([pid])
    noted = tmp_path / "pids"
    kill_midway(
        f"import os, signal, sys\nsys.path.insert(0, {str(Path(__file__).parent / 'installed')!r})\n"
        "from e2h_pipeline.generation.engines.fleet import Fleet, Settings\n"
        f"fleet = Fleet('parrot', Path('.'), None, Settings(2), Path({str(tmp_path)!r}))\n"
        f"Path({str(noted)!r}).write_text(repr(fleet.pids()))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    _end(json.loads(noted.read_text()))


def _end(pids: list[int]) -> None:
    """Wait until processes are gone: the kernel ends them a moment after their parent."""
    deadline = time.monotonic() + 60
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("act", [signal.SIGKILL, signal.SIGSTOP])
def test_a_transfer_of_weights_to_a_lost_engine_ends(
    start: Callable[..., Fleet], act: signal.Signals
) -> None:
    fleet = start("listener", 1, seconds=10.0)
    weights = ModelWeights(torch.nn.Linear(1000, 3000))  # more than the buffers of a connection hold
    fleet.take_weights(weights, 1)
    assert {s.version for samples in fleet.sample(requests(), HOT) for s in samples} == {1}
    os.kill(fleet.pids()[0], act)
    began = time.monotonic()
    with pytest.raises(RolloutEngineError, match=r"rollout engine 0 \(listener\).* while taking new weights"):
        fleet.take_weights(weights, 2)
    assert time.monotonic() - began < 45


def test_an_engine_that_dies_while_it_waits_is_noticed(start: Callable[..., Fleet]) -> None:
    fleet = start("parrot", 1)
    fleet.require_alive()
    os.kill(fleet.pids()[0], signal.SIGKILL)
    deadline = time.monotonic() + 30
    with pytest.raises(RolloutEngineError, match=r"ended by SIGKILL .* while it waited"):
        while time.monotonic() < deadline:
            fleet.require_alive()
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("act", "why"), [(signal.SIGKILL, "ended by SIGKILL"), (signal.SIGSTOP, "gave no sign of life for 3 s")]
)
def test_an_engine_that_is_lost_while_the_trainer_learns_is_noticed(
    start: Callable[..., Fleet], act: signal.Signals, why: str
) -> None:
    """Between the order to draw and the wait for the samples."""
    fleet = start("parrot", 2, seconds=3.0)
    fleet.begin(requests(), LONG)
    os.kill(fleet.pids()[1], act)
    deadline = time.monotonic() + 30
    with pytest.raises(RolloutEngineError, match=rf"rollout engine 1 \(parrot\) {why} .*while drawing"):
        while time.monotonic() < deadline:
            fleet.require_alive()
            time.sleep(0.05)


def test_an_error_in_an_engine_comes_with_its_traceback(start: Callable[..., Fleet]) -> None:
    fleet = start("parrot", 1)
    with pytest.raises(
        RolloutEngineError, match=r"failed while drawing: ValueError: nothing to say"
    ) as caught:
        fleet.sample(requests(0), HOT)
    assert "parrot.py" in caught.value.__notes__[0]


def test_an_error_while_the_trainer_learns_comes_with_its_traceback(start: Callable[..., Fleet]) -> None:
    """The error is heard, not only that the engine has ended."""
    fleet = start("parrot", 1)
    fleet.begin(requests(0), HOT)
    deadline = time.monotonic() + 30
    with pytest.raises(RolloutEngineError, match="ValueError: nothing to say") as caught:
        while time.monotonic() < deadline:
            fleet.require_alive()
            time.sleep(0.05)
    assert "parrot.py" in caught.value.__notes__[0]


def test_an_engine_with_other_weights_than_those_sent_is_refused(start: Callable[..., Fleet]) -> None:
    with pytest.raises(RolloutEngineError, match=r"\(mule\) has weights of version 4 instead of 5"):
        start("mule", 1).take_weights(ModelWeights(torch.nn.Linear(1, 1)), 5)


@pytest.mark.parametrize(
    ("engine", "why"),
    [("deaf", r"'deaf' cannot take new weights while it runs: set E2H_ENGINE"), ("none", "no 'none'")],
)
def test_an_engine_that_cannot_start_says_why(
    start: Callable[..., Fleet], tmp_path: Path, engine: str, why: str
) -> None:
    with pytest.raises(RolloutEngineError, match=f"failed while starting: .*{why}"):
        start(engine, 1)
    assert list(tmp_path.iterdir()) == []


# Messages


def test_a_message_that_is_too_late_or_cut_off_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    pipe, other = Pipe(ours), Pipe(theirs)
    other.send({"a": [1, 2.5, "x"]})
    assert pipe.receive(5.0) == {"a": [1, 2.5, "x"]}
    with pytest.raises(Silence):
        pipe.receive(0.05)
    theirs.sendall(b"\0" * 7 + b"\x09" + b'{"a"')  # four bytes of nine
    with pytest.raises(Silence):
        pipe.receive(0.05)
    with pytest.raises(Silence, match=r"took no message in 0\.1 s"):
        pipe.send({"a": "b" * 10_000_000}, 0.1)
    theirs.close()
    with pytest.raises(Ended):
        pipe.receive(5.0)


def test_a_length_that_no_message_has_is_refused() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"\xff" * 8)
    with pytest.raises(Ended, match="announced a message of"):
        Pipe(ours).receive(5.0)


# Settings


def test_settings_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENGINES", "CARDS", "SECONDS"):
        monkeypatch.delenv(f"E2H_ROLLOUT_{name}", raising=False)
    assert Settings.from_environment() == Settings(0, 1, 45)
    monkeypatch.setenv("E2H_ROLLOUT_ENGINES", "2")
    monkeypatch.setenv("E2H_ROLLOUT_CARDS", "4")
    monkeypatch.setenv("E2H_ROLLOUT_SECONDS", "20")
    assert Settings.from_environment() == Settings(2, 4, 20)
    monkeypatch.setenv("E2H_ROLLOUT_CARDS", "0")
    with pytest.raises(ValueError, match="E2H_ROLLOUT_CARDS is '0'; set it to a whole number, 1 or more"):
        Settings.from_environment()


def test_an_engine_does_not_take_itself_for_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = (
        "RANK",
        "LOCAL_RANK",
        "GROUP_WORLD_SIZE",
        "MASTER_ADDR",
        "TORCHELASTIC_RUN_ID",
        "FSDP_VERSION",
    )
    ours = ("ACCELERATE_USE_FSDP", "E2H_LOCK_FD", "E2H_CARD_FDS")
    for name in (*launcher, *ours, "MY_RANK"):
        monkeypatch.setenv(name, "1")
    found = environment_of({"A": "b"})
    assert found["A"] == "b" and found["MY_RANK"] == "1"
    assert not {*launcher, *ours} & set(found)


def test_engines_take_the_cards_behind_the_trainers_or_share() -> None:
    eight = [str(i) for i in range(8)]
    two = Settings(2, 2)
    assert cards_of(0, two, [], 1) == {}
    assert [cards_of(i, two, eight, 4)["CUDA_VISIBLE_DEVICES"] for i in range(2)] == ["4,5", "6,7"]
    assert "E2H_ROLLOUT_GPU_SHARE" not in cards_of(0, two, eight, 4)
    shared = [cards_of(i, Settings(2), ["5"], 1) for i in range(2)]
    assert shared == [{"CUDA_VISIBLE_DEVICES": "5", "E2H_ROLLOUT_GPU_SHARE": "0.35"}] * 2
