"""How far two judges agree on the same items, beyond what chance alone would give (Cohen 1960)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any


def agreement(pairs: Iterable[tuple[bool, bool]]) -> dict[str, Any]:
    """Agreement of two judges who call each item right or wrong.

    Args:
        pairs: (first judge says right, second judge says right) of each item.

    Returns:
        `steps` (items), the counts `right_right`, `right_wrong`, `wrong_right` and `wrong_wrong`
        (first judge, second judge), the share `equal`, and Cohen's `kappa`. The share is None
        without items, kappa also where both judges give all items one and the same verdict.
    """
    counts = Counter(pairs)
    both, first, second, none = (
        counts[pair] for pair in ((True, True), (True, False), (False, True), (False, False))
    )
    items = both + first + second + none
    equal = (both + none) / items if items else None
    return {
        "steps": items,
        "equal": equal,
        "kappa": None if equal is None else _kappa(equal, (both + first) / items, (both + second) / items),
        "right_right": both,
        "right_wrong": first,
        "wrong_right": second,
        "wrong_wrong": none,
    }


def _kappa(equal: float, first: float, second: float) -> float | None:
    """Cohen's kappa from the share of equal verdicts and each judge's share of right ones."""
    chance = first * second + (1 - first) * (1 - second)
    return (equal - chance) / (1 - chance) if chance < 1 else None
