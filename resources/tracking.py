"""MLflow tracking: one run per stage, nested under one run per experiment.

The client is used directly, without MLflow's global state, and MLflow is imported only when a stage
is really computed. A tracking failure never stops a stage: a warning is logged, and the missed
entries are sent later (`resources.outbox`).
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg

from e2h_pipeline.artifacts.lineage import EASY_DATA
from e2h_pipeline.artifacts.locks import alone
from e2h_pipeline.artifacts.reads import paused
from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.request import Artifact
from resources.mlflow_sender import SQLITE_LOCK, MlflowSender, now, tracking_errors
from resources.model_registry import registration
from resources.outbox import FOLDER, Entry, Outbox, send, waiting, without_login

DATABASE = "mlflow.db"
NAME = "e2h"  # of the MLflow experiment
COMMIT_TAG = "mlflow.source.git.commit"
EASY_DATA_TAG = "e2h.easy_data_version"
_DIGEST_LENGTH = 16  # MLflow refuses dataset digests longer than 36 characters
_VALUE_LENGTH = 500
_BATCH = 500  # points sent at once
_FLUSH_SECONDS = 5.0
_PROGRESS_SECONDS = 10.0
_PAGE_BYTES = 20 * 2**20  # largest page copied to MLflow; the report of the ladder has 1 MB


@dataclass(frozen=True)
class ExperimentInfo:
    """An experiment's facts for its parent run.

    Attributes:
        key: the experiment's.
        digest: of its whole recipe. MLflow's params never change, so an edited recipe has another parent.
        params: fields of the recipe that are not at their defaults.
        tags: what else people filter by.
    """

    key: str
    digest: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def as_entry(self) -> Entry:
        """As plain data."""
        return {"key": self.key, "digest": self.digest, "params": dict(self.params), "tags": dict(self.tags)}


@dataclass(frozen=True)
class StageInfo:
    """The stage's facts for its tracked run.

    Attributes:
        easy_data: data versions of the easy problems behind it, through all its inputs.
    """

    experiment: ExperimentInfo
    asset: str
    key: str
    dagster_run_id: str
    recipe: Mapping[str, Any]
    inputs: Mapping[str, Artifact]
    strict: bool = True
    easy_data: Sequence[str] = ()


class TrackingResource(dg.ConfigurableResource):
    """MLflow in E2H_HOME, or at MLFLOW_TRACKING_URI."""

    enabled: bool = True
    uri: str = ""
    name: str = NAME

    def tracking_uri(self, home: Path) -> str:
        """Where runs are logged."""
        return self.uri or os.environ.get("MLFLOW_TRACKING_URI") or local_database(home)

    @contextmanager
    def stage_run(self, home: Path, info: StageInfo, log: logging.Logger) -> Iterator[StageRun]:
        """A run that opens when the stage is computed, and ends with the block."""
        run = StageRun(self.tracking_uri(home), home, self.name, info, log, self.enabled)
        try:
            yield run
        except BaseException:
            run.end("FAILED")
            raise
        run.end("FINISHED")

    def mark(self, home: Path, experiment: str, tags: Mapping[str, str], log: logging.Logger) -> None:
        """Set tags on every run of an experiment, such as the firewall's verdict. MLflow is told at
        once or not at all: Dagster has the verdict too."""
        if not self.enabled:
            return
        uri = self.tracking_uri(home)
        try:
            MlflowSender(uri, home, self.name).tag_experiment(experiment, tags)
        except tracking_errors() as error:
            log.warning(
                "MLflow at %s was not told %s (%s)", without_login(uri), dict(tags), _reason(error, uri)
            )

    def tell(
        self,
        home: Path,
        experiment: ExperimentInfo,
        numbers: Mapping[str, float],
        tags: Mapping[str, str],
        log: logging.Logger,
    ) -> None:
        """Put headline numbers and tags on an experiment's parent run; at once or not at all, as `mark`."""
        if not self.enabled:
            return
        uri, at = self.tracking_uri(home), now()
        points = [
            (_metric_name(name), value, at, 0) for name, value in numbers.items() if math.isfinite(value)
        ]
        try:
            MlflowSender(uri, home, self.name).tell_experiment(experiment.as_entry(), points, tags)
        except tracking_errors() as error:
            log.warning(
                "MLflow at %s was not told the numbers of %s (%s)",
                without_login(uri),
                experiment.key,
                _reason(error, uri),
            )


def local_database(home: Path) -> str:
    """The SQLite database of runs, used without a server."""
    return f"sqlite:///{home / DATABASE}"


def make_database(home: Path) -> None:
    """Make the SQLite database of runs, if it is missing, before a server does: a stage that runs may
    make it too, and MLflow breaks where two processes do."""
    with alone(home / SQLITE_LOCK):  # so another process has finished it, where it exists
        missing = not (home / DATABASE).exists()
    if missing:
        MlflowSender(local_database(home), home, NAME).find_experiment()


class StageRun:
    """One MLflow run. Nothing is sent before `open`; no error here reaches the stage.

    Once MLflow refuses an entry, it and all later ones of the stage go to the outbox.
    """

    def __init__(
        self, uri: str, home: Path, name: str, info: StageInfo, log: logging.Logger, enabled: bool
    ) -> None:
        self._uri, self._home, self._name, self._info, self._log = uri, home, name, info, log
        self._enabled = enabled
        self._sender = MlflowSender(uri, home, name)
        self._opened: Entry | None = None
        self._outbox: Outbox | None = None

    @cached_property
    def reporter(self) -> TrackedReporter:
        """Sends progress to the log and metrics to the run."""
        return TrackedReporter(self, self._log)

    def open(self) -> str | None:
        """Start the run; returns its address, or None if tracking does not work."""
        if not self._enabled:
            return None
        self._opened = self._opening()
        self._tell(self._opened)
        if self._outbox is not None:
            return None
        self._send_what_waits()
        return self._address()

    def log_metrics(self, points: list[tuple[str, float, int, int]]) -> None:
        """Log (name, value, milliseconds, step) points in one call."""
        if points:
            self._tell({"kind": "metrics", "points": points})

    def finish(self, artifact: Artifact) -> None:
        """Send the result: data version, headline numbers, a model by reference, and pages."""
        self.reporter.flush()
        self._tell(_result(artifact, self._info.easy_data))
        for page in served_pages(artifact):
            self._tell({"kind": "page", "path": str(page)})

    def end(self, status: str) -> None:
        """Close the run."""
        self.reporter.flush()
        dropped = self._outbox.dropped if self._outbox else 0
        self._tell({"kind": "end", "status": status, "time": now(), "dropped": dropped})
        if self._outbox is not None:
            self._outbox.close()

    def _tell(self, entry: Entry) -> None:
        """Send to MLflow or to the outbox; drop entries from before the run is opened."""
        if self._opened is None:
            return
        if self._outbox is None:
            try:
                self._sender.apply(entry)
                return
            except tracking_errors() as error:
                self._log.warning("%s", self._what_happens(entry, error))
        self._keep(entry)

    def _what_happens(self, entry: Entry, error: Exception) -> str:
        what = f"MLflow at {without_login(self._uri)} did not take '{entry['kind']}' of {self._info.asset}"
        reason = _reason(error, self._uri)
        return f"{what}; it is kept in {self._home / FOLDER} and sent later ({reason})"

    def _keep(self, entry: Entry) -> None:
        assert self._opened is not None
        try:
            if self._outbox is None:
                self._outbox = Outbox(self._home, self._opened["tracking_id"], without_login(self._uri))
                if entry is not self._opened:
                    self._outbox.add(self._opened)
            self._outbox.add(entry)
        except OSError as error:  # a full disk: the stage itself will report it
            self._log.warning("tracking of %s is lost: %s", self._info.asset, error)
            self._opened = None

    def _send_what_waits(self) -> None:
        for told in send_waiting(self._uri, self._home, self._name):
            self._log.info("%s", told)

    def _opening(self) -> Entry:
        info = self._info
        return {
            "kind": "open",
            "tracking_id": uuid.uuid4().hex,
            "name": f"{info.asset} · {info.experiment.key}",
            "asset": info.asset,
            "experiment": info.experiment.as_entry(),
            "tags": {
                "dagster.run_id": info.dagster_run_id,
                "dagster.asset_key": info.asset,
                "dagster.partition": info.experiment.key,
                "e2h.experiment": info.experiment.key,
                "e2h.asset": info.asset,
                "e2h.key": info.key,
                "e2h.strict": str(info.strict).lower(),
                **({EASY_DATA_TAG: ", ".join(info.easy_data)} if info.easy_data else {}),
                **{f"e2h.in.{name}": artifact.data_version for name, artifact in info.inputs.items()},
            },
            "params": _flat(info.recipe),
            "inputs": [
                [name, artifact.data_version[:_DIGEST_LENGTH], str(artifact.path)]
                for name, artifact in info.inputs.items()
            ],
            "time": now(),
        }

    def _address(self) -> str:
        """The run's address; within MLflow alone (`#/...`) where that is not a server, and its port not
        known before somebody serves it: see `mlflow_link`."""
        sender = self._sender
        page = f"#/experiments/{sender.experiment_id}/runs/{sender.run_id}"
        return f"{without_login(self._uri).rstrip('/')}/{page}" if self._uri.startswith("http") else page


def served_pages(artifact: Artifact) -> list[Path]:
    """HTML pages of an artifact that are copied to MLflow and served there."""
    return [page for page in sorted(artifact.path.rglob("*.html")) if page.stat().st_size <= _PAGE_BYTES]


def send_waiting(uri: str, home: Path, name: str = NAME) -> Iterator[str]:
    """Send the runs that wait in the outbox for this server; yields a line about each.

    A run that MLflow refuses does not block the others; an unreachable server ends the attempt.
    """
    for found in waiting(home):
        if found.address != without_login(uri):
            continue
        sender = MlflowSender(uri, home, name, again=True)
        try:
            if send(found, sender.apply):
                yield f"told MLflow about a run that it had missed ({sender.run_id})"
        except tracking_errors() as error:
            yield f"{found.path}: not sent yet ({_reason(error, uri)})"
            if getattr(error, "error_code", "") != "INVALID_PARAMETER_VALUE":
                return


def _result(artifact: Artifact, easy_data: Sequence[str]) -> Entry:
    """A stage's result as an entry. A model is named and linked; its weights stay in the store."""
    at = now()
    numbers = {**_numbers(artifact.manifest.summary), "wall_seconds": artifact.manifest.wall_seconds}
    tags = {"e2h.data_version": artifact.data_version, "e2h.path": str(artifact.path)}
    if artifact.asset == EASY_DATA:
        tags[EASY_DATA_TAG] = artifact.data_version
    if artifact.manifest.summary.get("stopped"):
        tags["e2h.stopped"] = str(artifact.manifest.summary["stopped"])[:_VALUE_LENGTH]
    name = f"{artifact.asset}-{artifact.data_version[:_DIGEST_LENGTH]}"
    is_model = (artifact.path / "config.json").is_file()
    return {
        "kind": "result",
        "tags": tags,
        "points": [
            (_metric_name(name), value, at, 0) for name, value in numbers.items() if math.isfinite(value)
        ],
        "model": {
            "name": name,
            "tags": tags,
            "type": artifact.asset,
            "registered": registration(artifact, ", ".join(easy_data)),
        }
        if is_model
        else None,
    }


def _reason(error: Exception, uri: str) -> str:
    """The first line of an error message, without the server's login."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    login = urlsplit(uri).netloc.rpartition("@")[0]
    return first.replace(f"{login}@", "") if login else first


class TrackedReporter(Reporter):
    """Progress goes to the step's log; metrics go to MLflow, many points in one call."""

    def __init__(self, run: StageRun, log: logging.Logger) -> None:
        super().__init__(every_seconds=_PROGRESS_SECONDS)
        self._run, self._log = run, log
        self._points: list[tuple[str, float, int, int]] = []
        self._flushed = time.monotonic()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Buffer the points; send them when there are many, or after some seconds."""
        at = now()
        points = ((_metric_name(name), float(value), at, step) for name, value in values.items())
        self._points += [point for point in points if math.isfinite(point[1])]
        if len(self._points) >= _BATCH or time.monotonic() - self._flushed > _FLUSH_SECONDS:
            with paused():
                self.flush()

    def message(self, text: str) -> None:
        """One line in the step's log."""
        with paused():
            self._log.info("%s", text)

    def flush(self) -> None:
        """Send the buffered points."""
        points, self._points = self._points, []
        self._flushed = time.monotonic()
        self._run.log_metrics(points)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested recipe values as dotted names, for MLflow's flat params."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = str(value)[:_VALUE_LENGTH]
    return flat


def _numbers(summary: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of a summary, nested ones by dotted name."""
    numbers: dict[str, float] = {}
    for name, value in summary.items():
        if isinstance(value, Mapping):
            numbers.update(_numbers(value, f"{prefix}{name}."))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[prefix + name] = float(value)
    return numbers


def _metric_name(name: str) -> str:
    """MLflow allows letters, digits and `_-. :/` in names."""
    return re.sub(r"[^\w\-. :/]", "_", name)
