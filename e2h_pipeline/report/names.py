"""What people call the words of result tables: policies and methods, known or not."""

from __future__ import annotations

from collections.abc import Mapping

POLICY_NAMES: Mapping[str, str] = {
    "base": "Base model",
    "sft": "SFT on easy problems",
    "rl": "RL with the easy evaluator",
}
METHOD_NAMES: Mapping[str, str] = {
    "greedy": "greedy",
    "majority": "majority vote",
    "weighted-vote": "weighted vote",
    "best-of-n": "best-of-N",
    "pass": "pass@N (bound)",
}
AS_GIVEN = "score"
"""The aggregation of samples made elsewhere whose solutions came with scores: none."""

_MARKERS = {"majority": "o", "weighted-vote": "s", "best-of-n": "^", "pass": ""}
_POLICIES = tuple(POLICY_NAMES)
_SHORT = 24  # characters


def policy_name(policy: str) -> str:
    """A policy's name for people."""
    return POLICY_NAMES.get(policy) or headed(readable(policy))


def method_name(method: str, aggregation: str = "") -> str:
    """A method's name for people, with its aggregation of step scores where it has one."""
    name = METHOD_NAMES.get(method) or readable(method)
    return f"{name} ({aggregation})" if aggregation else name


def marker_of(method: str) -> str:
    """The mark of a method's points in figures, as matplotlib names it."""
    return _MARKERS.get(method, "D")


def readable(word: str) -> str:
    """A word of a recipe or table as people write it: `self_play` as `self play`."""
    return word.replace("_", " ").replace("-", " ")


def headed(name: str) -> str:
    """A name as the head of a row: best-of-N as Best-of-N."""
    return name[:1].upper() + name[1:]


def short_name(name: str) -> str:
    """A name that leaves room in a figure's title."""
    return name if len(name) <= _SHORT else name[: _SHORT - 1] + "…"


def policy_order(policy: str) -> tuple[int, str]:
    """Sort key of policies: each after those it is made from, unknown ones last."""
    return (_POLICIES.index(policy) if policy in _POLICIES else len(_POLICIES), policy)
