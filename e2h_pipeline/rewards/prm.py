"""Train the process reward model: a scalar head on step ends, binary cross-entropy (paper 3.3).

The head is a `*ForTokenClassification` with one label, so that `from_pretrained` and vLLM's pooling
runner serve it. Its quality on easy validation problems is measured here; no hard label is near.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.rewards.scoring import HEADING_FIELD, score_solutions
from e2h_pipeline.solutions import QUESTION_HEADING, encode
from e2h_pipeline.training.objectives import IGNORED, step_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.recipe import RewardTraining
    from e2h_pipeline.reporter import Reporter


def train_prm(
    init: Path, labels: Path, out: Path, work: Path, options: RewardTraining, seed: int, reporter: Reporter
) -> dict[str, Any]:
    """Train an evaluator from the causal LM in `init` on labelled solutions; save it to `out`."""
    from transformers import set_seed

    from e2h_pipeline.models.base import save_model
    from e2h_pipeline.models.load import load_evaluator
    from e2h_pipeline.training.trainer import Settings, train

    set_seed(seed)
    model, tokenizer = load_evaluator(init)
    setattr(model.config, HEADING_FIELD, options.heading)
    model.score.weight.data.zero_()
    freeze_layers(model, options.frozen_layers)
    rows = read_table(labels / "data.parquet").to_pylist()
    examples = [prm_example(tokenizer, row, options.heading) for row in rows if row["split"] == "train"]
    kept = [
        e
        for e in examples
        if len(e["input_ids"]) <= options.max_tokens and any(x != IGNORED for x in e["labels"])
    ]
    summary = train(
        model.train(),
        kept,
        lambda model, batch, total: step_loss(
            model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits,
            batch["labels"],
            total,
        ),
        Settings.of(options, seed),
        pad_id=tokenizer.pad_token_id,
        work=work,
        reporter=reporter,
    )
    save_model(model, tokenizer, out)
    return {
        "solutions": len(kept),
        "dropped": len(examples) - len(kept),
        **summary,
        **validate(model.eval(), tokenizer, [row for row in rows if row["split"] == "validation"]),
    }


def prm_example(
    tokenizer: PreTrainedTokenizerBase, row: dict[str, Any], heading: str = QUESTION_HEADING
) -> dict[str, Sequence[float]]:
    """A labelled solution as token ids and labels: 1.0 or 0.0 at labelled segment ends, -100 elsewhere."""
    encoded = encode(tokenizer, row["question"], row["completion"], finished=row["finished"], heading=heading)
    labels = [float(IGNORED)] * len(encoded.input_ids)
    for end, label in zip(encoded.segment_ends, row["labels"], strict=True):
        if label >= 0:
            labels[end] = float(label)
    return {"input_ids": encoded.input_ids, "labels": labels}


def freeze_layers(model: PreTrainedModel, layers: int) -> None:
    """Keep the embedding and the lowest `layers` decoder layers as they are; 0 freezes nothing."""
    if layers == 0:
        return
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    frozen = [decoder.get_input_embeddings(), *decoder.layers[:layers]]
    for module in frozen:
        module.requires_grad_(False)


def validate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Step AUROC and accuracy at 0.5 on easy validation solutions; None where a class is missing."""
    import numpy as np

    solutions = [(row["question"], row["completion"], row["finished"]) for row in rows]
    scored = score_solutions(model, tokenizer, solutions)
    pairs = [
        (logit, label)
        for logits, row in zip(scored, rows, strict=True)
        for logit, label in zip(logits, row["labels"], strict=True)
        if label >= 0
    ]
    logits, truth = (np.array([pair[i] for pair in pairs], float) for i in (0, 1))
    right, wrong = logits[truth == 1], logits[truth == 0]
    if not len(right) or not len(wrong):
        return {
            "validation_steps": len(pairs),
            "validation_step_auroc": None,
            "validation_step_accuracy": None,
        }
    ranks = np.searchsorted(np.sort(wrong), right, "left") + np.searchsorted(np.sort(wrong), right, "right")
    return {
        "validation_steps": len(pairs),
        "validation_step_auroc": float(ranks.mean() / (2 * len(wrong))),
        "validation_step_accuracy": float(((logits > 0) == (truth == 1)).mean()),
    }
