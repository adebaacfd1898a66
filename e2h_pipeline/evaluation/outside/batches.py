"""Batches of lines that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def batches(items: Iterable[T], characters: Callable[[T], int], most: int, largest: int) -> Iterator[list[T]]:
    """Items in their order. A batch ends where it has `most` items, or `largest` characters or more."""
    batch: list[T] = []
    held = 0
    for item in items:
        batch.append(item)
        held += characters(item)
        if len(batch) >= most or held >= largest:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
