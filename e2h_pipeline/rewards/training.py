"""Train an evaluator on easy labels: outcome, process, both, or pairs (paper section 3.3).

One loop for all kinds; they differ in where labels stand (`examples`) and in the loss:

    prm       step labels at step ends, binary cross-entropy
    orm       the outcome on every (or the last) token of a completion, binary cross-entropy
    oprm      one model on both, `outcome_share` of the examples being outcome examples
    pairwise  right above wrong solutions of the same problem, Bradley-Terry loss on the last token

The head is a `*ForTokenClassification` with one label, so that `from_pretrained` and vLLM's pooling
runner serve it. Quality is measured on easy validation problems, of the saved folder as others will
load it; no hard label is near.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.rewards.examples import (
    labelled,
    mixed,
    orm_example,
    pair_examples,
    prm_example,
    usable,
)
from e2h_pipeline.rewards.scoring import HEADING_FIELD, score_solutions
from e2h_pipeline.training.batches import Example, run_model
from e2h_pipeline.training.objectives import pairwise_loss, step_loss

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.recipe import RewardTraining
    from e2h_pipeline.reporter import Reporter

Kind = Literal["prm", "orm", "oprm", "pairwise"]
Rows = Sequence[Mapping[str, Any]]

_READS: dict[str, tuple[str, ...]] = {
    "prm": ("steps",),
    "orm": ("outcomes",),
    "oprm": ("steps", "outcomes"),
    "pairwise": ("outcomes",),
}


def train_reward_model(
    kind: Kind,
    init: Path,
    step_labels: Path | None,
    outcome_labels: Path | None,
    out: Path,
    work: Path,
    options: RewardTraining,
    seed: int,
    reporter: Reporter,
) -> dict[str, Any]:
    """Train an evaluator from the causal LM in `init` and save it to `out`.

    Under several processes all train and the main one alone saves and validates.

    Args:
        step_labels: folder of solutions with a label per segment (prm, oprm).
        outcome_labels: folder of solutions with an outcome (orm, oprm, pairwise).

    Returns:
        "solutions" or "pairs", "dropped" (for length, or without a label), "labels" (examples and labelled
        positions of each kind), the training summary, and in the main process the validation figures.

    Raises:
        ValueError: labels that the kind needs are not given, or none is left to train on.
    """
    from transformers import set_seed

    from e2h_pipeline.models.base import save_model
    from e2h_pipeline.models.load import load_evaluator
    from e2h_pipeline.training.trainer import CURVES, Settings, is_main_process, train

    rows = _read(kind, {"steps": step_labels, "outcomes": outcome_labels})
    set_seed(seed)
    model, tokenizer = load_evaluator(init)
    stored_as = model.dtype
    if options.mixed_precision:
        model.float()
    setattr(model.config, HEADING_FIELD, options.heading)
    model.score.weight.data.zero_()
    found = make_examples(
        kind, tokenizer, {name: _split(r, "train") for name, r in rows.items()}, options, seed
    )
    kept = {name: usable(examples, options.max_tokens) for name, examples in found.items()}
    if kind == "oprm":
        steps, outcomes = mixed(kept["steps"], kept["outcomes"], options.outcome_share, seed)
        chosen = {"steps": steps, "outcomes": outcomes}
    else:
        chosen = kept
    examples = [example for part in chosen.values() for example in part]
    trained = prepare(model, options)
    summary = train(
        trained.train(),
        examples,
        pairwise_objective if kind == "pairwise" else step_objective,
        Settings.of(options, seed),
        pad_id=tokenizer.pad_token_id,
        work=work,
        reporter=reporter,
        curves=out / CURVES,
    )
    result = {
        "kind": kind,
        "pairs" if kind == "pairwise" else "solutions": len(examples),
        "dropped": sum(len(found[name]) - len(kept[name]) for name in found),
        "labels": {
            name: {"examples": len(part), "positions": sum(map(labelled, part))}
            for name, part in chosen.items()
        },
        **summary,
    }
    if not is_main_process():
        return result
    save_model(whole(trained, work).to(stored_as), tokenizer, out)
    return {**result, **validate(out, {name: _split(r, "validation") for name, r in rows.items()})}


def step_objective(model: PreTrainedModel, batch: Mapping[str, Any], total: Tensor) -> Tensor:
    """Binary cross-entropy at labelled positions."""
    return step_loss(run_model(model, batch).logits, batch["labels"], total)


def pairwise_objective(model: PreTrainedModel, batch: Mapping[str, Any], total: Tensor) -> Tensor:
    """Right above wrong, at the last token."""
    return pairwise_loss(run_model(model, batch).logits, batch["labels"], total)


def make_examples(
    kind: Kind,
    tokenizer: PreTrainedTokenizerBase,
    rows: Mapping[str, Rows],
    options: RewardTraining,
    seed: int,
) -> dict[str, list[Example]]:
    """Training examples of each kind of label that is read."""
    if kind == "pairwise":
        return {"pairs": pair_examples(tokenizer, rows["outcomes"], seed, options.heading)}
    found: dict[str, list[Example]] = {}
    if "steps" in rows:
        found["steps"] = [prm_example(tokenizer, row, options.heading) for row in rows["steps"]]
    if "outcomes" in rows:
        found["outcomes"] = [
            orm_example(tokenizer, row, options.heading, options.tokens) for row in rows["outcomes"]
        ]
    return found


def prepare(model: PreTrainedModel, options: RewardTraining) -> PreTrainedModel:
    """Say which weights learn: all, all above `frozen_layers`, or LoRA adapters in the layers above them.

    The adapters are of rank `lora_rank` in every linear layer, with the usual scale of 2 (Hu et al. 2021); the
    head is trained whole.

    Raises:
        ValueError: adapters are wanted where accelerate is told to shard the model.
    """
    from e2h_pipeline.training.trainer import sharding_asked

    if options.lora_rank == 0:
        freeze_layers(model, options.frozen_layers)
        return model
    if sharding_asked():
        raise ValueError("adapters cannot be merged into a sharded model: set lora_rank=0, or shard nothing")
    from peft import LoraConfig, TaskType, get_peft_model
    from torch.nn import Linear

    learning = {id(m) for layer in _decoder(model).layers[options.frozen_layers :] for m in layer.modules()}
    return get_peft_model(
        model,
        LoraConfig(
            task_type=TaskType.TOKEN_CLS,
            r=options.lora_rank,
            lora_alpha=2 * options.lora_rank,
            target_modules=[
                name for name, m in model.named_modules() if isinstance(m, Linear) and id(m) in learning
            ],
            modules_to_save=["score"],
        ),
    )


def whole(model: PreTrainedModel, work: Path) -> PreTrainedModel:
    """The trained model as it is saved: adapters added to its weights, shards put together."""
    from transformers import AutoModelForTokenClassification

    from e2h_pipeline.training.trainer import GATHERED

    if (work / GATHERED).is_dir():
        return AutoModelForTokenClassification.from_pretrained(work / GATHERED)
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def freeze_layers(model: PreTrainedModel, layers: int) -> None:
    """Keep the embedding and the lowest `layers` decoder layers as they are; 0 freezes nothing."""
    if layers == 0:
        return
    decoder = _decoder(model)
    frozen = [decoder.get_input_embeddings(), *decoder.layers[:layers]]
    for module in frozen:
        module.requires_grad_(False)


def _decoder(model: PreTrainedModel) -> PreTrainedModel:
    return model.get_decoder() if hasattr(model, "get_decoder") else model.base_model


def validate(evaluator: Path, rows: Mapping[str, Rows]) -> dict[str, Any]:
    """Figures of a saved evaluator on easy validation solutions.

    Args:
        rows: "steps" with labels for each segment, "outcomes" with an outcome, which is compared with the
            score at the end of the solution.

    Returns:
        "validation_step_auroc", "validation_outcome_auroc" (None where a class is missing), the accuracy at
        probability 0.5 of each, and how many were judged. A soft label counts as right from 0.5.
    """
    import numpy as np

    from e2h_pipeline.models.load import load_evaluator

    model, tokenizer = load_evaluator(evaluator)
    figures: dict[str, Any] = {}
    for kind, part in rows.items():
        scored = score_solutions(
            model, tokenizer, [(row["question"], row["completion"], row["finished"]) for row in part]
        )
        judged = [
            pair for logits, row in zip(scored, part, strict=True) for pair in _judged(kind, logits, row)
        ]
        logits, truth = (np.array([pair[i] for pair in judged], float) for i in (0, 1))
        unit = kind.removesuffix("s")
        figures[f"validation_{kind if kind == 'steps' else 'solutions'}"] = len(judged)
        figures[f"validation_{unit}_auroc"] = auroc(logits, truth >= 0.5)
        both = 0 < (truth >= 0.5).sum() < len(truth)
        figures[f"validation_{unit}_accuracy"] = (
            float(((logits > 0) == (truth >= 0.5)).mean()) if both else None
        )
    return figures


def auroc(scores: np.ndarray, right: np.ndarray) -> float | None:
    """P(score of a right item > score of a wrong one) + half the ties; None where a class is missing."""
    import numpy as np

    above, below = scores[right], np.sort(scores[~right])
    if not len(above) or not len(below):
        return None
    ranks = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
    return float(ranks.mean() / (2 * len(below)))


def _judged(kind: str, logits: Sequence[float], row: Mapping[str, Any]) -> list[tuple[float, float]]:
    if kind == "steps":
        return [(x, label) for x, label in zip(logits, row["labels"], strict=True) if label >= 0]
    return [(logits[-1], row["outcome"])] if logits else []


def _read(kind: Kind, folders: Mapping[str, Path | None]) -> dict[str, Rows]:
    rows: dict[str, Rows] = {}
    for name in _READS[kind]:
        folder = folders[name]
        if folder is None:
            raise ValueError(f"an evaluator of kind {kind} needs labels of {name}: none were given")
        rows[name] = read_table(folder / "data.parquet").to_pylist()
    return rows


def _split(rows: Rows, split: str) -> Rows:
    return [row for row in rows if row["split"] == split]
