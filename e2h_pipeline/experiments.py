"""Experiments from Python: their numbers, what fed them, and their models.

    from e2h_pipeline import experiments

    with experiments.open() as home:                       # E2H_HOME, or experiments.open("folder")
        rows = home.results("ladder", "ladder/seed=1").to_pandas()
        home.lineage("ladder")["easy_data_version"]
        folder = home.path("ladder", "rl_policy")          # a folder for AutoModelForCausalLM.from_pretrained

Nothing here changes a home: `e2h run` makes experiments.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.home import home as default_home
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.experiments import Experiments, Pooled
from e2h_pipeline.orchestration.reading import open_ledger
from e2h_pipeline.orchestration.spelling import known_key

if TYPE_CHECKING:
    import pandas as pd

    from e2h_pipeline.artifacts.manifest import Manifest


class Rows(list[dict[str, Any]]):
    """Rows of a table, as plain dicts."""

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a data frame."""
        import pandas as pd

        return pd.DataFrame(list(self))


class Home:
    """The experiments of a home folder. Keys may be spelled in any order of their fields."""

    def __init__(self, found: Experiments) -> None:
        self._found = found

    def keys(self) -> list[str]:
        """Experiments that have results."""
        return self._found.keys()

    def results(self, *keys: str) -> Rows:
        """Accuracy of every policy and method with its interval, as `e2h results --all --json`. Look at
        `leaks` and `strict` of each row: where the supervision firewall failed, numbers do not count.

        Args:
            keys: of all experiments with results where none is named.

        Raises:
            StoreError: an experiment has no results.
            RecipeError: a key is no recipe.
        """
        chosen = [self._key(key) for key in keys] or self.keys()
        return Rows(row for key in chosen for row in self._found.results(key))

    def pooled(self, *keys: str) -> Pooled:
        """Results over the seeds of each recipe, and paired differences, as `e2h results --pool`."""
        return self._found.pooled([self._key(key) for key in keys] or self.keys())

    def steps(self, *keys: str) -> Rows:
        """What evaluators are worth on steps that people labelled, as `e2h results --steps`."""
        chosen = [self._key(key) for key in keys] or self._found.keys_with_steps()
        return Rows(row for key in chosen for row in self._found.steps(key))

    def lineage(self, key: str) -> dict[str, Any]:
        """Each number back to its easy data, as `e2h lineage --json`."""
        return self._found.lineage(self._key(key))

    def path(self, key: str, asset: str) -> Path:
        """The folder of what a stage made last: a model for transformers, tables of Parquet. Not to be
        changed; its hashes were checked.

        Raises:
            StoreError: it was never made, is gone, or is damaged.
        """
        return self._found.artifact(asset, self._key(key)).path

    def manifest(self, key: str, asset: str) -> Manifest:
        """What a stage's latest artifact was made from, and how."""
        return self._found.artifact(asset, self._key(key)).manifest

    def table(self, key: str, asset: str, file: str = "data.parquet") -> Rows:
        """A Parquet table of an artifact; a folder of them (a pool's `data`) is one table."""
        import pyarrow.parquet as pq

        return Rows(pq.read_table(self.path(key, asset) / file).to_pylist())

    def _key(self, key: str) -> str:
        return known_key(self._found.ledger.experiments(), key, self._found.store.home)


@contextmanager
def open(folder: str | Path | None = None) -> Iterator[Home]:
    """The experiments of a home folder; E2H_HOME, or `.e2h` of the project, where none is named.

    Raises:
        HomeError: the folder can only be read, and nothing was ever run in it.
    """
    place = Path(folder).resolve() if folder is not None else default_home()
    with open_ledger(place) as ledger:
        yield Home(Experiments(ledger, ArtifactStore(place)))
