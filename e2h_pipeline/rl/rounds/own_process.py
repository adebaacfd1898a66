"""Shards in a process of their own, for engines that cannot draw in a process that trains with
others: vLLM makes process groups itself, and would wait for the other ranks."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.shards import Call, LocalRunner
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.engines.fleet import is_of_launcher
from e2h_pipeline.training.trainer import process_count
from resources.supervise import die_with_parent

if TYPE_CHECKING:
    import pyarrow as pa

_EMBEDDED = "transformers"


class OwnProcess:
    """Shards one after the other, in order, in a child process. It ends with the last shard, and
    with this process, however that ends."""

    def run(self, function: Callable[..., pa.Table], calls: Sequence[Call]) -> Iterator[tuple[str, pa.Table]]:
        """See `Runner.run`.

        Raises:
            BrokenProcessPool: the child was killed.
        """
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _leave_launcher) as child:
            for name, arguments in calls:
                try:
                    table = child.submit(function, *arguments).result()
                except Exception as error:
                    error.add_note(f"in shard {name}")
                    raise
                yield name, table
                del table


def for_drawing(work: Work) -> Work:
    """The work of a process that draws; where several train together, engines besides the embedded
    one draw in a process of their own. Runners of clusters draw elsewhere anyway."""
    here = isinstance(work.runner, LocalRunner)
    if process_count() == 1 or not here or work.engine == _EMBEDDED:
        return work
    return replace(work, runner=OwnProcess())


def _leave_launcher(*_: Any) -> None:
    """This process is no rank of the training."""
    die_with_parent()
    for name in filter(is_of_launcher, list(os.environ)):
        del os.environ[name]
