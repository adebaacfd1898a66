"""Labelled solutions as training examples.

All kinds of evaluator share one shape: token ids, and a label at each position that is judged.
Kinds differ in where labels stand: at step ends, on the tokens of a completion, or at the end of a
solution.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from e2h_pipeline.solutions import MARKED, EncodedSolution, TextFormat, encode
from e2h_pipeline.training.batches import WEIGHTS, Example
from e2h_pipeline.training.next_token import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = Mapping[str, Any]
"""A labelled solution: question, completion, finished, and `labels` (a label for each segment) or
`outcome` (0 or 1)."""
Rows = Sequence[Row]


def step_example(tokenizer: PreTrainedTokenizerBase, row: Row, text: TextFormat = MARKED) -> Example:
    """A solution with step labels: 1.0, 0.0 or a soft label at labelled segment ends, -100
    elsewhere.

    A row with a `weight` (from recipes that mix label sources) has it on all its tokens, in the
    column `weights`.
    """
    encoded = encode_row(tokenizer, row, text)
    labels = zip(encoded.segment_ends, row["labels"], strict=True)
    example = with_labels(encoded, {end: label for end, label in labels if label >= 0})
    if row.get("weight") is None:
        return example
    return {**example, WEIGHTS: [float(row["weight"])] * len(encoded.input_ids)}


def outcome_example(
    tokenizer: PreTrainedTokenizerBase,
    row: Row,
    text: TextFormat = MARKED,
    tokens: Literal["every", "last"] = "every",
) -> Example:
    """A solution with the outcome of its answer as label.

    The label is on `every` token of the completion (Cobbe et al. 2021; paper section 3.3), the end
    of sequence included, or on the `last` one. That is the end of the last segment, which scoring
    reads, so cut-off solutions have a label too. An empty completion has no label.
    """
    encoded = encode_row(tokenizer, row, text)
    whole = range(encoded.prompt_tokens, len(encoded.input_ids)) if encoded.segment_ends else ()
    judged = whole if tokens == "every" else encoded.segment_ends[-1:]
    return with_labels(encoded, {position: float(row["outcome"]) for position in judged})


def encode_row(tokenizer: PreTrainedTokenizerBase, row: Row, text: TextFormat = MARKED) -> EncodedSolution:
    """Token ids of a row's solution."""
    return encode(tokenizer, row["question"], row["completion"], finished=row["finished"], text=text)


def with_labels(encoded: EncodedSolution, labels: Mapping[int, float]) -> Example:
    """A solution with labels at some positions, -100 elsewhere."""
    everywhere = [float(labels.get(position, IGNORED)) for position in range(len(encoded.input_ids))]
    return {"input_ids": encoded.input_ids, "labels": everywhere}


def usable(examples: Iterable[Example], max_tokens: int) -> list[Example]:
    """Examples with a label whose documents all have at most `max_tokens` tokens."""
    return [
        example
        for example in examples
        if max(example.get("lengths", (len(example["input_ids"]),))) <= max_tokens and labelled(example)
    ]


def labelled(example: Example) -> int:
    """Positions with a label."""
    return sum(label != IGNORED for label in example["labels"])


def evenly_weighted(examples: Sequence[Example]) -> Sequence[Example]:
    """The same examples; if some have weights, the others get weights of 1, because a batch needs
    equal columns."""
    if not any(WEIGHTS in example for example in examples):
        return examples
    return [{WEIGHTS: [1.0] * len(example["input_ids"]), **example} for example in examples]
