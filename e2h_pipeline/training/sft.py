"""Supervised fine-tuning of the policy on easy solutions (paper section 3.2, appendix C.1).

Loss on the completion only; the end-of-sequence token is part of it, because a policy that is not
taught to stop gets no answer graded.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.solutions import encode, format_completion
from e2h_pipeline.training.objectives import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.recipe import Sft
    from e2h_pipeline.reporter import Reporter


def train_sft(
    base: Path, easy_problems: Path, out: Path, work: Path, options: Sft, seed: int, reporter: Reporter
) -> dict[str, Any]:
    """Fine-tune the model in `base` on easy training solutions and save it to `out`.

    Returns counts of problems used and dropped for length, and the training summary.
    """
    from transformers import set_seed

    from e2h_pipeline.models.base import save_model
    from e2h_pipeline.models.load import load_policy
    from e2h_pipeline.training.objectives import next_token_loss
    from e2h_pipeline.training.trainer import CURVES, Settings, train

    set_seed(seed)
    model, tokenizer = load_policy(base)
    rows = [row for row in read_table(easy_problems / "data.parquet").to_pylist() if row["split"] == "train"]
    random.Random(f"sft/{seed}").shuffle(rows)
    examples = [sft_example(tokenizer, row) for row in rows[: options.problems]]
    kept = [example for example in examples if len(example["input_ids"]) <= options.max_tokens]
    summary = train(
        model.train(),
        kept,
        lambda model, batch, total: next_token_loss(
            model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
            ).logits,
            batch["labels"],
            total,
        ),
        Settings.of(options, seed),
        pad_id=tokenizer.pad_token_id,
        work=work,
        reporter=reporter,
        curves=out / CURVES,
    )
    save_model(model, tokenizer, out)
    return {"problems": len(kept), "dropped_for_length": len(examples) - len(kept), **summary}


def sft_example(tokenizer: PreTrainedTokenizerBase, problem: Mapping[str, Any]) -> dict[str, Sequence[int]]:
    """One solution as token ids and labels; the prompt carries no loss."""
    completion = format_completion(problem["steps"], problem["answer"])
    encoded = encode(tokenizer, problem["question"], completion)
    ids = encoded.input_ids
    return {"input_ids": ids, "labels": (*[IGNORED] * encoded.prompt_tokens, *ids[encoded.prompt_tokens :])}
