"""Weights from a trainer to its rollout engines: a gloo group in which rank 0 sends.

The group is separate from torch.distributed's default one, which the trainer may use for itself. It
meets in a file and listens on the loopback interface only, so it is for processes of one host. A
receiver that dies or stands still makes a transfer fail after the group's timeout.

Tensors travel as bytes: gloo does not know every number format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroupGloo


@dataclass(frozen=True)
class TensorInfo:
    """A tensor that will be sent.

    Attributes:
        name: of the parameter, as in the checkpoint.
        dtype: torch's name of the number format, such as "bfloat16".
        shape: of the whole tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor) -> TensorInfo:
        """A tensor's description. For a shard it is that of the whole."""
        return cls(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))

    @property
    def bytes(self) -> int:
        """Size."""
        import torch

        return torch.Size(self.shape).numel() * _dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Meeting:
    """Where a group meets.

    Attributes:
        file: its rendezvous; new for each group.
        size: ranks, the sender's included.
        seconds: the longest that a transfer may stand still.
    """

    file: str
    size: int
    seconds: float


class Broadcast:
    """A member of the group; rank 0 is the sender."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        """Meet the other members.

        Raises:
            RuntimeError: they did not come in time.
        """
        from torch.distributed import FileStore, ProcessGroupGloo

        wait = timedelta(seconds=meeting.seconds)
        options = ProcessGroupGloo._Options()
        options._devices = [ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        options._timeout = wait
        store = FileStore(meeting.file, meeting.size)
        store.set_timeout(wait)
        self._group: ProcessGroupGloo = ProcessGroupGloo(store, rank, meeting.size, options)

    def send(self, tensors: Sequence[torch.Tensor]) -> None:
        """Send tensors to all other members.

        Raises:
            RuntimeError: a member is gone, or did not take them in time.
        """
        for tensor in tensors:
            self._broadcast(tensor.detach().contiguous().cpu())

    def receive(self, infos: Sequence[TensorInfo]) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors that the sender sends, with their names.

        Raises:
            RuntimeError: the sender is gone, or did not send them in time.
        """
        import torch

        for info in infos:
            tensor = torch.empty(info.shape, dtype=_dtype(info.dtype))
            self._broadcast(tensor)
            yield info.name, tensor

    def _broadcast(self, tensor: torch.Tensor) -> None:
        import torch
        from torch.distributed import BroadcastOptions

        options = BroadcastOptions()
        options.rootRank = options.rootTensor = 0
        self._group.broadcast([tensor.reshape(-1).view(torch.uint8)], options).wait()


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)
