"""The text format, in one place: prompt, steps, answer marker, and where steps lie in tokens.

A document reads `# Question\\n\\n{question}\\n\\n# Solution\\n\\n{step}\\n\\n...\\n\\n# Answer\\n\\n{answer}` and ends with
the end-of-sequence token (easy-to-hard paper, released code). A *segment* is what an evaluator
scores: each step, and last the answer block where the solution has one.

Step positions come from the tokenizer's character offsets, never from token ids, and training,
scoring and RL all call `encode`: ProcessBench's first-error scores moved by 3-6 points when the
two sides disagreed about where a step ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEPARATOR = "\n\n"
ANSWER_MARKER = "# Answer"
QUESTION_HEADING = "# Question"


@dataclass(frozen=True)
class Solution:
    """A completion taken apart. `spans[i]` is the half-open character range of segment i in the
    completion, its closing separator included; `answer` is None where the text has no answer block."""

    steps: tuple[str, ...]
    answer: str | None
    spans: tuple[tuple[int, int], ...]


def format_prompt(question: str, heading: str = QUESTION_HEADING) -> str:
    """The prompt of a question. Policies see the default heading; an evaluator may have its own."""
    return f"{heading}{SEPARATOR}{question.strip()}{SEPARATOR}# Solution{SEPARATOR}"


def format_completion(steps: Sequence[str], answer: str) -> str:
    """A whole solution as the policy should write it, without the end-of-sequence token.

    Steps are stripped; a blank line inside one would read as two steps, so it becomes a line break.
    """
    cleaned = ["\n".join(line for line in step.strip().splitlines() if line.strip()) for step in steps]
    return SEPARATOR.join([*(step for step in cleaned if step), ANSWER_MARKER, answer.strip()])


def parse_completion(completion: str) -> Solution:
    """Split a completion into steps, answer and segment spans.

    The answer is everything behind the last block that is exactly `# Answer`. Without that block,
    or with nothing behind it, there is no answer.
    """
    spans = _block_spans(completion)
    blocks = [completion[start:end].strip() for start, end in spans]
    marker = max((i for i, block in enumerate(blocks) if block == ANSWER_MARKER), default=None)
    if marker is None:
        kept = [(b, s) for b, s in zip(blocks, spans, strict=True) if b]
        return Solution(tuple(b for b, _ in kept), None, tuple(s for _, s in kept))
    kept = [(b, s) for b, s in zip(blocks[:marker], spans[:marker], strict=True) if b]
    answer = completion[spans[marker][1] :].strip()
    answer_span = (spans[marker][0], len(completion))
    return Solution(tuple(b for b, _ in kept), answer or None, (*(s for _, s in kept), answer_span))


def _block_spans(text: str) -> list[tuple[int, int]]:
    """Ranges between separators; each ends behind the separator that closes it."""
    spans, start = [], 0
    while start < len(text):
        cut = text.find(SEPARATOR, start)
        end = len(text) if cut < 0 else cut + len(SEPARATOR)
        spans.append((start, end))
        start = end
    return spans


@dataclass(frozen=True)
class EncodedSolution:
    """Token ids of prompt + completion (+ end of sequence where finished).

    `segment_ends[i]` is the index in `input_ids` of the token that holds the last character of
    segment i: the first position at which a causal model has read the whole segment.
    """

    input_ids: tuple[int, ...]
    prompt_tokens: int
    segment_ends: tuple[int, ...]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    completion: str,
    *,
    finished: bool = True,
    heading: str = QUESTION_HEADING,
) -> EncodedSolution:
    """Tokenize one solution, with segment ends from character offsets.

    Args:
        tokenizer: a fast tokenizer (offsets are needed).
        finished: append the end-of-sequence token (the completion was not cut off).
        heading: first line of the prompt.
    """
    prompt_ids = tokenizer(format_prompt(question, heading))["input_ids"]
    body, offsets = encode_completion(tokenizer, completion, finished=finished)
    ends = segment_ends(offsets, parse_completion(completion).spans)
    tail = [tokenizer.eos_token_id] if finished else []
    return EncodedSolution(
        input_ids=(*prompt_ids, *body, *tail),
        prompt_tokens=len(prompt_ids),
        segment_ends=tuple(len(prompt_ids) + end for end in ends),
    )


def encode_completion(
    tokenizer: PreTrainedTokenizerBase, completion: str, *, finished: bool
) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a completion and their character ranges, without the end-of-sequence token.

    A text that stops behind a step is spelled as if another step came: GPT-2's rule makes one token of a blank
    line at the end of a text and two before more text, which would tell a cut solution from a whole one.
    """
    ahead = "" if finished or not completion.endswith(SEPARATOR) else ANSWER_MARKER
    body = tokenizer(completion + ahead, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = body["input_ids"], body["offset_mapping"]
    kept = sum(start < len(completion) for start, _ in offsets) if ahead else len(ids)
    if kept and offsets[kept - 1][1] > len(completion):  # a token that reaches into what was added
        return encode_completion(tokenizer, completion, finished=True)
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
