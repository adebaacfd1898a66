"""How fast an evaluator scores solutions, next to two published ways.

    python benchmarks/scoring.py [--device cuda] [--repeats 3] [--seed 0] [--problems 6] [--samples 8]

Same random weights, same solutions, one run:

- `ours`: `rewards.scoring`, and `ours, no shared prompt`;
- `one forward per step`: a forward pass per step over everything before it, batch of one (as in
  RLHFlow's evaluation);
- `unsorted padding`: one forward pass per solution, batches of 16 in the pool's order, padded to
  their longest, the head on every token (as in search-and-learn).

Lengths follow PRM800K test solutions (300 of them, in MR-MATH): 10.0 steps of 93 characters,
logarithms with standard deviations 0.43 and 0.62, questions of 159 characters, at 3 characters per
token; two thirds of the spread in steps is within a problem. The share of the matrix-multiply rate
counts each solution's tokens once (and a problem's prompt once), so padding and repeated work lower
it. The rate is measured on the model's own largest product, best of several, in the same run.
Rounds go through all ways in turn. Times are medians: of seconds on a GPU; on a CPU of processor
seconds, which depend less on other processes. `computed` counts all tokens that went through the
model, with padding and repeats. On a CPU large batches lose more than their padding, because they
do not fit the cache.

A table for people, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from e2h_pipeline.rewards.scoring import score_all
from e2h_pipeline.solutions import EncodedSolution

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TARGET_PER_STEP = 5.0
TARGET_UNSORTED = 2.0
TARGET_SHARE_GPU = 0.5
TOLERANCE = 1e-4  # float32
UNSORTED_BATCH = 16
CHARACTERS_PER_TOKEN = 3

Scores = list[list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--problems", type=int, default=6)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--batch-tokens", type=int, help="65536 on a GPU, 4096 on a CPU where unset")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args()
    report(options, *measure(options))


def measure(
    options: argparse.Namespace,
) -> tuple[
    PreTrainedModel, list[EncodedSolution], dict[str, list[float]], dict[str, Scores], dict[str, int], float
]:
    """The model, the solutions; of each way the seconds of every round, the scores and the tokens
    computed; FLOP/s of a product."""
    import torch

    torch.set_num_threads(options.threads)
    model = make_model(options.device, options.seed)
    solutions = make_solutions(options.problems, options.samples, model.config.vocab_size, options.seed)
    budget = options.batch_tokens or (65536 if options.device == "cuda" else 4096)
    ways: dict[str, Callable[[], Scores]] = {
        "ours": lambda: score_all(model, solutions, budget),
        "ours, no shared prompt": lambda: score_all(model, solutions, budget, share_prompts=False),
        "unsorted padding": lambda: score_unsorted(model, solutions),
        "one forward per step": lambda: score_per_step(model, solutions),
    }
    score_all(model, solutions[: 2 * options.samples], budget)  # warm up
    score_unsorted(model, solutions[:UNSORTED_BATCH])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores: dict[str, Scores] = {}
    computed = dict.fromkeys(ways, 0)
    running = ""

    def count(module: Any, args: Any) -> None:
        computed[running] += args[0].numel()

    model.get_input_embeddings().register_forward_pre_hook(count)
    rates = []
    clock = clock_of(options.device)
    for _ in range(options.repeats):
        rates.append(matmul_rate(model))
        for name, way in ways.items():
            running, computed[name] = name, 0
            start = clock()
            scores[name] = way()  # ends with scores in Python, so the device is done
            seconds[name].append(clock() - start)
    return model, solutions, seconds, scores, computed, max(rates)


def clock_of(device: str) -> Callable[[], float]:
    """Processor time on a CPU, wall time on a GPU."""
    return time.perf_counter if device == "cuda" else time.process_time


def make_model(device: str, seed: int) -> PreTrainedModel:
    """A Llama evaluator with random weights: 1.1 B parameters in bfloat16 on a GPU, 1.6 M in
    float32 on a CPU."""
    import torch
    from transformers import LlamaConfig, LlamaForTokenClassification

    large = device == "cuda"
    torch.manual_seed(seed)
    model = LlamaForTokenClassification(
        LlamaConfig(
            vocab_size=32000 if large else 512,
            hidden_size=2048 if large else 256,
            intermediate_size=5632 if large else 768,
            num_hidden_layers=22 if large else 2,
            num_attention_heads=16 if large else 4,
            max_position_embeddings=8192,
            num_labels=1,
            classifier_dropout=0.0,
        )
    )
    torch.nn.init.normal_(model.score.weight, std=0.1)
    return model.to(device, torch.bfloat16 if large else torch.float32).eval()


def make_solutions(problems: int, samples: int, vocabulary: int, seed: int) -> list[EncodedSolution]:
    """Random tokens with the lengths of PRM800K test solutions, in the order of a pool."""
    rng = np.random.default_rng(seed)
    solutions = []
    for _ in range(problems):
        question = 12 + round(rng.lognormal(np.log(132), 0.63) / CHARACTERS_PER_TOKEN)
        prompt = rng.integers(0, vocabulary, question).tolist()
        usual = rng.normal(0, 0.43 * (1 / 3) ** 0.5)
        for _ in range(samples):
            steps = max(1, round(9.1 * np.exp(usual + rng.normal(0, 0.43 * (2 / 3) ** 0.5))))
            lengths = (
                np.maximum(2, rng.lognormal(np.log(79), 0.62, steps) / CHARACTERS_PER_TOKEN)
                .round()
                .astype(int)
            )
            ids = (*prompt, *rng.integers(0, vocabulary, int(lengths.sum())).tolist())
            ends = (question + np.cumsum(lengths) - 1).tolist()
            solutions.append(EncodedSolution(ids, question, tuple(ends)))
    return solutions


def score_per_step(model: PreTrainedModel, solutions: Sequence[EncodedSolution]) -> Scores:
    """A forward pass for each step, batch of one."""
    import torch

    with torch.inference_mode():
        return [
            [
                model(input_ids=torch.tensor([s.input_ids[: end + 1]], device=model.device), use_cache=False)
                .logits[0, -1, 0]
                .item()
                for end in s.segment_ends
            ]
            for s in solutions
        ]


def score_unsorted(model: PreTrainedModel, solutions: Sequence[EncodedSolution]) -> Scores:
    """Batches in the order given, padded to the longest, with a mask; the head on every token."""
    import torch

    found: Scores = []
    with torch.inference_mode():
        for start in range(0, len(solutions), UNSORTED_BATCH):
            batch = solutions[start : start + UNSORTED_BATCH]
            longest = max(len(s.input_ids) for s in batch)
            ids = [[*s.input_ids, *[0] * (longest - len(s.input_ids))] for s in batch]
            mask = [[1] * len(s.input_ids) + [0] * (longest - len(s.input_ids)) for s in batch]
            logits = model(
                input_ids=torch.tensor(ids, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                use_cache=False,
            ).logits[..., 0]
            rows = logits.float().cpu()
            found += [rows[i, list(s.segment_ends)].tolist() for i, s in enumerate(batch)]
    return found


def matmul_rate(model: PreTrainedModel, tokens: int = 4096, tries: int = 5) -> float:
    """FLOP/s of the model's largest product, (tokens, hidden) x (hidden, intermediate); best of
    `tries`."""
    import torch

    width, inner = model.config.hidden_size, model.config.intermediate_size
    a, b = (
        torch.randn(shape, dtype=model.dtype, device=model.device)
        for shape in ((tokens, width), (width, inner))
    )
    best, clock = float("inf"), clock_of(model.device.type)
    for _ in range(tries):
        start = clock()
        (a @ b)[0, 0].item()
        best = min(best, clock() - start)
    return 2 * tokens * width * inner / best


def useful_flops(model: PreTrainedModel, solutions: Sequence[EncodedSolution]) -> float:
    """Operations that every way needs: each solution's completion, and each problem's prompt once.

    2 per weight and token outside embedding and head, and 4 x width per pair of tokens in
    attention.
    """
    weights = sum(p.numel() for p in model.base_model.layers.parameters())
    pairwise = 4 * model.config.hidden_size * model.config.num_hidden_layers
    prompts = {s.input_ids[: s.prompt_tokens] for s in solutions}
    runs = [(0, len(p)) for p in prompts] + [(s.prompt_tokens, len(s.input_ids)) for s in solutions]
    attended = sum((stop * (stop + 1) - start * (start + 1)) / 2 for start, stop in runs)
    return 2 * weights * sum(stop - start for start, stop in runs) + pairwise * attended


def report(
    options: argparse.Namespace,
    model: PreTrainedModel,
    solutions: Sequence[EncodedSolution],
    seconds: dict[str, list[float]],
    scores: dict[str, Scores],
    computed: dict[str, int],
    rate: float,
) -> None:
    """The table, the targets, the JSON line.

    Raises:
        SystemExit: the ways' scores differ by more than the tolerance in float32.
    """
    flops, tokens = useful_flops(model, solutions), sum(len(s.input_ids) for s in solutions)
    flat = {name: np.concatenate([np.array(row) for row in found]) for name, found in scores.items()}
    rows: list[dict[str, Any]] = [
        {
            "way": name,
            "seconds": statistics.median(times),
            "computed_tokens": computed[name],
            "tokens_per_second": tokens / statistics.median(times),
            "share_of_matmul_rate": flops / statistics.median(times) / rate,
            "ours_is": statistics.median(times) / statistics.median(seconds["ours"]),
            "largest_difference": float(np.abs(flat[name] - flat["one forward per step"]).max()),
        }
        for name, times in seconds.items()
    ]
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"{len(solutions)} solutions of {options.problems} problems, {sum(map(len, scores['ours'])):,} steps, "
        f"{tokens:,} tokens; {parameters / 1e6:,.1f} M parameters, {model.dtype}, {options.device}; "
        f"matrix product {rate / 1e9:,.1f} GFLOP/s; scores spread {flat['ours'].std():.3f}"
    )
    print(
        f"{'way':26}{'seconds':>9}{'computed':>10}{'tokens/s':>12}{'of matmul':>11}{'ours is':>9}{'difference':>12}"
    )
    for row in rows:
        print(
            f"{row['way']:26}{row['seconds']:9.3f}{row['computed_tokens']:10,}{row['tokens_per_second']:12,.0f}"
            f"{row['share_of_matmul_rate']:11.1%}{row['ours_is']:8.2f}x{row['largest_difference']:12.1e}"
        )
    found = {row["way"]: row for row in rows}
    targets = {
        "times_one_forward_per_step": (found["one forward per step"]["ours_is"], TARGET_PER_STEP),
        "times_unsorted_padding": (found["unsorted padding"]["ours_is"], TARGET_UNSORTED),
    }
    if options.device == "cuda":
        targets["share_of_matmul_rate"] = (found["ours"]["share_of_matmul_rate"], TARGET_SHARE_GPU)
    for name, (value, target) in targets.items():
        print(f"{name}: {value:.2f}, target at least {target:g}: {'met' if value >= target else 'MISSED'}")
    line = {
        "benchmark": "scoring",
        "device": options.device,
        "seed": options.seed,
        "repeats": options.repeats,
        "threads": options.threads,
        "cpus": len(os.sched_getaffinity(0)),
        "solutions": len(solutions),
        "tokens": tokens,
        "parameters": parameters,
        "dtype": str(model.dtype),
        "matmul_flops_per_second": rate,
        "ways": rows,
        "targets": {name: {"value": value, "target": target} for name, (value, target) in targets.items()},
    }
    print(json.dumps(line))
    worst = max(row["largest_difference"] for row in rows)
    if str(model.dtype) == "torch.float32" and worst > TOLERANCE:
        raise SystemExit(f"scores differ by {worst:.1e}, more than {TOLERANCE:g}")


if __name__ == "__main__":
    main()
