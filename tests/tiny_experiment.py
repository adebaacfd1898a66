"""A whole experiment at the smallest size, and the command line in its own home folder."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import forked

RECIPE = """
description: every stage, as small as it can be
problems: {validation: 10, easy_limit: 30, hard_limit: 20, benchmark_limit: 25, train_per_level: 30}
base: {train: true, updates: 60, batch_size: 16, hidden: 32, layers: 2, heads: 2}
sft: {epochs: 2, batch_size: 16, learning_rate: 1.0e-3}
easy_samples: {samples: 4, max_new_tokens: 40, shard_questions: 4}
reward: {training: {epochs: 1, batch_size: 32, learning_rate: 1.0e-3}}
sampling: {samples: 4, max_new_tokens: 48, shard_questions: 2}
rl:
  {updates: 6, rollouts: 16, samples_per_question: 2, minibatch: 8, max_new_tokens: 40, warmup_updates: 1,
   checkpoint_every: 1}
evaluation: {samples: 2, bootstrap: 100, grader: exact}
"""


def new_home(folder: Path, empty: bool = False) -> Path:
    """A home folder with the tiny recipe.

    Args:
        empty: with nothing else. Else with empty databases of Dagster and MLflow, as after a first look: to make
            these takes more than two seconds of processor time, to copy them none.
    """
    if not empty:
        shutil.copytree(_databases(), folder, symlinks=True)
    (folder / "recipes").mkdir(parents=True)
    (folder / "recipes" / "tiny.yaml").write_text(RECIPE)
    return folder


@cache
def _databases() -> Path:
    from e2h_pipeline.orchestration.instance import open_instance
    from resources.tracking import make_database

    folder = Path(tempfile.mkdtemp(prefix="e2h-databases-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with open_instance(folder):
        make_database(folder)
    return folder


def environment(home: Path) -> dict[str, str]:
    """The environment of a test's `e2h` process, without the machine's MLflow address."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    return {**kept, "E2H_HOME": str(home), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def e2h(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a home folder."""
    return forked.run(forked.COMMAND_LINE, arguments, environment(home))


def start(home: Path, *arguments: str) -> ForkServerProcess:
    """Start the command line in a home folder; its output goes to files beside the home."""
    return forked.start(forked.COMMAND_LINE, arguments, environment(home), home.parent)
