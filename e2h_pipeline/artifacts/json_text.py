"""JSON for other programs. Python writes `NaN` and `Infinity`, which are not JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """JSON in ASCII: numbers that are not finite become null, what is not JSON becomes text."""
    return json.dumps(_finite(value), indent=indent, sort_keys=sort_keys, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
