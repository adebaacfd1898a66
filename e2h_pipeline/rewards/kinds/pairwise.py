"""Bradley-Terry reward model: right solutions of a problem above wrong ones, at the last token."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from e2h_pipeline.rewards.kinds.base import EvaluatorKind
from e2h_pipeline.training.batches import run_model, together
from e2h_pipeline.training.next_token import IGNORED

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.recipe import Reward
    from e2h_pipeline.rewards.examples import Row, Rows
    from e2h_pipeline.solutions import TextFormat
    from e2h_pipeline.training.batches import Example
    from e2h_pipeline.training.trainer import Objective, TrainingStep


class Pairwise(EvaluatorKind):
    """A scorer of whole solutions, trained on pairs."""

    reads = ("outcomes",)
    solution_aggregation = "last"
    unit = "pairs"

    def examples(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Mapping[str, Rows],
        options: Reward,
        seed: int,
        text: TextFormat,
    ) -> dict[str, list[Example]]:
        """See `EvaluatorKind.examples`."""
        from e2h_pipeline.rewards.examples import outcome_example

        def example(row: Row) -> Example:
            return outcome_example(tokenizer, row, text, "last")

        return {"pairs": pair_examples(rows["outcomes"], seed, example)}

    def objective(self, options: Reward, seed: int) -> Objective:
        """See `EvaluatorKind.objective`."""
        return pairwise_objective


def pair_examples(rows: Iterable[Row], seed: int, example: Callable[[Row], Example]) -> list[Example]:
    """Pairs of a right and a wrong solution of the same problem; each solution is used at least
    once.

    A problem has as many pairs as it has solutions of its larger class; the smaller class is
    repeated. Problems with one class only have none. An empty completion has no token to score, so
    it is in no pair.

    Args:
        rows: solutions with their outcome.
        example: a solution with one label, its outcome; without a label where its completion is
            empty.
    """
    from e2h_pipeline.rewards.examples import labelled

    problems: dict[str, tuple[list[Example], list[Example]]] = {}
    for row in rows:
        if labelled(own := example(row)):
            problems.setdefault(row["problem_id"], ([], []))[0 if row["outcome"] == 1 else 1].append(own)
    pairs: list[Example] = []
    for problem_id, (right, wrong) in sorted(problems.items()):
        rng = random.Random(f"pairs/{seed}/{problem_id}")
        rng.shuffle(right)
        rng.shuffle(wrong)
        for i in range(max(len(right), len(wrong)) if right and wrong else 0):
            pairs.append(together(right[i % len(right)], wrong[i % len(wrong)]))
    return pairs


def pairwise_objective(model: PreTrainedModel, batch: Mapping[str, Any], step: TrainingStep) -> Tensor:
    """`pairwise_loss` of a batch."""
    return pairwise_loss(run_model(model, batch).logits, batch["labels"], step.total)


def pairwise_loss(logits: Tensor, labels: Tensor, total: Tensor | float) -> Tensor:
    """Bradley-Terry: -log sigmoid(score of the right solution - score of the wrong one), mean over
    pairs.

    Args:
        logits: (batch, length, 1) raw scores.
        labels: (batch, length) 1.0 where a right solution is scored, 0.0 where a wrong one is, -100
            elsewhere. In reading order labels come as right, wrong, right, wrong: both of a pair
            are in the micro-batch.
        total: labelled positions in the optimizer batch, two for each pair.

    Raises:
        ValueError: labels do not alternate.
    """
    from torch.nn.functional import logsigmoid

    chosen = labels != IGNORED
    if not labels[chosen][0::2].eq(1).all() or not labels[chosen][1::2].eq(0).all() or chosen.sum() % 2:
        raise ValueError(
            "pairwise labels must come as right, wrong, right, wrong: rows of a pair were parted"
        )
    scores = logits.squeeze(-1)[chosen].float()
    return -logsigmoid(scores[0::2] - scores[1::2]).sum() / (total / 2)
