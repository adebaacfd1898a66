"""The cards of this host: a stage locks those that it uses, and its worker sees no others.

Slots of the pool "gpu" decide when a stage may start; they do not say on which card. Without these
locks, stages that run side by side would all use the first card. The locks hold for all homes of a
user on the host, and for hosts that share a database of Dagster. The worker inherits them, so a
card is free when the last process of its stage has ended, however that ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2h_pipeline.artifacts.locks import alone, free_lock

ALL = 1_000_000  # more cards than any host has: all of them
VISIBLE = "CUDA_VISIBLE_DEVICES"
HANDLES = "E2H_CARD_FDS"  # the locks, for `resources.supervise`
_DEVICES = Path("/proc/driver/nvidia/gpus")
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Taken:
    """Cards of a stage.

    Attributes:
        names: as in CUDA_VISIBLE_DEVICES; none on a host without a GPU.
        handles: file descriptors of their locks.
    """

    names: tuple[str, ...] = ()
    handles: tuple[int, ...] = ()

    def environment(self) -> dict[str, str]:
        """Variables of a process that uses these cards alone."""
        if not self.names:
            return {}
        return {VISIBLE: ",".join(self.names), HANDLES: ",".join(map(str, self.handles))}


def visible_cards() -> list[str]:
    """The cards that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    installed = len(list(_DEVICES.glob("*")))
    if not installed:
        return []
    named = os.environ.get(VISIBLE)
    if named is None:
        return [str(number) for number in range(installed)]
    return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]


def lock_folder() -> Path:
    """Where the locks of this user's cards lie, for all homes on this host."""
    return Path("/tmp") / f"e2h-cards-{os.getuid()}"


@contextmanager
def taken(
    cards: Sequence[str], wanted: int, folder: Path, wait: Callable[[str], object] = lambda message: None
) -> Iterator[Taken]:
    """Lock some cards, all at once: waits until that many are free, and holds none meanwhile.

    Args:
        cards: of which to take; all are taken where they are too few.
        folder: of the lock files.
        wait: is told once if there is something to wait for.
    """
    wanted = min(wanted, len(cards))
    said = False
    while True:
        with ExitStack() as stack:
            found = _lock(stack, cards, wanted, folder)
            if found is not None:
                yield found
                return
        if not said:
            wait(f"waits for {wanted} free GPUs of {len(cards)}")
            said = True
        time.sleep(_LOOK_SECONDS)


def _lock(stack: ExitStack, cards: Sequence[str], wanted: int, folder: Path) -> Taken | None:
    """Lock free cards; None where they are too few."""
    if not wanted:
        return Taken()
    names: list[str] = []
    handles: list[int] = []
    with alone(folder / ".lock"):  # otherwise two stages could each hold half of what they need
        for card in cards:
            if len(names) < wanted:
                handle = stack.enter_context(free_lock(folder / f"card-{card.replace('/', '_')}.lock"))
                if handle is not None:
                    names.append(card)
                    handles.append(handle)
    return Taken(tuple(names), tuple(handles)) if len(names) == wanted else None
