"""The text format of prompts and solutions, and where steps lie in tokens."""

from e2h_pipeline.solutions.format import (
    ANSWER_MARKER,
    MARKED,
    QUESTION_HEADING,
    SEPARATOR,
    Solution,
    TextFormat,
)
from e2h_pipeline.solutions.tokens import (
    EncodedSolution,
    encode,
    encode_completion,
    prompt_tokens,
    segment_ends,
    token_offsets,
)

__all__ = [
    "ANSWER_MARKER",
    "MARKED",
    "QUESTION_HEADING",
    "SEPARATOR",
    "EncodedSolution",
    "Solution",
    "TextFormat",
    "encode",
    "encode_completion",
    "prompt_tokens",
    "segment_ends",
    "token_offsets",
]
