"""Train an evaluator on easy labels (paper section 3.3): one loop for every kind of
`rewards.kinds`.

The model is a `*ForTokenClassification` with one label (`models.classifier`), so that
`from_pretrained` and vLLM's pooling runner serve it. Quality is measured on easy validation
problems, with the saved folder, as others will load it; no hard labels are used. With folds, quality
is that of the evaluators of the folds, each on the problems it has not seen (`folds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.models.adapters import keep_lowest_layers
from e2h_pipeline.models.classifier import score_head_name
from e2h_pipeline.models.load import HEADING_FIELD, load_classifier
from e2h_pipeline.registry import EVALUATOR_KINDS
from e2h_pipeline.rewards.examples import Rows, evenly_weighted, labelled, usable
from e2h_pipeline.rewards.folds import judge_out_of_fold, write_out_of_fold
from e2h_pipeline.rewards.regression import fit_head
from e2h_pipeline.rewards.validate import figures_of, validate
from e2h_pipeline.training.adapters import prepare, whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.recipe import Reward
    from e2h_pipeline.rewards.kinds.base import EvaluatorKind
    from e2h_pipeline.solutions import TextFormat
    from e2h_pipeline.training.batches import Example
    from e2h_pipeline.training.boundary import Boundary


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
        positions; the training summary; figures on easy validation solutions, or on all labelled
        ones where the recipe asks for folds.

    Raises:
        ValueError: labels that the kind needs are missing, or no examples are left.
    """
    from e2h_pipeline.models.base import save_model
    from e2h_pipeline.training.trainer import is_main_process

    kind: EvaluatorKind = EVALUATOR_KINDS.load(options.kind)()
    rows = _read(options.kind, kind, labels)
    text = text.headed(options.training.heading or text.question_heading)
    folds = options.training.folds
    trained_on = rows if folds else _split(rows, "train")
    training = Training(init, kind, options, text).with_states(trained_on, work)
    judged = judge_out_of_fold(training, rows, folds, work) if folds else None
    model, tokenizer, examples, result = training.run(trained_on, work)
    if not is_main_process():
        return result
    save_model(model, tokenizer, work.out)
    kind.finish(work.out, examples)
    if judged is None:
        return {**result, **validate(work.out, _split(rows, "validation"), text)}
    write_out_of_fold(work.out, judged)
    return {**result, "folds": folds, **figures_of(rows, judged.logits)}


@dataclass(frozen=True)
class Training:
    """The training of an evaluator on some rows of labels.

    Attributes:
        init: folder of the causal LM that it starts from.
        text: how prompt and solution are written, with the evaluator's heading.
        states: what a head reads, where the recipe fits it by regression.
        boundary: states above the frozen layers, where they are kept.
    """

    init: Path
    kind: EvaluatorKind
    options: Reward
    text: TextFormat
    states: Boundary | None = None
    boundary: Boundary | None = None

    def with_states(self, rows: Mapping[str, Rows], work: Work) -> Training:
        """The same with the states of all these rows computed that the recipe asks for."""
        from e2h_pipeline.training.boundary import keep_boundary, keep_states
        from e2h_pipeline.training.trainer import multiplies_in_bfloat16

        options = self.options.training
        if not options.cache_frozen and options.head == "zeros":
            return self
        model, tokenizer, _ = self._fresh(work.seed)
        model.eval()
        examples = [e for part in self._examples(tokenizer, rows, work.seed)[1].values() for e in part]
        half = multiplies_in_bfloat16(model, options.mixed_precision)
        states = boundary = None
        if options.head == "regression":
            states = keep_states(model, examples, work.folder / "states", work.reporter, half)
        if options.cache_frozen:
            folder, frozen = work.folder / "boundary", options.frozen_layers
            boundary = keep_boundary(model, frozen, examples, folder, work.reporter, half)
        return replace(self, states=states, boundary=boundary)

    def run(
        self, rows: Mapping[str, Rows], work: Work
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Sequence[Example], dict[str, Any]]:
        """Train on all of some rows.

        Returns the trained model as it is saved (in the main process), its tokenizer, the examples,
        and the summary.
        """
        from transformers import set_seed

        from e2h_pipeline.training.boundary import WithBoundary
        from e2h_pipeline.training.trainer import Settings, is_main_process, train

        options, kind, seed = self.options.training, self.kind, work.seed
        set_seed(seed)
        model, tokenizer, stored_as = self._fresh(seed)
        found, kept = self._examples(tokenizer, rows, seed)
        chosen = kind.choose(kept, self.options, seed)
        examples = evenly_weighted([example for part in chosen.values() for example in part])
        if self.states:
            fit_head(model, examples, self.states, options.ridge)
        summary: dict[str, Any] = {"updates": 0, "examples": len(examples)}
        trained = prepare(model, options, [score_head_name(model)])
        if options.epochs:
            summary = train(
                trained.train(),
                WithBoundary(examples, self.boundary) if self.boundary else examples,
                kind.objective(self.options, seed),
                Settings.of(options, seed),
                tokenizer.pad_token_id,
                work,
                passed=options.frozen_layers if self.boundary else 0,
            )
        result = {
            "kind": self.options.kind,
            kind.unit: len(examples),
            "dropped": sum(len(found[name]) - len(kept[name]) for name in found),
            "labels": {name: _counts(part) for name, part in chosen.items()},
            **summary,
        }
        if is_main_process():
            trained = whole(trained, work.folder, load_classifier).to(stored_as)
        return trained.eval(), tokenizer, examples, result

    def _fresh(self, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Any]:
        """The model before training, with a head of zeros; its tokenizer; the number format it is
        saved in."""
        from e2h_pipeline.models.load import new_evaluator

        model, tokenizer = new_evaluator(self.init, seed if self.options.training.init == "random" else None)
        stored_as = model.dtype
        if self.options.training.layers is not None:
            keep_lowest_layers(model, self.options.training.layers)
        if self.options.training.mixed_precision:
            model.float()
        setattr(model.config, HEADING_FIELD, self.text.question_heading)
        return model, tokenizer, stored_as

    def fresh(self, seed: int) -> PreTrainedModel:
        """The model before training."""
        return self._fresh(seed)[0]

    def _examples(
        self, tokenizer: PreTrainedTokenizerBase, rows: Mapping[str, Rows], seed: int
    ) -> tuple[dict[str, list[Example]], dict[str, list[Example]]]:
        """The examples of some rows by kind of label: all, and the usable ones."""
        found = self.kind.examples(tokenizer, rows, self.options, seed, self.text)
        most = self.options.training.max_tokens
        return found, {name: usable(part, most) for name, part in found.items()}


def _read(name: str, kind: EvaluatorKind, labels: Mapping[str, Path]) -> dict[str, Rows]:
    if missing := [read for read in kind.reads if read not in labels]:
        raise ValueError(f"an evaluator of kind {name} needs labels of {missing[0]}: none were given")
    return {read: read_table(labels[read] / "data.parquet").to_pylist() for read in kind.reads}


def _split(rows: Mapping[str, Rows], split: str) -> dict[str, Rows]:
    return {name: [row for row in part if row["split"] == split] for name, part in rows.items()}


def _counts(examples: Sequence[Example]) -> dict[str, int]:
    return {"examples": len(examples), "positions": sum(map(labelled, examples))}
