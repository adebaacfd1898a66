"""Replay stored PPO and GRPO runs in random orders: savings and cost of giving up hopeless members.

python benchmarks/sweep_stop.py            # the runs in E2H_HOME
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.home import home
from e2h_pipeline.sweeps.learning_curves import (
    Curve,
    Median,
    Never,
    Predicted,
    Replay,
    Rule,
    predict_end,
    replay,
)
from e2h_pipeline.sweeps.stop import WATCHED, validation

ALGORITHMS = ("ppo", "grpo")  # they validate every few updates
KNOBS = ("kl", "learning_rate", "process_scale", "step_bonus")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=home())
    parser.add_argument("--orders", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    curves = stored_curves(options.home)
    length = max((len(c.values) for c in curves), default=0)
    whole = [c for c in curves if len(c.values) == length]
    least = min(20, max(2, len(whole) // 2))
    print(f"{len(curves)} runs, {len(whole)} of them with all {length} checkpoints; least={least}")
    rules: dict[str, Rule] = {
        "never": Never(),
        "median": Median(least=min(5, least)),
        "predicted .95": Predicted(least=least, confidence=0.95),
        "predicted .99": Predicted(least=least, confidence=0.99),
    }
    rows = [row(name, rule, curves, options.orders, options.seed) for name, rule in rules.items()]
    print("\n| rule | checkpoints saved | regret, mean (worst) | best given up |\n|---|---|---|---|")
    for found in rows:
        print(
            f"| {found['rule']} | {found['saved']:.1%} | {found['regret']:.4f} ({found['worst']:.4f}) "
            f"| {found['best_lost']:.0%} of orders |"
        )
    explained = {points: r_squared(whole, points) for points in range(2, length)}
    print("\nR2 of the predicted end, leave-one-out, by checkpoints seen:", explained)
    print(json.dumps({"benchmark": "sweep_stop", "runs": len(curves), "rows": rows, "r2": explained}))


def stored_curves(folder: Path) -> list[Curve]:
    """Curves of easy validation of every stored run, with its knobs."""
    found = []
    for asset in WATCHED:
        for path in sorted((folder / "store" / asset).glob("*/curves.jsonl")):
            values = validation([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
            manifest = json.loads((path.parent / "manifest.json").read_text(encoding="utf-8"))
            rl = manifest["recipe"]["rl"]
            if values and rl["algorithm"] in ALGORITHMS:
                knobs = [float(rl[name]) for name in KNOBS]
                found.append(Curve(values, (float(rl["algorithm"] == "grpo"), *knobs)))
    return found


def row(name: str, rule: Rule, curves: list[Curve], orders: int, seed: int) -> dict[str, Any]:
    """Means over random orders."""
    rng = random.Random(seed)
    found: list[Replay] = [replay(rng.sample(curves, len(curves)), rule) for _ in range(orders)]
    return {
        "rule": name,
        "saved": statistics.mean(r.saved for r in found),
        "regret": statistics.mean(r.regret for r in found),
        "worst": max(r.regret for r in found),
        "best_lost": statistics.mean(r.best_lost for r in found),
    }


def r_squared(curves: list[Curve], points: int) -> float | None:
    """Share of the final values' variance that the first points explain."""
    ends = [curve.end for curve in curves]
    if len(curves) < 5 or statistics.pvariance(ends) == 0:
        return None
    errors = []
    for i, curve in enumerate(curves):
        told, _ = predict_end(Curve(curve.values[:points], curve.knobs), curves[:i] + curves[i + 1 :])
        errors.append((told - curve.end) ** 2)
    return round(1 - statistics.mean(errors) / statistics.pvariance(ends), 3)


if __name__ == "__main__":
    main()
