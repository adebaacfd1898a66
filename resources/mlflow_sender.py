"""Sends a run to MLflow, entry by entry, at once or later from the outbox.

An entry is plain data:
    {"kind": "open", "tracking_id", "name", "experiment", "tags", "params", "inputs": [[name, digest, path]], "time"}
    {"kind": "metrics", "points": [[name, value, milliseconds, step]]}
    {"kind": "result", "tags", "points", "model": {"name", "tags", "type"} or null}
    {"kind": "page", "path"}
    {"kind": "end", "status", "time", "dropped"}
Sending an entry twice has no further effect: a run is found by its tag `e2h.tracking_id`, MLflow's
database keeps equal points once, a page replaces its earlier copy, and inputs and a model are
logged only if the run has none.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.locks import alone
from resources.outbox import Entry

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

SQLITE_LOCK = "mlflow.lock"
TRACKING_ID = "e2h.tracking_id"
_POINTS = 500  # MLflow takes at most 1,000 metrics in one call
_PARAMS = 100  # MLflow's limit for one call

# Defaults that keep an unreachable server from blocking a stage, and MLflow from phoning home.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


class MlflowSender:
    """Tells MLflow about one run.

    Attributes:
        again: entries may have been sent before.
    """

    def __init__(self, uri: str, home: Path, name: str, again: bool = False) -> None:
        self._uri, self._home, self._name, self._again = uri, home, name, again
        self.experiment_id = ""
        self.run_id = ""

    @cached_property
    def client(self) -> MlflowClient:
        """The client. MLflow is imported only here."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        for noisy in ("alembic", "mlflow"):  # after the import, which sets its own levels
            logging.getLogger(noisy).setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=self._uri)

    def apply(self, entry: Entry) -> None:
        """Send one entry.

        Raises:
            one of `tracking_errors()`: MLflow did not take it.
        """
        kinds: dict[str, Callable[[Entry], None]] = {
            "open": self._open,
            "metrics": lambda entry: self._send(entry["points"]),
            "result": self._result,
            "page": self._page,
            "end": self._end,
        }
        kinds[entry["kind"]](entry)

    def find_experiment(self) -> str:
        """Id of our MLflow experiment, which is made if missing."""
        with self._alone():
            found = self.client.get_experiment_by_name(self._name)
            if found:
                return str(found.experiment_id)
            local = self._uri.startswith("sqlite:")
            place = (self._home / "mlflow-artifacts").as_uri() if local else None
            return str(self.client.create_experiment(self._name, artifact_location=place))

    def _open(self, entry: Entry) -> None:
        self.experiment_id = self.find_experiment()
        self.run_id = self._find_again(entry["tracking_id"]) if self._again else ""
        if not self.run_id:
            tags = {
                "mlflow.parentRunId": self._find_parent(entry["experiment"]),
                TRACKING_ID: entry["tracking_id"],
                **entry["tags"],
            }
            run = self.client.create_run(
                self.experiment_id, start_time=entry["time"], run_name=entry["name"], tags=tags
            )
            self.run_id = run.info.run_id
        from mlflow.entities import Param

        params = [Param(name, value) for name, value in entry["params"].items()]
        for start in range(0, len(params), _PARAMS):
            self.client.log_batch(self.run_id, params=params[start : start + _PARAMS])
        self._log_inputs(entry)

    def tag_experiment(self, experiment: str, tags: Mapping[str, str]) -> None:
        """Set tags on all runs of an experiment: its stages and their parent.

        Raises:
            one of `tracking_errors()`: MLflow did not take it.
        """
        self.experiment_id = self.find_experiment()
        self._find_parent(experiment)
        token: str | None = None
        while token != "":
            asked = f"tags.`e2h.experiment` = '{experiment}'"
            page = self.client.search_runs([self.experiment_id], asked, page_token=token)
            for run in page:
                for name, value in tags.items():
                    self.client.set_tag(run.info.run_id, name, value)
            token = page.token or ""

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the SQLite database: two processes at once break its creation or migration."""
        if not self._uri.startswith("sqlite:"):
            yield
            return
        with alone(self._home / SQLITE_LOCK):
            yield

    def _find_again(self, tracking_id: str) -> str:
        asked = f"tags.`{TRACKING_ID}` = '{tracking_id}'"
        found = self.client.search_runs([self.experiment_id], asked, max_results=1)
        return str(found[0].info.run_id) if found else ""

    def _find_parent(self, experiment: str) -> str:
        """The parent run of all stages of the experiment."""
        asked = f"tags.`e2h.parent` = 'true' and tags.`e2h.experiment` = '{experiment}'"
        found = self.client.search_runs([self.experiment_id], asked, max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {"e2h.parent": "true", "e2h.experiment": experiment}
        parent = self.client.create_run(self.experiment_id, run_name=experiment, tags=tags)
        self.client.set_terminated(parent.info.run_id, "FINISHED")
        return str(parent.info.run_id)

    def _log_inputs(self, entry: Entry) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(name, digest, "local", json.dumps({"uri": path})),
                [InputTag("mlflow.data.context", entry["name"])],
            )
            for name, digest, path in entry["inputs"]
        ]
        if inputs and not (self._again and self.client.get_run(self.run_id).inputs.dataset_inputs):
            self.client.log_inputs(self.run_id, datasets=inputs)

    def _send(self, points: list[list[Any]]) -> None:
        from mlflow.entities import Metric

        for start in range(0, len(points), _POINTS):
            metrics = [Metric(*point) for point in points[start : start + _POINTS]]
            self.client.log_batch(self.run_id, metrics=metrics)

    def _result(self, entry: Entry) -> None:
        for name, value in entry["tags"].items():
            self.client.set_tag(self.run_id, name, value)
        self._send(entry["points"])
        if entry["model"]:
            self._log_model(entry["model"])

    def _page(self, entry: Entry) -> None:
        """A copy of a page of the store. A page deleted while its run waited is skipped."""
        if Path(entry["path"]).is_file():
            self.client.log_artifact(self.run_id, entry["path"])

    def _log_model(self, model: dict[str, Any]) -> None:
        """The model as MLflow's external kind: named and linked; its weights stay in the store."""
        from mlflow.entities import LoggedModelOutput

        if self._again and self.client.get_run(self.run_id).outputs.model_outputs:
            return
        made = self.client.create_logged_model(
            self.experiment_id,
            name=model["name"],
            source_run_id=self.run_id,
            tags={"mlflow.model.isExternal": "true", **model["tags"]},
            model_type=model["type"],
        )
        self.client.finalize_logged_model(made.model_id, "READY")
        self.client.log_outputs(self.run_id, [LoggedModelOutput(made.model_id, step=0)])

    def _end(self, entry: Entry) -> None:
        if entry["dropped"]:
            self.client.set_tag(self.run_id, "e2h.points_dropped", str(entry["dropped"]))
        self.client.set_terminated(self.run_id, entry["status"], entry["time"])


def tracking_errors() -> tuple[type[Exception], ...]:
    """Errors of an unreachable, full, locked or missing MLflow. Its HTTP errors are OSErrors."""
    errors: tuple[type[Exception], ...] = (OSError, ImportError, ValueError)
    try:
        from alembic.util.exc import CommandError
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return errors
    return (*errors, MlflowException, SQLAlchemyError, CommandError)
