r"""The math_verify library (Hugging Face) on one pair; a task of `grading.worker`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from math_verify import parse, verify

WARM_UP = ("\\frac{1}{2}", "0.5")


def compare(gold: str, answer: str) -> str:
    """equal, different, or undecided where memory or recursion depth ran out."""
    try:
        equal = verify(_parse(gold), _parse(answer), timeout_seconds=None, raise_on_error=True)
    except (MemoryError, RecursionError):
        return "undecided"
    except ImportError:
        raise
    except Exception:  # noqa: BLE001 - the library raises nearly anything on text that is no mathematics
        return "different"
    return "equal" if equal else "different"


@lru_cache(maxsize=1024)
def _parse(text: str) -> list[Any]:
    """Parse an answer as its users do: as LaTeX between dollar signs, and as a plain expression."""
    expressions: list[Any] = parse(
        "$" + text.strip().strip("$") + "$", parsing_timeout=None, raise_on_error=True
    )
    return expressions
