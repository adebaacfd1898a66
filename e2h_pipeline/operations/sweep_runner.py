"""Run the members of a sweep side by side, each in its own process, and report their outcomes.

Members share stages. The store computes a stage once; a second process that asks for it waits for
the first. To avoid such waits, a member whose next stage is being made elsewhere is started last.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.artifacts.request import Request
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.operations.runner import RunError, RunStopped, StageEvent, run_experiment
from e2h_pipeline.orchestration.instance import open_instance
from e2h_pipeline.orchestration.planning import Plan, plan_by_store, plans
from e2h_pipeline.sweeps.selection import selected_stages
from e2h_pipeline.sweeps.sensors import SWEEP_TAG
from e2h_pipeline.sweeps.spec import Sweep, members
from e2h_pipeline.sweeps.stop import Judge, rule_of
from resources.engine import EngineResource

_POLL_SECONDS = 0.5
_JUDGE_SECONDS = 5
_GIVE_UP = "give up"  # cannot be a key: keys have no spaces
_PATIENCE_SECONDS = 30  # until a stopped worker is killed


@dataclass(frozen=True)
class SweepEvent:
    """An event of a member: a stage's event, or, if `stage` is None, the end of an attempt.

    `error` and `given_up` say why an attempt failed or was given up."""

    key: str
    stage: StageEvent | None = None
    error: str | None = None
    given_up: str | None = None


@dataclass
class MemberOutcome:
    """The outcome of a member that was run.

    Attributes:
        error: why its last attempt failed; None without a failure.
        given_up: why it was stopped during training; None if it was not.
        computed, reused: names of its stages.
        seconds: total of its computed stages.
    """

    key: str
    error: str | None = None
    given_up: str | None = None
    attempts: int = 0
    computed: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run_sweep(
    sweep: Sweep, home: Path, workers: int, watch: Callable[[SweepEvent], None], only_due: bool = True
) -> list[MemberOutcome]:
    """Run the missing or stale members of a sweep, `workers` at a time.

    A failed member is tried again as often as the sweep says. It does not block the others.

    Args:
        watch: called with each event, in this process.
        only_due: leave out complete members.

    Raises:
        SweepError: a member's key is not a recipe.
        RunStopped: Ctrl-C; running members have been closed.
    """
    all_members = members(sweep, recipe_folders(home))
    keys = [member.key for member in all_members]
    store, engine = ArtifactStore(home), EngineResource.from_environment()
    with open_instance(home) as instance:
        found = plans(instance, store, keys, engine, selected_stages(sweep.select))
    due = [plan.key for plan in found if not (only_due and plan.done)]
    crew = _Crew(sweep, home, store, engine, watch, Judge(rule_of(sweep), all_members, store, engine))
    return crew.run(due, max(1, min(workers, len(due))))


class _Worker:
    """A process that runs one member at a time. It ends with this process."""

    def __init__(self, sweep: Sweep, home: Path, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.log = log = home / "logs" / f"sweep-{sweep.name}-{number}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        # Not a daemon process: stages may start child processes.
        self.process = context.Process(target=_work, args=(theirs, home, sweep.name, sweep.select, log))
        self.process.start()
        theirs.close()
        self.outcome: MemberOutcome | None = None
        self.claimed: Request | None = None
        self.stage = ""

    def stop(self) -> None:
        """End the process; a running member is closed first."""
        self.connection.close()
        self.process.join(_PATIENCE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class _Crew:
    """Hands members to workers."""

    def __init__(
        self,
        sweep: Sweep,
        home: Path,
        store: ArtifactStore,
        engine: EngineResource,
        watch: Callable[[SweepEvent], None],
        judge: Judge,
    ) -> None:
        self._sweep, self._home, self._store, self._engine, self._watch = sweep, home, store, engine, watch
        self._judge, self._judged = judge, time.monotonic()
        self._workers: list[_Worker] = []
        self._waiting: list[str] = []
        self._outcomes: dict[str, MemberOutcome] = {}

    def run(self, keys: Sequence[str], workers: int) -> list[MemberOutcome]:
        """Run the members and return their outcomes, in the same order."""
        self._waiting = list(keys)
        self._outcomes = {key: MemberOutcome(key) for key in keys}
        if not keys:
            return []
        try:
            self._workers = [_Worker(self._sweep, self._home, number) for number in range(workers)]
            while self._waiting or any(worker.outcome for worker in self._workers):
                self._hand_out()
                self._listen()
                self._give_up()
        except KeyboardInterrupt:
            raise RunStopped("stopped; the same command goes on from here") from None
        finally:
            for worker in self._workers:
                worker.connection.close()  # tell all workers before waiting for one
            for worker in self._workers:
                worker.stop()
        return list(self._outcomes.values())

    def _hand_out(self) -> None:
        for worker in list(self._workers):
            if worker.outcome is None and self._waiting:
                chosen = self._choose()
                if chosen is None:
                    return
                # A worker killed while idle costs no member an attempt.
                if not worker.process.is_alive():
                    worker = self._replace(worker)
                key, worker.claimed = chosen
                self._waiting.remove(key)
                worker.outcome = self._outcomes[key]
                worker.outcome.attempts += 1
                worker.outcome.error = None
                try:
                    worker.connection.send(key)
                except OSError:
                    self._lost(worker)

    def _choose(self) -> tuple[str, Request | None] | None:
        """A member whose next stage is not being made; None to wait until a running one ends."""
        claimed = {
            (worker.claimed.asset, worker.claimed.family)
            for worker in self._workers
            if worker.outcome and worker.claimed
        }
        for plan in self._plans():
            request = plan.next_request
            if request is None or (
                (request.asset, request.family) not in claimed and not self._store.being_made(request)
            ):
                return plan.key, request
        busy = any(worker.outcome for worker in self._workers)
        return None if busy else (self._waiting[0], None)

    def _plans(self) -> list[Plan]:
        """Plans by the store alone: Dagster's records do not matter for who waits for whom."""
        return [plan_by_store(self._store, key, self._engine) for key in self._waiting]

    def _listen(self) -> None:
        busy = [worker for worker in self._workers if worker.outcome]
        for ready in wait([worker.connection for worker in busy], timeout=_POLL_SECONDS):
            worker = next(worker for worker in busy if worker.connection is ready)
            assert worker.outcome is not None
            try:
                told = worker.connection.recv()
            except (EOFError, OSError):
                self._lost(worker)
                continue
            if isinstance(told, StageEvent):
                self._note(worker, told)
            else:
                self._ended(worker, told)

    def _give_up(self) -> None:
        """Stop members that the sweep's rule gives up."""
        if self._judge.idle or time.monotonic() - self._judged < _JUDGE_SECONDS:
            return
        self._judged = time.monotonic()
        for worker in self._workers:
            if worker.outcome and not worker.outcome.given_up:
                worker.outcome.given_up = self._judge.gives_up(worker.outcome.key, worker.stage)
                if worker.outcome.given_up:
                    with suppress(OSError):  # the worker has just died; `_listen` will notice
                        worker.connection.send(_GIVE_UP)

    def _note(self, worker: _Worker, event: StageEvent) -> None:
        outcome = worker.outcome
        assert outcome is not None
        if event.kind == "started":
            worker.stage = event.stage
        if event.kind == "computed":
            outcome.computed.append(event.stage)
            outcome.seconds += event.seconds
        elif event.kind == "reused":
            outcome.reused.append(event.stage)
        self._watch(SweepEvent(outcome.key, event))

    def _lost(self, worker: _Worker) -> None:
        """The process is gone: fail its member and start another process in its place."""
        worker.process.join(_PATIENCE_SECONDS)
        status = worker.process.exitcode
        name = signal.Signals(-status).name if status is not None and status < 0 else f"status {status}"
        self._ended(worker, f"its process was ended by {name}; its output is in {worker.log}")
        self._replace(worker)

    def _replace(self, worker: _Worker) -> _Worker:
        number = self._workers.index(worker)
        worker.connection.close()
        self._workers[number] = _Worker(self._sweep, self._home, number)
        return self._workers[number]

    def _ended(self, worker: _Worker, error: str | None) -> None:
        outcome = worker.outcome
        assert outcome is not None
        if error != _GIVE_UP:
            outcome.given_up = None  # it ended before the message reached it
        outcome.error = error if error != _GIVE_UP else None
        worker.outcome, worker.claimed, worker.stage = None, None, ""
        self._watch(SweepEvent(outcome.key, error=outcome.error, given_up=outcome.given_up))
        error = outcome.error
        if error and outcome.attempts <= self._sweep.retries:
            self._waiting.append(outcome.key)


def _work(connection: Connection, home: Path, sweep: str, select: str, log: Path) -> None:
    """Main loop of a worker: receives keys, sends events and ends."""
    os.setpgid(0, 0)  # Ctrl-C reaches only the parent, which tells us
    with log.open("a", encoding="utf-8") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    inbox = _Inbox(connection)
    try:
        while (key := inbox.next()) is not None:
            error = None
            try:
                run_experiment(key, home, select or None, connection.send, {SWEEP_TAG: sweep})
            except RunError as failure:
                error = str(failure)
            except RunStopped:
                if not inbox.given_up:
                    raise
                inbox.given_up, error = False, _GIVE_UP
            connection.send(error)
    except (RunStopped, KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)


class _Inbox:
    """Keys from the parent. When the parent is gone, the worker interrupts itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._arrived = threading.Condition()
        self._keys: list[str | None] = []
        self._working = False
        self.given_up = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                key = self._connection.recv()
            except (EOFError, OSError):
                key = None
            if key == _GIVE_UP:
                if self._working:
                    self.given_up = True
                    os.kill(os.getpid(), signal.SIGINT)
                continue
            with self._arrived:
                self._keys.append(key)
                self._arrived.notify()
                working = self._working
            if key is None:
                if working:
                    os.kill(os.getpid(), signal.SIGINT)
                return

    def next(self) -> str | None:
        """The next key; None at the end."""
        with self._arrived:
            self._working = False
            while not self._keys:
                self._arrived.wait()
            key = self._keys.pop(0)
            self._working = key is not None
            return key
