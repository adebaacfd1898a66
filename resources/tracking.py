"""MLflow tracking: one run per stage, nested under one run per experiment.

The client is used directly, without MLflow's global state, and MLflow is imported only when a stage
is really computed. Tracking serves the work: when it fails, a warning is logged and the stage goes on.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

from e2h_pipeline.artifacts.store import Artifact
from e2h_pipeline.reporter import Reporter

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

T = TypeVar("T")

MLFLOW_PORT = 5000  # where `make ui` serves MLflow, and MLflow's own default
_DIGEST_LENGTH = 16  # MLflow refuses dataset digests longer than 36 characters
_VALUE_LENGTH = 500
_BATCH = 500  # MLflow takes at most 1,000 metrics in one call
_FLUSH_SECONDS = 5.0
_PROGRESS_SECONDS = 10.0

# Defaults that keep an unreachable server from holding up a stage, and MLflow from phoning home.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class StageInfo:
    """What a tracked run says about its stage."""

    experiment: str
    asset: str
    key: str
    dagster_run_id: str
    recipe: Mapping[str, Any]
    inputs: Mapping[str, Artifact]


class TrackingResource(dg.ConfigurableResource):
    """MLflow in E2H_HOME, or at MLFLOW_TRACKING_URI."""

    enabled: bool = True
    uri: str = ""
    name: str = "e2h"

    def tracking_uri(self, home: Path) -> str:
        """Where runs are logged."""
        return self.uri or os.environ.get("MLFLOW_TRACKING_URI") or local_database(home)

    @contextmanager
    def stage_run(self, home: Path, info: StageInfo, log: logging.Logger) -> Iterator[StageRun]:
        """A run that opens when the stage is computed, and ends as the block does."""
        run = StageRun(self.tracking_uri(home), home, self.name, info, log, self.enabled)
        try:
            yield run
        except BaseException:
            run.end("FAILED")
            raise
        run.end("FINISHED")


def local_database(home: Path) -> str:
    """The SQLite database that runs go to without a server."""
    return f"sqlite:///{home / 'mlflow.db'}"


class StageRun:
    """One MLflow run. Nothing is sent before `open`; nothing that goes wrong here reaches the stage."""

    def __init__(
        self, uri: str, home: Path, name: str, info: StageInfo, log: logging.Logger, enabled: bool
    ) -> None:
        self._uri, self._home, self._name, self._info, self._log = uri, home, name, info, log
        self._working = enabled
        self._experiment_id = ""
        self._run_id = ""

    @cached_property
    def reporter(self) -> TrackedReporter:
        """Sends progress to the log and metrics to the run."""
        return TrackedReporter(self, self._log)

    def open(self) -> str | None:
        """Start the run; its address, or None where tracking does not work."""
        self._quietly("start a run", self._start)
        return self._address() if self._run_id else None

    def log_metrics(self, points: list[tuple[str, float, int, int]]) -> None:
        """Log (name, value, milliseconds, step) points in one call."""
        if self._run_id and points:
            self._quietly("log metrics", lambda: self._send(points))

    def finish(self, artifact: Artifact) -> None:
        """Say what came out: data version, headline numbers, and a model by reference."""
        self.reporter.flush()
        if self._run_id:
            self._quietly("log the result", lambda: self._log_result(artifact))

    def end(self, status: str) -> None:
        """Close the run."""
        if self._run_id:
            self.reporter.flush()
            self._quietly("end the run", lambda: self._client.set_terminated(self._run_id, status))

    @cached_property
    def _client(self) -> MlflowClient:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        for noisy in ("alembic", "mlflow"):  # after the import, which sets levels of its own
            logging.getLogger(noisy).setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=self._uri)

    def _quietly(self, what: str, action: Callable[[], T]) -> T | None:
        if not self._working:
            return None
        try:
            return action()
        except _tracking_errors() as error:
            self._working = False
            self._log.warning("MLflow at %s could not %s; going on without it (%s)", self._uri, what, error)
            return None

    def _start(self) -> None:
        with self._alone():
            self._experiment_id = self._find_experiment()
        info, client = self._info, self._client
        run = client.create_run(self._experiment_id, run_name=info.asset, tags=self._tags())
        self._run_id = run.info.run_id
        from mlflow.entities import Param

        params = [Param(name, value) for name, value in _flat(info.recipe).items()]
        for start in range(0, len(params), 100):  # MLflow's limit for one call
            client.log_batch(self._run_id, params=params[start : start + 100])
        self._log_inputs()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """MLflow makes and migrates its SQLite database at the first use; two processes at once break it."""
        if not self._uri.startswith("sqlite:"):
            yield
            return
        with (self._home / "mlflow.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _tags(self) -> dict[str, str]:
        info = self._info
        return {
            "mlflow.parentRunId": self._find_parent(),
            "dagster.run_id": info.dagster_run_id,
            "dagster.asset_key": info.asset,
            "dagster.partition": info.experiment,
            "e2h.experiment": info.experiment,
            "e2h.asset": info.asset,
            "e2h.key": info.key,
            **{f"e2h.in.{name}": artifact.data_version for name, artifact in info.inputs.items()},
        }

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._name)
        if found:
            return str(found.experiment_id)
        local = self._uri.startswith("sqlite:")
        place = (self._home / "mlflow-artifacts").as_uri() if local else None
        return str(self._client.create_experiment(self._name, artifact_location=place))

    def _find_parent(self) -> str:
        """The run that all stages of the experiment hang under."""
        asked = f"tags.`e2h.parent` = 'true' and tags.`e2h.experiment` = '{self._info.experiment}'"
        found = self._client.search_runs([self._experiment_id], asked, max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {"e2h.parent": "true", "e2h.experiment": self._info.experiment}
        parent = self._client.create_run(self._experiment_id, run_name=self._info.experiment, tags=tags)
        self._client.set_terminated(parent.info.run_id, "FINISHED")
        return str(parent.info.run_id)

    def _log_inputs(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(
                    name,
                    artifact.data_version[:_DIGEST_LENGTH],
                    "local",
                    json.dumps({"uri": str(artifact.path)}),
                ),
                [InputTag("mlflow.data.context", self._info.asset)],
            )
            for name, artifact in self._info.inputs.items()
        ]
        if inputs:
            self._client.log_inputs(self._run_id, datasets=inputs)

    def _send(self, points: list[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric

        for start in range(0, len(points), _BATCH):
            metrics = [Metric(*point) for point in points[start : start + _BATCH]]
            self._client.log_batch(self._run_id, metrics=metrics)

    def _log_result(self, artifact: Artifact) -> None:
        now = int(time.time() * 1000)
        self._client.set_tag(self._run_id, "e2h.data_version", artifact.data_version)
        self._client.set_tag(self._run_id, "e2h.path", str(artifact.path))
        numbers = {**_numbers(artifact.manifest.summary), "wall_seconds": artifact.manifest.wall_seconds}
        self._send([(_metric_name(name), value, now, 0) for name, value in numbers.items()])
        if (artifact.path / "config.json").is_file():
            self._log_model(artifact)

    def _log_model(self, artifact: Artifact) -> None:
        """The model as MLflow's external kind: named and linked, its weights stay in the store."""
        from mlflow.entities import LoggedModelOutput

        model = self._client.create_logged_model(
            self._experiment_id,
            name=f"{artifact.asset}-{artifact.data_version[:_DIGEST_LENGTH]}",
            source_run_id=self._run_id,
            tags={
                "mlflow.model.isExternal": "true",
                "e2h.path": str(artifact.path),
                "e2h.data_version": artifact.data_version,
            },
            model_type=artifact.asset,
        )
        self._client.finalize_logged_model(model.model_id, "READY")
        self._client.log_outputs(self._run_id, [LoggedModelOutput(model.model_id, step=0)])

    def _address(self) -> str:
        base = self._uri if self._uri.startswith("http") else f"http://127.0.0.1:{MLFLOW_PORT}"
        return f"{base.rstrip('/')}/#/experiments/{self._experiment_id}/runs/{self._run_id}"


class TrackedReporter(Reporter):
    """Progress to the step's log; metrics to MLflow, many points in one call."""

    def __init__(self, run: StageRun, log: logging.Logger) -> None:
        super().__init__(every_seconds=_PROGRESS_SECONDS)
        self._run, self._log = run, log
        self._points: list[tuple[str, float, int, int]] = []
        self._flushed = time.monotonic()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep the points; send them when there are many, or after some seconds."""
        now = int(time.time() * 1000)
        points = ((_metric_name(name), float(value), now, step) for name, value in values.items())
        self._points += [point for point in points if math.isfinite(point[1])]
        if len(self._points) >= _BATCH or time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def message(self, text: str) -> None:
        """One line in the step's log."""
        self._log.info("%s", text)

    def flush(self) -> None:
        """Send what is kept."""
        points, self._points = self._points, []
        self._flushed = time.monotonic()
        self._run.log_metrics(points)


def _tracking_errors() -> tuple[type[Exception], ...]:
    """What an unreachable, full, locked or missing MLflow raises. Its HTTP errors are OSErrors."""
    errors: tuple[type[Exception], ...] = (OSError, ImportError, ValueError)
    try:
        from alembic.util.exc import CommandError
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return errors
    return (*errors, MlflowException, SQLAlchemyError, CommandError)


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
