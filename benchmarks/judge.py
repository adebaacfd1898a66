"""Seconds to score ProcessBench's solutions, ours beside one forward pass per step.

    python benchmarks/judge.py EVALUATOR PROCESS_BENCH_FILE [--solutions 24] [--rounds 3] [--threads 1]

EVALUATOR is a folder that `e2h judge` reads. Ours is `score_lines`, what `e2h score` and `e2h judge`
run: batches of whole solutions, every step of one from one pass. The peer restates what several
published evaluations do: for each step a forward pass over the question and all steps up to it, one
after the other. Both must give equal scores, so both compute in float32: in half precision scores
differ by rounding. The solutions are drawn by a fixed seed; rounds take
turns, and the ratio is that of the medians. Seconds are processor seconds, so other jobs on the
machine disturb little.

A table for people, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.evaluation.outside.step_lines import STEP_SCORES, score_lines, step_line
from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.problems.jsonl import read_jsonl
from e2h_pipeline.problems.math.domain import MATH
from e2h_pipeline.reranking.aggregate import step_probabilities
from e2h_pipeline.rewards.scoring import encode_for, score_solutions

Scores = list[list[float]]
CLOSE = 1e-4
ALL = 3400  # solutions of the whole benchmark


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("evaluator", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--solutions", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    records = random.Random(0).sample([record for _, record in read_jsonl(options.file)], options.solutions)
    model, tokenizer = load_evaluator(options.evaluator)
    model.float()
    ways: dict[str, Callable[[], Scores]] = {
        "ours": whole(InMemory(model, tokenizer), records),
        "a pass per step": step_by_step(model, tokenizer, records),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores: dict[str, Scores] = {}
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = time.process_time()
            scores[name] = way()
            seconds[name].append(time.process_time() - start)
    gap = max(abs(a - b) for x, y in zip(*scores.values(), strict=True) for a, b in zip(x, y, strict=True))
    assert gap < CLOSE, f"scores differ by {gap}"
    middle = {name: median(own) for name, own in seconds.items()}
    for name, value in middle.items():
        whole_benchmark = value / options.solutions * ALL / 3600
        print(f"{name:18}{value:9.2f} s for {options.solutions} solutions, {whole_benchmark:6.2f} h for all")
    ratio = middle["a pass per step"] / middle["ours"]
    print(f"ratio of medians {ratio:.2f}; largest difference of scores {gap:.1e}")
    found = {"benchmark": "judge", "evaluator": options.evaluator.name, "solutions": options.solutions}
    print(json.dumps({**found, "steps": sum(map(len, scores["ours"])), "seconds": seconds, "ratio": ratio}))


@dataclass(frozen=True)
class InMemory:
    """`StepScorer` of a model that is loaded."""

    model: Any
    tokenizer: Any

    def step_probabilities(self, solutions: Sequence[tuple[str, str, bool]]) -> list[NDArray[np.float64]]:
        logits = score_solutions(self.model, self.tokenizer, solutions, text=MATH.text)
        return [step_probabilities(np.array(row)) for row in logits]

    def close(self) -> None:
        pass


def whole(scorer: InMemory, records: Sequence[dict[str, Any]]) -> Callable[[], Scores]:
    """The scores as `e2h score` makes them."""

    def run() -> Scores:
        batches = score_lines(enumerate(records), "file", scorer, MATH, "")
        return [record[STEP_SCORES] for batch in batches for _, record in batch]

    return run


def step_by_step(model: Any, tokenizer: Any, records: Sequence[dict[str, Any]]) -> Callable[[], Scores]:
    """The same scores, a forward pass for each step, with the model's own head on its last token."""
    import torch

    asked = [step_line(i, record, "file", MATH).asked[0] for i, record in enumerate(records)]

    def run() -> Scores:
        found = []
        for one in asked:
            encoded = encode_for(model, tokenizer, (one.question, one.completion, one.finished), MATH.text)
            prefixes = [torch.tensor([encoded.input_ids[: end + 1]]) for end in encoded.segment_ends]
            with torch.inference_mode():
                logits = [model(input_ids=prefix).logits[0, -1, 0] for prefix in prefixes]
            found.append(one.by_step([float(logit.float().sigmoid()) for logit in logits]))
        return found

    return run


if __name__ == "__main__":
    main()
