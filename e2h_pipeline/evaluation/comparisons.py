"""The comparisons that are reported: policies with those before them, and evaluators with the vote."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from e2h_pipeline.evaluation.scoreboard import Difference, Method

WITHOUT_EVALUATOR = ("majority", "pass")
_ORDER = ("base", "sft", "rl")
_DECODED = ("greedy", "majority")


def between_policies(methods: Collection[Method]) -> list[Difference]:
    """Later policies minus earlier ones, greedy and majority at the largest N they share."""
    policies = {method.policy for method in methods if method.method == "greedy"}
    ordered = [p for p in _ORDER if p in policies] + sorted(policies - set(_ORDER))
    found = []
    for earlier, later in itertools.combinations(ordered, 2):
        for method in _DECODED:
            counts = [{m.n for m in methods if (m.policy, m.method) == (p, method)} for p in (earlier, later)]
            if shared := set.intersection(*counts):
                pair = [Method(policy, method, max(shared)) for policy in (later, earlier)]
                found.append(Difference(pair[0], pair[1], pair[0].policy_name, pair[1].policy_name))
    return found


def against_majority(methods: Collection[Method]) -> list[Difference]:
    """Everything that an evaluator chose minus the majority vote of the same samples."""
    return [
        Difference(method, Method(method.policy, "majority", method.n), method.name, "majority")
        for method in methods
        if method.method not in (*WITHOUT_EVALUATOR, "greedy")
        and Method(method.policy, "majority", method.n) in methods
    ]


def at_largest_n(methods: Collection[Method]) -> list[Method]:
    """Every method at its largest N."""
    largest: dict[tuple[str, ...], Method] = {}
    for method in methods:
        series = (method.policy, method.method, method.evaluator, method.aggregation)
        if series not in largest or method.n > largest[series].n:
            largest[series] = method
    return list(largest.values())
