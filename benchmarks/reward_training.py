"""Tokens per second of evaluator training: ours, grouped by length and packed, next to plain
transformers.Trainer.

    python benchmarks/reward_training.py [--repeats 3] [--device cpu|cuda] [--model-size tiny|0.5b|1b] [--quick]

All three train the same random Llama from the same weights on the same solutions, with the same
batch and micro-batch sizes, the same optimizer and the same loss (binary cross-entropy at step
ends):

    plain     transformers.Trainer as its users set it up: random order, each micro-batch padded to its longest row
    grouped   our trainer, padded, solutions of similar length together
    packed    our trainer, the solutions of a micro-batch in one row, attention within each

Lengths are lognormal with the mean of MATH solutions, 311 tokens. With them, random micro-batches
of 8 waste about half their positions, as on MATH. Only tokens of solutions count, not padding. Time
runs from the first forward pass to the last update, after a warm-up run; medians over repeats,
contenders in turn.

The share of the physical limit is the needed floating point operations per second (6 per weight and
token, and causal attention), over the rate of a large matrix product measured in this run.

Packing must not change the loss. `loss_difference` is the largest difference between packed and
padded micro-batches of the first update, at the starting weights, in float32. `curve_difference` is
the largest difference between the timed runs (bf16 on a GPU). `naive_difference`, for contrast, is
that of packed rows with restarting positions and the model's own attention. A table for people,
then one JSON line.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Of a solution; SPREAD is the standard deviation of the logarithm.
MEAN_TOKENS, SPREAD, LONGEST = 311, 0.8, 1024
STEP_TOKENS = 40  # tokens per label
TARGET = 1.5  # times plain
LOSS_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Size:
    """A Llama, and the amount of training data."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    inner: int
    vocabulary: int
    solutions: int
    batch: int
    micro_batch: int


SIZES = {
    "tiny": Size(128, 3, 4, 4, 352, 512, 64, 32, 8),
    "0.5b": Size(1024, 24, 16, 16, 4096, 32000, 1024, 128, 32),
    "1b": Size(2048, 16, 32, 8, 8192, 128256, 512, 128, 16),
}


@dataclass
class Timing:
    """One run of one contender; `losses` are per micro-batch and add up to those of updates."""

    seconds: float
    losses: list[Any]


def main() -> None:
    """Run everything and print."""
    options = _options()
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    size = SIZES[options.model_size]
    examples = make_examples(size, options.seed)
    model = make_model(size, options)
    start = copy.deepcopy(model.state_dict())
    contenders = {"plain": run_plain, "grouped": run_grouped, "packed": run_packed}
    timings: dict[str, list[Timing]] = {name: [] for name in contenders}
    rate = 0.0
    with tempfile.TemporaryDirectory() as work:
        for repeat in range(options.repeats + 1):
            for name, run in contenders.items():
                model.load_state_dict(start)
                shutil.rmtree(work, ignore_errors=True)
                timing = run(
                    model, examples if repeat else examples[: size.batch], size, Path(work), options.seed
                )
                if repeat:  # the first was the warm-up
                    timings[name].append(timing)
            rate = max(rate, matrix_rate(options.device))
    model.load_state_dict(start)
    differences = loss_differences(model, examples, size)
    report(timings, examples, size, model, rate, differences, options)


def _options() -> argparse.Namespace:
    import torch

    parser = argparse.ArgumentParser(description="Throughput of evaluator training.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--model-size", choices=list(SIZES), default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one repeat")
    options = parser.parse_args()
    if options.quick:
        options.repeats = 1
    return options


# ---- data and model -------------------------------------------------------------------------------------


def make_examples(size: Size, seed: int) -> list[dict[str, list[float]]]:
    """Solutions of MATH-like lengths with random tokens and step labels."""
    from e2h_pipeline.training.next_token import IGNORED

    rng = random.Random(seed)
    center = _log_center()
    examples = []
    for _ in range(size.solutions):
        length = min(LONGEST, max(16, round(rng.lognormvariate(center, SPREAD))))
        labels = [float(IGNORED)] * length
        for end in range(STEP_TOKENS - 1, length - 1, STEP_TOKENS):
            labels[end] = float(rng.random() < 0.7)
        labels[-1] = float(rng.random() < 0.5)
        examples.append(
            {"input_ids": [rng.randrange(size.vocabulary) for _ in range(length)], "labels": labels}
        )
    return examples


def _log_center() -> float:
    """The center of a lognormal with this mean: mean = exp(center + spread^2 / 2)."""
    import math

    return math.log(MEAN_TOKENS) - SPREAD**2 / 2


def make_model(size: Size, options: argparse.Namespace) -> Any:
    """A random Llama with a scalar head, in float32 (bf16 autocast on a GPU, as in our stages)."""
    import torch
    from transformers import LlamaConfig, LlamaForTokenClassification

    torch.manual_seed(options.seed)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        max_position_embeddings=LONGEST,
        num_labels=1,
        classifier_dropout=0.0,
        pad_token_id=0,
    )
    return LlamaForTokenClassification(config).to(options.device).train()


# ---- contenders -----------------------------------------------------------------------------------------


def run_plain(model: Any, examples: Sequence[Mapping[str, Any]], size: Size, work: Path, seed: int) -> Timing:
    """transformers.Trainer with a padding collator."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from e2h_pipeline.rewards.kinds.stepwise import step_loss
    from e2h_pipeline.training.batches import collate

    timing = Timing(0.0, [])
    began = 0.0

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            nonlocal began
            began = began or time.perf_counter()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in (logs or {}):
                timing.seconds = time.perf_counter() - began

    def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        found = step_loss(outputs.logits, labels, num_items_in_batch)
        timing.losses.append(found.detach())
        return found

    cuda = torch.cuda.is_available()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(work),
            num_train_epochs=1,
            per_device_train_batch_size=size.micro_batch,
            gradient_accumulation_steps=size.batch // size.micro_batch,
            learning_rate=1e-4,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": 0.01},
            seed=seed,
            logging_steps=1,
            save_strategy="no",
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to=[],
            use_cpu=not cuda,
            bf16=cuda,
        ),
        train_dataset=examples,
        data_collator=collate(0, packing=False),
        compute_loss_func=loss,
        callbacks=[Clock()],
    )
    _quiet(trainer)
    trainer.train()
    return timing


def run_grouped(
    model: Any, examples: Sequence[Mapping[str, Any]], size: Size, work: Path, seed: int
) -> Timing:
    """Our trainer, padded."""
    return _run_ours(model, examples, size, work, seed, packing=False)


def run_packed(
    model: Any, examples: Sequence[Mapping[str, Any]], size: Size, work: Path, seed: int
) -> Timing:
    """Our trainer, packed."""
    return _run_ours(model, examples, size, work, seed, packing=True)


def _run_ours(
    model: Any, examples: Sequence[Mapping[str, Any]], size: Size, work: Path, seed: int, packing: bool
) -> Timing:
    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.rewards.kinds.stepwise import step_objective
    from e2h_pipeline.training.trainer import Settings, train

    timing = Timing(0.0, [])
    began = 0.0

    class Clock(Reporter):
        def metrics(self, values: Mapping[str, float], step: int) -> None:
            timing.seconds = time.perf_counter() - began

        def progress(self, done: int, total: int, unit: str) -> None:
            pass

    def timed(model: Any, batch: dict[str, Any], step: Any) -> Any:
        nonlocal began
        began = began or time.perf_counter()
        loss = step_objective(model, batch, step)
        timing.losses.append(loss.detach())
        return loss

    settings = Settings(
        epochs=1,
        batch_size=size.batch,
        micro_batch_size=size.micro_batch,
        learning_rate=1e-4,
        warmup=0,
        seed=seed,
        checkpoints=1,  # only after the last update, outside the timed part
        packing=packing,
    )
    train(model, examples, timed, settings, 0, Work(work, work, reporter=Clock()))
    return timing


def _quiet(trainer: Any) -> None:
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)


def loss_differences(model: Any, examples: Sequence[Mapping[str, Any]], size: Size) -> tuple[float, float]:
    """Largest difference of a micro-batch's mean loss to the padded one, in float32: packed,
    naively packed."""
    from e2h_pipeline.training.batches import collate, packed_attention

    ours, naive = [], []
    for start in range(0, size.batch, size.micro_batch):
        rows = examples[start : start + size.micro_batch]
        packed = collate(0, packing=True)(rows)
        padded = _mean_loss(model, collate(0, packing=False)(rows))
        with packed_attention(model):
            ours.append(abs(_mean_loss(model, packed) - padded))
        whole = {k: v for k, v in packed.items() if k != "document_lengths"}
        whole["attention_mask"] = (packed["input_ids"] >= 0).long()
        naive.append(abs(_mean_loss(model, whole) - padded))
    return max(ours), max(naive)


def _mean_loss(model: Any, batch: Mapping[str, Any]) -> float:
    import torch

    from e2h_pipeline.rewards.kinds.stepwise import step_loss
    from e2h_pipeline.training.batches import run_model
    from e2h_pipeline.training.next_token import IGNORED

    placed = {
        name: value.to(model.device) if hasattr(value, "to") else value for name, value in batch.items()
    }
    with torch.no_grad():
        logits = run_model(model, placed).logits
    return step_loss(logits, placed["labels"], (placed["labels"] != IGNORED).sum()).item()


# ---- the limit ------------------------------------------------------------------------------------------


def matrix_rate(device: str) -> float:
    """Floating point operations per second of a large matrix product: best of five, in training's
    precision."""
    import torch

    width, kind = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    left, right = (torch.randn(width, width, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * width**3 / best


def needed_operations(model: Any, examples: Sequence[Mapping[str, Any]], size: Size) -> float:
    """Operations of forward and backward passes over solutions, without padding and the embedding.

    6 per weight and token. Attention: 3 x 2 x length^2 x hidden per layer, two products with half
    of each masked.
    """
    embedding = model.get_input_embeddings().weight.numel()
    weights = sum(p.numel() for p in model.parameters()) - embedding
    lengths = [len(example["input_ids"]) for example in examples]
    attention = 6 * size.layers * size.hidden * sum(length**2 for length in lengths)
    return 6 * weights * sum(lengths) + attention


# ---- report ---------------------------------------------------------------------------------------------


def report(
    timings: Mapping[str, Sequence[Timing]],
    examples: Sequence[Mapping[str, Any]],
    size: Size,
    model: Any,
    rate: float,
    differences: tuple[float, float],
    options: argparse.Namespace,
) -> None:
    """A table and one JSON line."""
    import torch

    tokens = sum(len(example["input_ids"]) for example in examples)
    operations = needed_operations(model, examples, size)
    seconds = {name: statistics.median(t.seconds for t in runs) for name, runs in timings.items()}
    passes = size.batch // size.micro_batch
    losses = {
        name: [float(sum(runs[0].losses[i : i + passes])) for i in range(0, len(runs[0].losses), passes)]
        for name, runs in timings.items()
    }
    curves = zip(losses["grouped"], losses["packed"], strict=True)
    print(f"{len(examples)} solutions, {tokens:,} tokens; {options.model_size} model on {options.device}")
    print(
        f"{'':10}{'seconds':>9}{'tokens/s':>12}{'times plain':>13}{'of matmul':>11}{'first loss':>12}{'last':>9}"
    )
    for name, curve in losses.items():
        share = operations / seconds[name] / rate
        print(
            f"{name:10}{seconds[name]:9.2f}{tokens / seconds[name]:12,.0f}"
            f"{seconds['plain'] / seconds[name]:13.2f}{share:11.1%}"
            f"{curve[0]:12.5f}{curve[-1]:9.5f}"
        )
    print(
        f"matrix product: {rate / 1e9:,.0f} GFLOP/s; loss difference of packing {differences[0]:.1e} "
        f"(naive packing {differences[1]:.1e})"
    )
    best = seconds["plain"] / min(seconds["grouped"], seconds["packed"])
    print(f"target {TARGET} times plain: {'met' if best >= TARGET else 'missed'} ({best:.2f})")
    result = {
        "benchmark": "reward_training",
        "device": options.device,
        "model_size": options.model_size,
        "torch": torch.__version__,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "solutions": len(examples),
        "tokens": tokens,
        "repeats": options.repeats,
        "seconds": seconds,
        "tokens_per_second": {name: tokens / s for name, s in seconds.items()},
        "times_plain": {name: seconds["plain"] / s for name, s in seconds.items()},
        "share_of_matrix_rate": {name: operations / s / rate for name, s in seconds.items()},
        "matrix_gflops": rate / 1e9,
        "loss_difference": differences[0],
        "naive_difference": differences[1],
        "curve_difference": max(abs(a - b) for a, b in curves),
        "loss_equal": differences[0] <= LOSS_TOLERANCE,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
