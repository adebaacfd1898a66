"""The processes ("ranks") of one online run under `accelerate launch`: who does what, how they agree.

Every rank holds the same progress, rollouts and batch tensors. Only heavy work is split: each rank
does its `share` of a list, and `gather` or `sum_up` gives all ranks the whole result. What only one
process may do (grading, files) rank 0 does; `told` gives the others its result. So the program is
the same for one process, where all this costs nothing and torch.distributed is not loaded.

Values travel as JSON and tensors, never as pickles. Texts and numbers go over gloo, tensors over
gloo on a CPU and NCCL on a GPU. A rank that dies closes its connections: the others fail at once,
and the launcher ends them. A rank that hangs is found by `_PATIENCE`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from e2h_pipeline.training.trainer import is_main_process, process_count

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

# Longest wait for another rank. It must cover what one rank does alone: grading, writing files.
_PATIENCE = timedelta(minutes=10)
_FOR_HOURS = timedelta(days=30)
_BUCKET = 16_000_000  # numbers that are sent at once: fewer calls, at the price of a copy this large


_spent = 0.0
_patient: ProcessGroup | None = None  # of all ranks; its talks may take `_FOR_HOURS`
_working_alone = False  # rank 0, while the others wait for it


def seconds() -> float:
    """Seconds that this process has spent in talks with others, waiting for them included.

    The passes of sharded models are not in it: there the talks are part of the computation.
    """
    return _spent


@contextmanager
def _timed() -> Iterator[None]:
    global _spent
    began = time.monotonic()
    yield
    _spent += time.monotonic() - began


@contextmanager
def together() -> Iterator[None]:
    """Within it the ranks can talk to each other."""
    if process_count() == 1:
        yield
        return
    import torch
    from torch import distributed

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    global _patient
    _patient = distributed.new_group(timeout=_FOR_HOURS, backend="gloo")
    yield
    distributed.destroy_process_group()  # not after an error: the others may not get this far


def rank() -> int:
    """Number of this process among those that work together, from 0."""
    if _talking() == 1:
        return 0
    from torch import distributed

    return distributed.get_rank()


def share(costs: Sequence[float]) -> list[int]:
    """Places of this rank's items, ascending; every item belongs to one rank.

    The dearest item goes first, always to the rank with the least to do.

    Args:
        costs: of each item, in any unit.
    """
    count = _talking()
    if count == 1:
        return list(range(len(costs)))
    loads, own = [0.0] * count, []
    for place in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        least = loads.index(min(loads))
        loads[least] += costs[place]
        if least == rank():
            own.append(place)
    return sorted(own)


def gather(own: Mapping[int, Any], count: int) -> list[Any]:
    """The results of all ranks, in the order of the items.

    Args:
        own: this rank's results by place, as JSON has them.
        count: items of all ranks.

    Raises:
        RuntimeError: an item was done by no rank: the ranks did not share the same list.
    """
    found: dict[int, Any] = dict(own)
    if _talking() > 1:
        for text in _texts(json.dumps(list(own.items()))):
            found.update((place, result) for place, result in json.loads(text))
    if sorted(found) != list(range(count)):
        raise RuntimeError(f"the ranks did {len(found)} of {count} items: they do not run the same update")
    return [found[place] for place in range(count)]


def told(make: Callable[[], Any]) -> Any:
    """The result of `make` on rank 0, as JSON has it; the others only hear of it."""
    if _talking() == 1:
        return make()
    text = json.dumps(make()) if is_main_process() else ""
    return json.loads(_texts(text)[0])


def alone(work: Callable[[], Any]) -> Any:
    """`told` of work that takes rank 0 minutes or hours, such as drawing a pool of samples.

    Within it rank 0 is like a run's only process: it talks to nobody. If it dies the others notice
    at once; if it hangs they do not.
    """
    global _working_alone
    if _talking() == 1:
        return work()
    text = ""
    if is_main_process():
        _working_alone = True
        text = json.dumps(work())
        _working_alone = False
    return json.loads(_texts(text, _patient)[0])


def sum_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over the ranks, the same on all of them to the bit."""
    if _talking() == 1:
        return
    import torch
    from torch import distributed

    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        with _timed():
            distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in bucket])
        for tensor, part in zip(bucket, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def largest(number: int) -> int:
    """The largest of the ranks' numbers."""
    return max(map(int, _texts(str(number)))) if _talking() > 1 else number


def wait() -> None:
    """Wait until all ranks have come to this point."""
    largest(0)


def _talking() -> int:
    """Processes that do the present work together."""
    return 1 if _working_alone else process_count()


def _texts(own: str, group: ProcessGroup | None = None) -> list[str]:
    """The text of every rank, by rank; over the default group where None."""
    import torch
    from torch import distributed

    data = torch.frombuffer(bytearray(own.encode() or b" "), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.long) for _ in range(_talking())]
    with _timed():
        distributed.all_gather(sizes, torch.tensor([len(data)]), group)
        room = int(max(sizes))
        padded = torch.nn.functional.pad(data, (0, room - len(data)))
        found = [torch.empty(room, dtype=torch.uint8) for _ in sizes]
        distributed.all_gather(found, padded, group)
    return [bytes(text[: int(size)].numpy()).decode() for text, size in zip(found, sizes, strict=True)]


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one number format, up to `_BUCKET` numbers; a larger tensor is alone."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        room = _BUCKET - sum(other.numel() for other in bucket)
        if bucket and (tensor.numel() > room or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
