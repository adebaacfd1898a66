"""Several ranks on this machine, as `accelerate launch` starts them, but forked: their imports are
there already, which saves some ten seconds each."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing import connection

_GRACE = 60.0


def in_ranks(count: int, work: Callable[[], None], seconds: float = 600) -> list[int]:
    """Run `work` in `count` processes that can form a process group.

    After a failure the others have some time to fail by themselves.

    Returns:
        Their exit statuses, by rank: 1 after an error, which is printed; negative after a signal.
    """
    import torch.distributed.fsdp
    import torch.distributed.tensor  # noqa: F401 - before the fork, not in every rank
    from torch.distributed import TCPStore

    # As torch's launcher does: the store is here, on a port that nobody else can take meanwhile.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = [
        multiprocessing.get_context("fork").Process(target=_rank, args=(rank, count, store.port, work))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + seconds
    while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
        connection.wait([process.sentinel for process in processes if process.is_alive()], timeout=1)
        if any(process.exitcode for process in processes):  # a launcher ends the others
            deadline = min(deadline, time.monotonic() + _GRACE)
    for process in processes:
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
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    work()
