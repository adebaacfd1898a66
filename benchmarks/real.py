"""Tokens a second of a real pretrained model as an evaluator: training and scoring, beside plain ways.

    python benchmarks/real.py MODEL_FOLDER [--solutions 48] [--epochs 3] [--frozen 20] [--threads 1]

Data: PRM800K's human labels in E2H_DATA_DIR/steps. Training is `rewards.train`'s, with all weights,
with frozen layers, with frozen layers computed once, and with LoRA above them; the peer is
transformers' own Trainer with the same frozen layers, loss, batches and number format, its padding
and its order. Scoring is `score_solutions`; the peer reads every step's prefix in a forward pass of
its own, as several published evaluations do. Seconds are processor seconds, so other jobs on the
machine disturb little; tokens are those of the solutions, once for each epoch.

A table for people, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.models.load import new_evaluator
from e2h_pipeline.problems.math.prm800k import read_prm800k
from e2h_pipeline.recipe import PrmReward, RewardTraining
from e2h_pipeline.rewards.examples import encode_row, step_example
from e2h_pipeline.rewards.kinds.stepwise import step_loss
from e2h_pipeline.rewards.scoring import score_encoded, score_solutions
from e2h_pipeline.rewards.train import train_reward_model
from e2h_pipeline.solutions import MARKED, SEPARATOR, EncodedSolution
from e2h_pipeline.training.adapters import freeze_layers

BATCH, MICRO, RATE = 16, 4, 1e-4
Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--solutions", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--frozen", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(options.threads)
    rows = labelled(options.solutions)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    tokens = sum(len(step_example(tokenizer, row)["input_ids"]) for row in rows)
    common = {
        "epochs": options.epochs,
        "batch_size": BATCH,
        "micro_batch_size": MICRO,
        "learning_rate": RATE,
        "mixed_precision": True,
    }
    frozen = {"frozen_layers": options.frozen}
    ways: dict[str, Callable[[Path], None]] = {
        "all weights": lambda folder: ours(options.model, folder, rows, common),
        "frozen layers": lambda folder: ours(options.model, folder, rows, {**common, **frozen}),
        "frozen, computed once": lambda folder: ours(
            options.model, folder, rows, {**common, **frozen, "cache_frozen": True}
        ),
        "LoRA above frozen, computed once": lambda folder: ours(
            options.model, folder, rows, {**common, **frozen, "cache_frozen": True, "lora_rank": 16}
        ),
        "Trainer, frozen layers": lambda folder: plain_trainer(
            options.model, folder, rows, options.epochs, options.frozen
        ),
    }
    found = {name: rate(way, tokens * options.epochs) for name, way in ways.items()}
    found |= scoring(options.model, rows)
    print(
        f"{len(rows)} solutions, {tokens:,} tokens, {options.epochs} epochs, {options.frozen} layers frozen"
    )
    for name, value in found.items():
        print(f"  {name:34}{value:10,.0f} tokens/s")
    ratio = found["frozen, computed once"] / found["Trainer, frozen layers"]
    print(f"computed once against plain Trainer: {ratio:.2f} times; peak memory of all: {peak():.1f} GiB")
    line = {"benchmark": "real", "model": options.model.name, "tokens": tokens, "tokens_per_second": found}
    print(json.dumps({**line, "frozen": options.frozen, "epochs": options.epochs, "peak_gib": peak()}))


def labelled(count: int) -> Rows:
    """Rows of step labels: rated solutions of PRM800K, each text once."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for solution in read_prm800k().solutions:
        found.setdefault(
            solution.steps,
            {
                "problem_id": str(solution.unique_id),
                "split": "train",
                "question": solution.question,
                "completion": SEPARATOR.join(solution.steps) + SEPARATOR,
                "labels": [float(rating >= 0) for rating in solution.ratings if rating is not None],
                "finished": False,
            },
        )
    whole = (
        row for row in found.values() if len(MARKED.parse(row["completion"]).spans) == len(row["labels"])
    )
    return sorted(whole, key=lambda row: row["completion"])[:count]


def ours(model: Path, folder: Path, rows: Rows, training: dict[str, Any]) -> None:
    write_table(folder / "labels" / "data.parquet", pa.Table.from_pylist(rows))
    options = PrmReward(training=RewardTraining(**training))
    work = Work(folder / "out", folder / "work", 0)
    train_reward_model(model, {"steps": folder / "labels"}, options, MARKED, work)


def plain_trainer(model: Path, folder: Path, rows: Rows, epochs: int, frozen: int) -> None:
    """transformers' Trainer as its documentation has it."""
    import torch
    from transformers import DataCollatorForTokenClassification, Trainer, TrainingArguments

    evaluator, tokenizer = new_evaluator(model)
    freeze_layers(evaluator.float(), frozen)
    examples = [step_example(tokenizer, row) for row in rows]

    class StepTrainer(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            labels = inputs.pop("labels")
            return step_loss(model(**inputs).logits, labels, (labels != -100).sum())

    StepTrainer(
        model=evaluator,
        args=TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=epochs,
            per_device_train_batch_size=MICRO,
            gradient_accumulation_steps=BATCH // MICRO,
            learning_rate=RATE,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        ),
        train_dataset=examples,
        data_collator=DataCollatorForTokenClassification(tokenizer),
    ).train()


def scoring(model: Path, rows: Rows) -> dict[str, float]:
    """Tokens a second of scoring, ours and one pass per step; equal scores are required."""
    evaluator, tokenizer = new_evaluator(model)
    evaluator.score.weight.data.normal_()
    solutions = [(row["question"], row["completion"], row["finished"]) for row in rows]
    encoded = [encode_row(tokenizer, row) for row in rows]
    tokens = sum(len(e.input_ids) for e in encoded)
    scores: dict[str, Sequence[Sequence[float]]] = {}

    def whole(_: Path) -> None:
        scores["ours"] = score_solutions(evaluator, tokenizer, solutions)

    def step_by_step(_: Path) -> None:
        scores["plain"] = [
            [
                score_encoded(evaluator, [EncodedSolution(e.input_ids[: end + 1], e.prompt_tokens, (end,))])[
                    0
                ][0]
                for end in e.segment_ends
            ]
            for e in encoded
        ]

    found = {"scoring": rate(whole, tokens), "scoring, a pass per step": rate(step_by_step, tokens)}
    gap = max(abs(a - b) for x, y in zip(*scores.values(), strict=True) for a, b in zip(x, y, strict=True))
    print(f"largest difference of scores: {gap:.3f}")
    return found


def rate(way: Callable[[Path], None], tokens: int) -> float:
    """Tokens per processor second."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        way(Path(folder))
        return tokens / (time.process_time() - start)


def peak() -> float:
    """Largest resident memory of this process, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
