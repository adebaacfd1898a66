"""Train an evaluator on easy labels (paper section 3.3): one loop for every kind of
`rewards.kinds`.

The model is a `*ForTokenClassification` with one label (`models.classifier`), so that
`from_pretrained` and vLLM's pooling runner serve it. Quality is measured on easy validation
problems, with the saved folder, as others will load it; no hard labels are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.models.load import HEADING_FIELD
from e2h_pipeline.registry import EVALUATOR_KINDS
from e2h_pipeline.rewards.adapters import prepare, whole
from e2h_pipeline.rewards.examples import Rows, evenly_weighted, labelled, usable
from e2h_pipeline.rewards.validate import validate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.recipe import Reward, RewardTraining
    from e2h_pipeline.rewards.kinds.base import EvaluatorKind
    from e2h_pipeline.solutions import TextFormat
    from e2h_pipeline.training.batches import Example


def train_reward_model(
    init: Path, labels: Mapping[str, Path], options: Reward, text: TextFormat, work: Work
) -> dict[str, Any]:
    """Train an evaluator of the kind `options.kind` from the causal LM in `init` and save it to
    `work.out`.

    With several processes, all train, and only the main one saves and validates.

    Args:
        labels: folders of labelled solutions: "steps" with a label per segment, "outcomes" with an
            outcome. The weight of a row of step labels, if any, weighs its labels in the loss.
        text: how the domain writes solutions; the evaluator has a heading of its own in the recipe.

    Returns:
        Counts of examples, of those dropped (too long, or without a label) and of labelled
        positions; the training summary; figures on easy validation solutions.

    Raises:
        ValueError: labels that the kind needs are missing, or no examples are left.
    """
    from transformers import set_seed

    from e2h_pipeline.models.base import save_model
    from e2h_pipeline.training.trainer import Settings, is_main_process, train

    kind: EvaluatorKind = EVALUATOR_KINDS.load(options.kind)()
    text = text.headed(options.training.heading or text.question_heading)
    rows = _read(options.kind, kind, labels)
    set_seed(work.seed)
    model, tokenizer, stored_as = _fresh(init, options.training, text)
    found = kind.examples(tokenizer, _split(rows, "train"), options, work.seed, text)
    kept = {name: usable(part, options.training.max_tokens) for name, part in found.items()}
    chosen = kind.choose(kept, options, work.seed)
    examples = evenly_weighted([example for part in chosen.values() for example in part])
    trained = prepare(model, options.training)
    summary = train(
        trained.train(),
        examples,
        kind.objective(options, work.seed),
        Settings.of(options.training, work.seed),
        tokenizer.pad_token_id,
        work,
    )
    result = {
        "kind": options.kind,
        kind.unit: len(examples),
        "dropped": sum(len(found[name]) - len(kept[name]) for name in found),
        "labels": {name: _counts(part) for name, part in chosen.items()},
        **summary,
    }
    if not is_main_process():
        return result
    save_model(whole(trained, work.folder).to(stored_as), tokenizer, work.out)
    kind.finish(work.out, examples)
    return {**result, **validate(work.out, _split(rows, "validation"), text)}


def _fresh(
    init: Path, options: RewardTraining, text: TextFormat
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Any]:
    """The model before training, with a head of zeros; its tokenizer; the number format it is saved
    in."""
    from e2h_pipeline.models.load import new_evaluator

    model, tokenizer = new_evaluator(init)
    stored_as = model.dtype
    if options.mixed_precision:
        model.float()
    setattr(model.config, HEADING_FIELD, text.question_heading)
    return model, tokenizer, stored_as


def _read(name: str, kind: EvaluatorKind, labels: Mapping[str, Path]) -> dict[str, Rows]:
    if missing := [read for read in kind.reads if read not in labels]:
        raise ValueError(f"an evaluator of kind {name} needs labels of {missing[0]}: none were given")
    return {read: read_table(labels[read] / "data.parquet").to_pylist() for read in kind.reads}


def _split(rows: Mapping[str, Rows], split: str) -> dict[str, Rows]:
    return {name: [row for row in part if row["split"] == split] for name, part in rows.items()}


def _counts(examples: Sequence[Example]) -> dict[str, int]:
    return {"examples": len(examples), "positions": sum(map(labelled, examples))}
