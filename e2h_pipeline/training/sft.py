"""Supervised fine-tuning of the policy on easy solutions (paper section 3.2, appendix C.1).

Loss on the completion only, and of that on the segments that are to be learned; the end-of-sequence token is part of
it, because a policy that is not taught to stop gets no answer graded.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.solutions import encode
from e2h_pipeline.training.next_token import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.recipe import Sft


def train_sft(
    base: Path, easy_solutions: Path, out: Path, work: Path, options: Sft, seed: int, reporter: Reporter
) -> dict[str, Any]:
    """Fine-tune the model in `base` on the solutions of `easy_solutions` and save it to `out`.

    Returns counts of problems and solutions used and of solutions dropped for length, and the training summary.
    """
    from transformers import set_seed

    from e2h_pipeline.models.base import save_model
    from e2h_pipeline.models.load import load_policy
    from e2h_pipeline.training.next_token import next_token_loss
    from e2h_pipeline.training.trainer import CURVES, Settings, train

    set_seed(seed)
    model, tokenizer = load_policy(base)
    rows = read_table(easy_solutions / "data.parquet").to_pylist()
    random.Random(f"sft/{seed}").shuffle(rows)
    wanted = set(list(dict.fromkeys(row["problem_id"] for row in rows))[: options.problems])
    rows = [row for row in rows if row["problem_id"] in wanted]
    encoded = [(row["problem_id"], sft_example(tokenizer, row)) for row in rows]
    kept = [(name, example) for name, example in encoded if len(example["input_ids"]) <= options.max_tokens]
    summary = train(
        model.train(),
        [example for _, example in kept],
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
    return {
        "problems": len({name for name, _ in kept}),
        "solutions": len(kept),
        "dropped_for_length": len(encoded) - len(kept),
        **summary,
    }


def sft_example(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any]) -> dict[str, Sequence[int]]:
    """One solution as token ids and labels. Prompt and segments that are not to be learned carry no loss; the
    end-of-sequence token is learned with the last segment.

    Args:
        row: `question`, `completion`, `learned` (a flag per segment) and `finished` of `easy_solutions`.
    """
    encoded = encode(tokenizer, row["question"], row["completion"], finished=row["finished"])
    ids, labels = encoded.input_ids, [IGNORED] * len(encoded.input_ids)
    start = encoded.prompt_tokens
    for end, learned in zip(encoded.segment_ends, row["learned"], strict=True):
        if learned:
            labels[start : end + 1] = ids[start : end + 1]
        start = end + 1
    if row["finished"] and row["learned"][-1]:
        labels[start:] = ids[start:]
    # Arrays, not tuples of ints: MetaMathQA has some hundred million tokens.
    return {"input_ids": array("i", ids), "labels": array("i", labels)}
