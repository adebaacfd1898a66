"""Runs of several seeds as one table, and what it may tell of differences."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from e2h_pipeline.evaluation.pooling import (
    Arm,
    arm_differences,
    method_differences,
    pool_arm,
    pooled_rows,
    untold,
    with_holm,
)
from e2h_pipeline.evaluation.scoreboard import Method, Scoreboard, values_table
from e2h_pipeline.statistics.bootstrap import Bootstrap

EASY, BOOTSTRAP = (1, 2, 3), Bootstrap(100)
SFT, RL = Method("sft", "greedy", 1), Method("rl", "greedy", 1)


def values(*accuracy: list[float], name: str = "LADDER500", grader: str = "exact/1") -> pa.Table:
    """Of greedy SFT, and greedy RL where there is a second list."""
    ids = tuple(f"p{i}" for i in range(len(accuracy[0])))
    found = {method: np.array(a) for method, a in zip((SFT, RL), accuracy, strict=False)}
    return values_table(Scoreboard(name, grader, ids, np.arange(1, len(ids) + 1), found))


def arm(seeds: int, gain: float, name: str = "ladder", spread: float = 0.05) -> Arm:
    """SFT near .4 and RL `gain` above it, moved by `spread` from seed to seed; 60 problems."""
    rng = np.random.default_rng(7)
    tables = {}
    for seed in range(seeds):
        sft = np.clip(0.4 + rng.normal(0, 0.1, 60), 0, 1)
        rl = np.clip(sft + gain + rng.normal(0, spread) + rng.normal(0, 0.05, 60), 0, 1)
        tables[f"seed={seed}"] = values(sft.tolist(), rl.tolist())
    return pool_arm(name, tables)


def test_seeds_pool_to_the_mean_over_seeds_and_keep_their_own_values() -> None:
    tables = {"a": values([1, 0, 0, 1, 0]), "b": values([1, 1, 0, 1, 0])}
    rows = {r["levels"]: r for r in pooled_rows(pool_arm("ladder", tables), EASY, BOOTSTRAP)}
    assert rows["2"]["accuracy"] == 0.5 and rows["all"]["accuracy"] == pytest.approx(0.5)
    assert rows["all"]["by_seed"] == pytest.approx({"a": 0.4, "b": 0.6})
    assert rows["all"]["seeds"] == 2
    assert 0 <= rows["all"]["ci_low"] < 0.4 and 0.6 < rows["all"]["ci_high"] <= 1


def test_seeds_that_differ_more_give_a_wider_interval() -> None:
    """An interval over problems alone is as wide for seeds that agree as for seeds that do not."""
    problems = [1.0, 0.0] * 30
    agree = pool_arm("x", {str(s): values(problems) for s in range(3)})
    apart = pool_arm("x", {str(s): values([min(1, p + 0.2 * s) for p in problems]) for s in range(3)})
    widths = [
        r["ci_high"] - r["ci_low"]
        for pooled in (agree, apart)
        for r in pooled_rows(pooled, EASY, BOOTSTRAP)
        if r["levels"] == "all"
    ]
    assert widths[1] > 1.5 * widths[0]


def test_what_does_not_belong_together_is_never_pooled() -> None:
    with pytest.raises(ValueError, match="LADDER500, MATH500"):
        pool_arm("x", {name: values([1, 0], name=name) for name in ("LADDER500", "MATH500")})
    with pytest.raises(ValueError, match="seeds of one grader can be pooled, these are exact/1, math/1"):
        pool_arm("x", {grader: values([1, 0], grader=grader) for grader in ("exact/1", "math/1")})
    with pytest.raises(ValueError, match=r"differ in problems \(p2\)"):
        pool_arm("x", {"a": values([1, 0]), "b": values([1, 0, 1])})


def test_differences_are_told_from_five_seeds_on() -> None:
    few, enough = arm(4, 0.3), arm(5, 0.3)
    assert method_differences(few, EASY, BOOTSTRAP) == []
    assert arm_differences(few, enough, EASY, BOOTSTRAP) == []
    assert untold(4) == "4 seeds: differences between methods are not told below 5 seeds"
    assert untold(5) == ""
    rows = with_holm(method_differences(enough, EASY, BOOTSTRAP))
    assert [(r["first"], r["second"], r["levels"]) for r in rows] == [
        ("rl greedy, ladder", "sft greedy", group) for group in ("easy", "hard", "all")
    ]
    assert rows[2]["difference"] == pytest.approx(0.3, abs=0.05)
    assert all(r["p_value"] <= r["holm"] <= 1 for r in rows) and rows[2]["holm"] < 0.05


def test_arms_are_paired_by_seed_and_problem() -> None:
    """Two arms that share what moves a seed differ clearly, though their own intervals overlap."""
    one, other = arm(6, 0.2, "one", spread=0.2), arm(6, 0.25, "other", spread=0.2)
    rows = {(r["first"], r["levels"]): r for r in arm_differences(other, one, EASY, BOOTSTRAP)}
    rl = rows["rl greedy, other", "all"]
    assert rl["difference"] == pytest.approx(0.05, abs=0.01) and rl["p_value"] < 0.01
    assert rows["sft greedy, other", "all"]["difference"] == 0
    assert rows["sft greedy, other", "all"]["p_value"] == 1
    own = next(r for r in pooled_rows(one, EASY, BOOTSTRAP) if (r["policy"], r["levels"]) == ("rl", "all"))
    assert own["ci_high"] - own["accuracy"] > 0.1


def test_arms_with_other_problems_are_not_compared() -> None:
    short = pool_arm("short", {f"seed={s}": values([1, 0], [1, 1]) for s in range(6)})
    assert arm_differences(short, arm(6, 0.2), EASY, BOOTSTRAP) == []
