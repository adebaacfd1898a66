"""Several ranks on this machine, as `accelerate launch` starts them, but forked: their imports are
there already, which saves some ten seconds each."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable


def in_ranks(count: int, work: Callable[[], None], seconds: float = 120) -> list[int]:
    """Run `work` in `count` processes that can form a process group.

    Returns:
        Their exit statuses, by rank: 1 after an error, which is printed; negative after a signal.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        multiprocessing.get_context("fork").Process(target=_rank, args=(rank, count, port, work))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode or 0 for process in processes]


def _rank(rank: int, count: int, port: int, work: Callable[[], None]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    work()
