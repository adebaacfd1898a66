"""Sends a run to MLflow, entry by entry, at once or later from the outbox.

An entry is plain data:
    {"kind": "open", "tracking_id", "name", "asset", "experiment": {"key", "digest", "params", "tags"}, "tags",
     "params", "inputs": [[name, digest, path]], "time"}
    {"kind": "metrics", "points": [[name, value, milliseconds, step]]}
    {"kind": "result", "tags", "points", "model": {"name", "tags", "type", "registered": {"name", "tags"} or null} or null}
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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.locks import alone
from resources.model_registry import register
from resources.outbox import Entry

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

SQLITE_LOCK = "mlflow.lock"
TRACKING_ID = "e2h.tracking_id"
_KIND, _TRAINING = "mlflow.experimentKind", "custom_model_development"  # which of its pages MLflow opens
_PARENT = "mlflow.parentRunId"
_RECIPE = "e2h.recipe_digest"
_POINTS = 500  # MLflow takes at most 1,000 metrics in one call
_PARAMS = 100  # MLflow's limit for one call

# Defaults that keep an unreachable server from blocking a stage, and MLflow from phoning home.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the stage's metadata has the link
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
        self._parent_id = ""

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
                if _KIND not in found.tags:
                    self.client.set_experiment_tag(found.experiment_id, _KIND, _TRAINING)
                return str(found.experiment_id)
            local = self._uri.startswith("sqlite:")
            place = (self._home / "mlflow-artifacts").as_uri() if local else None
            tags = {_KIND: _TRAINING}
            return str(self.client.create_experiment(self._name, artifact_location=place, tags=tags))

    def _open(self, entry: Entry) -> None:
        self.experiment_id = self.find_experiment()
        experiment = entry["experiment"]
        if isinstance(experiment, str):  # an entry of an earlier version, from the outbox
            experiment = {"key": experiment}
        self._parent_id = self._find_parent(experiment, entry["time"])
        self.run_id = self._find_again(entry["tracking_id"]) if self._again else ""
        if not self.run_id:
            tags = {_PARENT: self._parent_id, TRACKING_ID: entry["tracking_id"], **entry["tags"]}
            run = self.client.create_run(
                self.experiment_id, start_time=entry["time"], run_name=entry["name"], tags=tags
            )
            self.run_id = run.info.run_id
        self._send_params(self.run_id, entry["params"])
        self._log_inputs(entry)

    def _send_params(self, run_id: str, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        params = [Param(name, value) for name, value in values.items()]
        for start in range(0, len(params), _PARAMS):
            self.client.log_batch(run_id, params=params[start : start + _PARAMS])

    def tag_experiment(self, experiment: str, tags: Mapping[str, str]) -> None:
        """Set tags on all runs of an experiment: its stages and their parents.

        Raises:
            one of `tracking_errors()`: MLflow did not take it.
        """
        self.experiment_id = self.find_experiment()
        self._find_parent({"key": experiment}, now())
        for run in self._runs(f"tags.`e2h.experiment` = '{experiment}'"):
            for name, value in tags.items():
                self.client.set_tag(run.info.run_id, name, value)

    def tell_experiment(
        self, experiment: Entry, points: Sequence[tuple[str, float, int, int]], tags: Mapping[str, str]
    ) -> None:
        """Put points and tags on the parent run of an experiment, which is made if missing.

        Args:
            experiment: as in entries that open a run.

        Raises:
            one of `tracking_errors()`: MLflow did not take it.
        """
        self.experiment_id = self.find_experiment()
        parent = self._find_parent(experiment, now())
        for name, value in tags.items():
            self.client.set_tag(parent, name, value)
        self._send([list(point) for point in points], parent)

    def _runs(self, asked: str) -> Iterator[Run]:
        token: str | None = None
        while token != "":
            page = self.client.search_runs([self.experiment_id], asked, page_token=token)
            yield from page
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

    def _find_parent(self, experiment: Entry, at: int) -> str:
        """The parent run of all stages of an experiment with this recipe; one without a recipe is
        adopted, and any will do where the recipe is not said."""
        key, digest = experiment["key"], experiment.get("digest", "")
        asked = f"tags.`e2h.parent` = 'true' and tags.`e2h.experiment` = '{key}'"
        there = {run.data.tags.get(_RECIPE, ""): str(run.info.run_id) for run in self._runs(asked)}
        found = there.get(digest) or there.get("") or ("" if digest else next(iter(there.values()), ""))
        if not found:
            tags = {"e2h.parent": "true", "e2h.experiment": key}
            made = self.client.create_run(self.experiment_id, start_time=at, run_name=key, tags=tags)
            found = str(made.info.run_id)
            self.client.set_terminated(found, "FINISHED", at)
        if digest and digest not in there:
            self._send_params(found, experiment["params"])
            for name, value in {**experiment["tags"], _RECIPE: digest}.items():
                self.client.set_tag(found, name, value)
        return found

    def _log_inputs(self, entry: Entry) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(name, digest, "local", json.dumps({"uri": path})),
                [InputTag("mlflow.data.context", entry.get("asset", entry["name"]))],
            )
            for name, digest, path in entry["inputs"]
        ]
        if inputs and not (self._again and self.client.get_run(self.run_id).inputs.dataset_inputs):
            self.client.log_inputs(self.run_id, datasets=inputs)

    def _send(self, points: list[list[Any]], run_id: str = "") -> None:
        from mlflow.entities import Metric

        for start in range(0, len(points), _POINTS):
            metrics = [Metric(*point) for point in points[start : start + _POINTS]]
            self.client.log_batch(run_id or self.run_id, metrics=metrics)

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
        if model.get("registered"):
            place = model["tags"]["e2h.path"] if self._uri.startswith("sqlite:") else ""
            register(self.client, model["registered"], self.run_id, place, made.model_id)
        self.client.log_outputs(self.run_id, [LoggedModelOutput(made.model_id, step=0)])

    def _end(self, entry: Entry) -> None:
        if entry["dropped"]:
            self.client.set_tag(self.run_id, "e2h.points_dropped", str(entry["dropped"]))
        self.client.set_terminated(self.run_id, entry["status"], entry["time"])
        self.client.set_terminated(
            self._parent_id, "FINISHED", entry["time"]
        )  # it lasts as long as its stages


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


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
