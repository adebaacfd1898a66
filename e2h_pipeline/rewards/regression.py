"""A head fitted by logistic regression to what a model says without training: linear probing.

With few labels it is the strongest start there is, costs one pass over the solutions, and one
regression serves each fold in seconds. Fine-tuning may follow (Kumar et al. 2022, arXiv 2202.10054:
a head of zeros first spoils the features that it does not know yet).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from e2h_pipeline.models.classifier import score_head
from e2h_pipeline.statistics.logistic import fit_logistic
from e2h_pipeline.training.batches import WEIGHTS, Example
from e2h_pipeline.training.next_token import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from e2h_pipeline.training.boundary import Boundary

_MOST_BYTES = 4 * 2**30


def fit_head(model: PreTrainedModel, examples: Sequence[Example], states: Boundary, ridge: float) -> None:
    """Set the head of an evaluator by its states at labelled positions and their labels.

    Args:
        states: what comes out of the body, for each example.
        ridge: see `fit_logistic`.

    Raises:
        ValueError: no examples; more labels than a regression can hold in memory; or examples of
            several solutions (pairs), whose labels are no probabilities.
    """
    import torch

    if not examples:
        raise ValueError("no training examples: check the data limits and max_tokens of this stage")
    positions = sum(label != IGNORED for example in examples for label in example["labels"])
    width = model.config.get_text_config().hidden_size
    if 8 * positions * width > _MOST_BYTES:
        raise ValueError(
            f"head: a regression over {positions:,} labels holds {8 * positions * width / 2**30:.0f} GiB in memory: set "
            "head=zeros"
        )
    if any("lengths" in example for example in examples):
        raise ValueError("head: a regression has no pairs of solutions to learn from: set head=zeros")
    features, labels, counts = [], [], []
    for example in examples:
        marks = np.asarray(example["labels"], float)
        chosen = marks != IGNORED
        features.append(states.of(example)[chosen])
        labels.append(marks[chosen])
        counts.append(np.asarray(example.get(WEIGHTS, np.ones(len(marks))), float)[chosen])
    fitted = fit_logistic(np.concatenate(features), np.concatenate(labels), ridge, np.concatenate(counts))
    weights, constant = fitted.plain()
    head = score_head(model)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weights)[None])
        head.bias.fill_(constant)
