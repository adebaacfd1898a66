"""Teach a language model to write verdicts, on step labels of easy problems.

The loss is that of fine-tuning, next-token cross-entropy over the whole vocabulary, at the verdicts
alone. A soft label p counts as p of one verdict and 1 - p of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.registry import EVALUATOR_KINDS
from e2h_pipeline.rewards.evaluators import write_kind
from e2h_pipeline.rewards.examples import evenly_weighted, labelled, usable
from e2h_pipeline.rewards.generative.prompt import Asked, PromptError, read_prompt
from e2h_pipeline.rewards.validate import validate
from e2h_pipeline.training.adapters import prepare, whole
from e2h_pipeline.training.batches import WEIGHTS
from e2h_pipeline.training.next_token import IGNORED
from e2h_pipeline.training.taught import LogitsAt

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.recipe import GenerativeReward
    from e2h_pipeline.solutions import TextFormat
    from e2h_pipeline.training.trainer import TrainingStep


def train_generative(
    init: Path, labels: Mapping[str, Path], options: GenerativeReward, text: TextFormat, work: Work
) -> dict[str, Any]:
    """Train the language model in `init` on verdicts and save it to `work.out`, with its prompt.

    With several processes, all train, and only the main one saves and validates.

    Args:
        labels: "steps", a folder of solutions with a label per segment.
        text: how the domain writes solutions.

    Returns:
        Counts of examples and of those dropped, the training summary, figures on easy validation.

    Raises:
        PromptError: the prompt does not fit the model, or has no place for critiques that are wanted.
        ValueError: no examples are left.
    """
    from transformers import set_seed

    from e2h_pipeline.models.base import save_model
    from e2h_pipeline.models.load import load_policy
    from e2h_pipeline.training.trainer import Settings, is_main_process, train

    set_seed(work.seed)
    fields = options.training
    text = text.headed(fields.heading or text.question_heading)
    prompt = read_prompt(options.prompt)
    if options.critiques and not prompt.critique:
        raise PromptError(f"reward.prompt {options.prompt}: it has no 'critique'; set reward.critiques=0")
    model, tokenizer = load_policy(init)
    stored_as, asked = model.dtype, Asked.of(prompt, tokenizer, text)
    rows = read_table(labels["steps"] / TABLE).to_pylist()
    train_rows = [row for row in rows if row["split"] == "train"]
    found = EVALUATOR_KINDS.load(options.kind)().examples(
        tokenizer, {"steps": train_rows}, options, work.seed, text
    )["steps"]
    kept = evenly_weighted(usable(found, fields.max_tokens))
    summary: dict[str, Any] = {"updates": 0, "examples": len(kept)}
    if fields.mixed_precision:
        model.float()
    trained = prepare(model, fields)
    if fields.epochs:
        settings = Settings.of(fields, work.seed)
        summary = train(trained.train(), kept, Verdicts(asked), settings, tokenizer.pad_token_id, work)
    result = {
        "kind": options.kind,
        "solutions": len(kept),
        "dropped": len(found) - len(kept),
        "labels": {"steps": {"examples": len(kept), "positions": sum(map(labelled, kept))}},
        **summary,
    }
    if not is_main_process():
        return result
    save_model(whole(trained, work.folder, _load).to(stored_as), tokenizer, work.out)
    told = {name: getattr(options, name) for name in ("critiques", "critique_tokens", "temperature")}
    told |= {"prompt": asdict(prompt), "heading": text.question_heading, "seed": work.seed}
    write_kind(work.out, options.kind, told)
    held = [row for row in rows if row["split"] == "validation"]
    return {**result, **validate(work.out, {"steps": held}, text)}


def _load(folder: Path) -> PreTrainedModel:
    from e2h_pipeline.models.load import load_policy

    return load_policy(folder)[0]


class Verdicts:
    """The objective: `verdict_loss` at the labelled positions of a batch."""

    def __init__(self, asked: Asked) -> None:
        self._asked, self._logits = asked, LogitsAt()

    def __call__(self, model: PreTrainedModel, batch: Mapping[str, Any], step: TrainingStep) -> Tensor:
        """The loss of a batch; see `trainer.Objective`."""
        chosen = batch["labels"] != IGNORED
        weights = batch[WEIGHTS][chosen] if WEIGHTS in batch else None
        logits = self._logits(model, batch, chosen)
        verdicts = self._asked.right, self._asked.wrong
        return verdict_loss(logits, batch["labels"][chosen], verdicts, step.total, weights)


def verdict_loss(
    logits: Tensor,
    labels: Tensor,
    verdicts: tuple[int, int],
    total: Tensor | float,
    weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the verdicts over the whole vocabulary.

    Args:
        logits: (n, vocabulary) where verdicts are predicted.
        labels: (n,) 1.0 right, 0.0 wrong, or soft.
        verdicts: ids of the words for right and wrong.
        total: labelled positions in the optimizer batch, or the sum of their weights.
        weights: (n,) weight of each label; all 1 where None.
    """
    right, wrong = logits.float().log_softmax(-1)[:, list(verdicts)].unbind(-1)
    losses = -(labels.float() * right + (1 - labels.float()) * wrong)
    return (losses if weights is None else losses * weights).sum() / total
