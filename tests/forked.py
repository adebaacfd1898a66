"""Python processes that begin with the large libraries loaded: an import of Dagster and torch takes
eight seconds of processor time, a fork none.

Our own modules are imported by each process anew, as its environment wants. Start-up itself, signals
to the launcher and lines of commands need real processes (`subprocess`).
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_LIBRARIES = (
    "alembic.command",
    "dagster",
    "dagster._core.execution.backfill",
    "dagster._core.storage.event_log",
    "dagster._core.storage.runs",
    "matplotlib.backends.backend_mixed",
    "matplotlib.figure",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "peft",
    "pyarrow.parquet",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "sympy",
    "tabulate",
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.trainer",
    "typer",
    "upath.core",
    "watchdog.observers",
)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(list(_LIBRARIES))

COMMAND_LINE = "-m e2h_pipeline.cli.app"


def start(
    program: str, arguments: Iterable[object], environment: Mapping[str, str], streams: Path
) -> ForkServerProcess:
    """Start a program.

    Args:
        program: "-m module", or Python text.
        streams: folder of its standard input (`stdin`, where there is one), `stdout` and `stderr`.
    """
    words = [str(word) for word in arguments]
    process = CONTEXT.Process(target=_main, args=(program, words, dict(environment), str(streams)))
    process.start()
    return process


def run(
    program: str,
    arguments: Iterable[object],
    environment: Mapping[str, str],
    stdin: bytes = b"",
    seconds: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Run a program (see `start`) to its end.

    Raises:
        TimeoutError: it took longer; it is killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = Path(folder)
        (streams / "stdin").write_bytes(stdin)
        process = start(program, arguments, environment, streams)
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"{program[:100]}: it took more than {seconds} seconds")
        out, err = ((streams / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(program, process.exitcode, out, err)


def _main(program: str, arguments: list[str], environment: dict[str, str], streams: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in paths if path and path not in sys.path]
    _open(Path(streams))
    module = program.removeprefix("-m ")
    sys.argv = [module if program.startswith("-m ") else "-c", *arguments]
    try:
        if program.startswith("-m "):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})  # noqa: S102  the test's own text
    finally:  # multiprocessing ends its processes without this
        atexit._run_exitfuncs()


def _open(streams: Path) -> None:
    given = streams / "stdin"
    handles = [
        os.open(given if given.exists() else os.devnull, os.O_RDONLY),
        os.open(streams / "stdout", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        os.open(streams / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ]
    for number, handle in enumerate(handles):
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has put another there
