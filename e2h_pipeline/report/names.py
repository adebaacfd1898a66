"""TODO: docstring."""

from __future__ import annotations

POOLED = ("easy", "hard", "all")
LEVELS = ("1", "2", "3", "4", "5")
_SHORT = 24
_POLICIES = ("base", "sft", "rl")
POLICY_NAMES = {"base": "Base model", "sft": "SFT on easy problems", "rl": "RL with the easy evaluator"}
METHOD_NAMES = {
    "greedy": "greedy",
    "majority": "majority vote",
    "weighted-vote": "weighted vote",
    "best-of-n": "best-of-N",
    "pass": "pass@N (bound)",
}


COLORS = {
    "majority": "#5f6875",
    "weighted-vote": "#0072b2",
    "best-of-n": "#d55e00",
    "pass": "#a7aeb9",
    "base": "#a7aeb9",
    "sft": "#56b4e9",
    "rl": "#009e73",
}


MARKERS = {"majority": "o", "weighted-vote": "s", "best-of-n": "^", "pass": ""}


def headed(name: str) -> str:
    """A name as the head of a row: best-of-N as Best-of-N."""
    return name[:1].upper() + name[1:]


def short_name(name: str) -> str:
    """A name that leaves room in a figure's title."""
    return name if len(name) <= _SHORT else name[: _SHORT - 1] + "…"


def method_name(method: str, aggregation: str) -> str:
    """A method's name for people."""
    return f"{METHOD_NAMES[method]} ({aggregation})" if aggregation else METHOD_NAMES[method]


def policy_order(policy: str) -> tuple[int, str]:
    return (_POLICIES.index(policy) if policy in _POLICIES else len(_POLICIES), policy)
