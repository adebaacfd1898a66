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
    pass

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
