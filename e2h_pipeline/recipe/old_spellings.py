"""Fields of recipes that have moved: an old spelling is refused with the new one."""

from __future__ import annotations

import re

_KINDS = "prm|orm|oprm|pairwise"
_MOVED = (
    (rf"({_KINDS})\.(tokens|outcome_share)", r"reward.\2 (with reward.kind=\1)"),
    (rf"({_KINDS})\.(.+)", r"reward.training.\2 (with reward.kind=\1)"),
    (rf"({_KINDS})", r"reward.training (with reward.kind=\1)"),
    (r"rl\.rest\.(.+)", r"rl.\1 (with rl.algorithm=rest)"),
    (r"rl\.rest", "rl, or in a file rl.when.rest (with rl.algorithm=rest)"),
    (r"rl\.preference\.(.+)", r"rl.\1 (with rl.algorithm=dpo)"),
    (r"rl\.preference", "rl, or in a file rl.when.dpo (with rl.algorithm=dpo)"),
)


def new_spelling(field: str) -> str:
    """What the old name of a field, dotted, is now; empty where it is no old name."""
    for old, new in _MOVED:
        if match := re.fullmatch(old, field):
            return match.expand(new)
    return ""
