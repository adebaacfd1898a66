"""Labelled solutions as training examples of each kind of evaluator.

All share one shape, token ids and a label at each position that is judged: step ends (process), the
tokens of a completion (outcome), or the end of a solution (pairs). What differs is where labels stand.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from e2h_pipeline.solutions import QUESTION_HEADING, EncodedSolution, encode
from e2h_pipeline.training.batches import Example, together
from e2h_pipeline.training.next_token import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = Mapping[str, Any]


def prm_example(tokenizer: PreTrainedTokenizerBase, row: Row, heading: str = QUESTION_HEADING) -> Example:
    """A solution with step labels: 1.0, 0.0 or a soft label at labelled segment ends, -100 elsewhere."""
    encoded = _encode(tokenizer, row, heading)
    labelled = zip(encoded.segment_ends, row["labels"], strict=True)
    return _example(encoded, {end: label for end, label in labelled if label >= 0})


def orm_example(
    tokenizer: PreTrainedTokenizerBase,
    row: Row,
    heading: str = QUESTION_HEADING,
    tokens: Literal["every", "last"] = "every",
) -> Example:
    """A solution with the outcome of its answer as label.

    On `every` token of the completion (Cobbe et al. 2021; paper section 3.3), the end of sequence included, or
    on the `last` one: the end of the last segment, where scoring looks, so that cut-off solutions have it too.
    An empty completion has no label.
    """
    encoded = _encode(tokenizer, row, heading)
    whole = range(encoded.prompt_tokens, len(encoded.input_ids)) if encoded.segment_ends else ()
    judged = whole if tokens == "every" else encoded.segment_ends[-1:]
    return _example(encoded, {position: float(row["outcome"]) for position in judged})


def pair_examples(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[Row], seed: int, heading: str = QUESTION_HEADING
) -> list[Example]:
    """Pairs of a right and a wrong solution of the same problem, each solution used at least once.

    A problem has as many pairs as it has solutions of its larger class; the smaller class is repeated.
    Problems with one class only have none; an empty completion, which has no token to score, is in none.
    """
    problems: dict[str, tuple[list[Example], list[Example]]] = {}
    for row in rows:
        example = orm_example(tokenizer, row, heading, "last")
        if labelled(example):
            problems.setdefault(row["problem_id"], ([], []))[0 if row["outcome"] == 1 else 1].append(example)
    pairs: list[Example] = []
    for problem_id, (right, wrong) in sorted(problems.items()):
        rng = random.Random(f"pairs/{seed}/{problem_id}")
        rng.shuffle(right)
        rng.shuffle(wrong)
        for i in range(max(len(right), len(wrong)) if right and wrong else 0):
            pairs.append(together(right[i % len(right)], wrong[i % len(wrong)]))
    return pairs


def mixed(
    steps: Sequence[Example], outcomes: Sequence[Example], share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Step and outcome examples such that `share` of all are outcome examples.

    The kind of which there are too many is subsampled; all of the other are used.
    """
    rng = random.Random(f"mixed/{seed}")
    fewer_steps = min(len(steps), round(len(outcomes) * (1 - share) / share))
    fewer_outcomes = min(len(outcomes), round(len(steps) * share / (1 - share)))
    return rng.sample(list(steps), fewer_steps), rng.sample(list(outcomes), fewer_outcomes)


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


def _encode(tokenizer: PreTrainedTokenizerBase, row: Row, heading: str) -> EncodedSolution:
    return encode(tokenizer, row["question"], row["completion"], finished=row["finished"], heading=heading)


def _example(encoded: EncodedSolution, labels: Mapping[int, float]) -> Example:
    everywhere = [float(labels.get(position, IGNORED)) for position in range(len(encoded.input_ids))]
    return {"input_ids": encoded.input_ids, "labels": everywhere}
