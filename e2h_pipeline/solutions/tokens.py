"""Solutions as token ids, and where their steps lie in them.

Step positions come from the tokenizer's character offsets, never from token ids, and training,
scoring and RL all call `encode`: ProcessBench's first-error scores moved by 3-6 points when the
two sides disagreed about where a step ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2h_pipeline.solutions.chat import chat_of, chat_tokens
from e2h_pipeline.solutions.format import MARKED, TextFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class EncodedSolution:
    """Token ids of prompt + completion (+ end of sequence where finished).

    `segment_ends[i]` is the index in `input_ids` of the token that holds the last character of
    segment i: the first position at which a causal model has read the whole segment.
    """

    input_ids: tuple[int, ...]
    prompt_tokens: int
    segment_ends: tuple[int, ...]


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, question: str, text: TextFormat = MARKED) -> list[int]:
    """Token ids of the prompt of a question: what the model reads before a solution.

    A chat model's are those of its template, whatever `text` says of prompts.
    """
    chat = chat_of(tokenizer)
    if chat is not None:
        return chat_tokens(tokenizer, question, chat)
    return list(tokenizer(text.prompt(question))["input_ids"])


def encode(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    completion: str,
    *,
    finished: bool = True,
    text: TextFormat = MARKED,
) -> EncodedSolution:
    """Tokenize one solution, with segment ends from character offsets.

    Args:
        tokenizer: a fast tokenizer (offsets are needed).
        finished: append the end-of-sequence token (the completion was not cut off).
        text: how prompt and solution are written.
    """
    prompt_ids = prompt_tokens(tokenizer, question, text)
    body, offsets = encode_completion(tokenizer, completion, finished=finished, text=text)
    ends = segment_ends(offsets, text.parse(completion).spans)
    tail = [tokenizer.eos_token_id] if finished else []
    return EncodedSolution(
        input_ids=(*prompt_ids, *body, *tail),
        prompt_tokens=len(prompt_ids),
        segment_ends=tuple(len(prompt_ids) + end for end in ends),
    )


def encode_completion(
    tokenizer: PreTrainedTokenizerBase, completion: str, *, finished: bool, text: TextFormat = MARKED
) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a completion and their character ranges, without the end-of-sequence token.

    A text that stops behind a step is spelled as if another step came: GPT-2's rule makes one token of a blank
    line at the end of a text and two before more text, which would tell a cut solution from a whole one.
    """
    ahead = "" if finished else text.ahead(completion)
    body = tokenizer(completion + ahead, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = body["input_ids"], body["offset_mapping"]
    kept = sum(start < len(completion) for start, _ in offsets) if ahead else len(ids)
    if kept and offsets[kept - 1][1] > len(completion):  # a token that reaches into what was added
        return encode_completion(tokenizer, completion, finished=True, text=text)
    return list(ids[:kept]), [(start, stop) for start, stop in offsets[:kept]]


def segment_ends(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[int]:
    """For each span, the index of the token that holds its last character.

    Args:
        offsets: half-open character ranges of the tokens, in order.
        spans: half-open character ranges of the segments, in order.
    """
    ends, token = [], 0
    for _, stop in spans:
        # By starts: all byte-level tokens of one character carry that character's range.
        while token + 1 < len(offsets) and offsets[token + 1][0] < stop:
            token += 1
        ends.append(token)
    return ends


def token_offsets(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> list[tuple[int, int]]:
    """Character ranges in `text` of sampled token ids that decode to it.

    A policy may spell a text with other tokens than the tokenizer would choose, so where the two
    differ the ranges come from decoding ever longer prefixes; a character counts once it is whole.
    """
    body = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if list(body["input_ids"]) == list(ids):
        return [(start, end) for start, end in body["offset_mapping"]]
    prefixes = [tokenizer.decode(ids[: i + 1], skip_special_tokens=True) for i in range(len(ids))]
    ends = [min(len(prefix.rstrip("\ufffd")), len(text)) for prefix in prefixes]
    return list(zip([0, *ends[:-1]], ends, strict=True))
