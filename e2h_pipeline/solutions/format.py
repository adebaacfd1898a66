"""The text format, in one place: prompt, steps, answer marker, and where steps lie in tokens.

A document reads `# Question\\n\\n{question}\\n\\n# Solution\\n\\n{step}\\n\\n...\\n\\n# Answer\\n\\n{answer}` and ends with
the end-of-sequence token (easy-to-hard paper, released code). A *segment* is what an evaluator
scores: each step, and last the answer block where the solution has one.

A domain has a `TextFormat`. What reads or writes solutions is handed the domain's; `MARKED` is the default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

SEPARATOR = "\n\n"
ANSWER_MARKER = "# Answer"
QUESTION_HEADING = "# Question"
SOLUTION_HEADING = "# Solution"


@dataclass(frozen=True)
class Solution:
    """A completion taken apart. `spans[i]` is the half-open character range of segment i in the
    completion, its closing separator included; `answer` is None where the text has no answer block."""

    steps: tuple[str, ...]
    answer: str | None
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TextFormat:
    """How a domain writes prompts and solutions, and how they are read again.

    A domain with texts of another shape overrides the methods. Formats are values: they are compared, and handed to
    worker processes.

    Attributes:
        question_heading: first line of the prompt. An evaluator may have one of its own.
        solution_heading: line between question and solution.
        answer_marker: the block that the answer follows.
        separator: text between blocks.
        verbatim: texts are shown as they stand, as programs are: with their white space, and no formulas in
            them.
    """

    question_heading: str = QUESTION_HEADING
    solution_heading: str = SOLUTION_HEADING
    answer_marker: str = ANSWER_MARKER
    separator: str = SEPARATOR
    verbatim: bool = False

    def headed(self, heading: str) -> TextFormat:
        """The same format with another first line of the prompt."""
        return replace(self, question_heading=heading)

    def prompt(self, question: str) -> str:
        """The prompt of a question."""
        return self.separator.join([self.question_heading, question.strip(), self.solution_heading, ""])

    def completion(self, steps: Sequence[str], answer: str) -> str:
        """A whole solution as the policy should write it, without the end-of-sequence token.

        Steps are stripped. A blank line inside a step would read as two steps, so it becomes a line break.
        """
        cleaned = ["\n".join(line for line in step.strip().splitlines() if line.strip()) for step in steps]
        return self.separator.join([*(step for step in cleaned if step), self.answer_marker, answer.strip()])

    def ahead(self, completion: str) -> str:
        """What would follow a completion that stops behind a step; empty where it stops elsewhere."""
        return self.answer_marker if completion.endswith(self.separator) else ""

    def parse(self, completion: str) -> Solution:
        """Split a completion into steps, answer and segment spans.

        The answer is everything behind the last block that is exactly the answer marker. Without that block, or with
        nothing behind it, there is no answer.
        """
        spans = self._block_spans(completion)
        blocks = [completion[start:end].strip() for start, end in spans]
        marker = max((i for i, block in enumerate(blocks) if block == self.answer_marker), default=None)
        if marker is None:
            kept = [(b, s) for b, s in zip(blocks, spans, strict=True) if b]
            return Solution(tuple(b for b, _ in kept), None, tuple(s for _, s in kept))
        kept = [(b, s) for b, s in zip(blocks[:marker], spans[:marker], strict=True) if b]
        answer = completion[spans[marker][1] :].strip()
        answer_span = (spans[marker][0], len(completion))
        return Solution(tuple(b for b, _ in kept), answer or None, (*(s for _, s in kept), answer_span))

    def _block_spans(self, text: str) -> list[tuple[int, int]]:
        """Ranges between separators; each ends behind the separator that closes it."""
        spans, start = [], 0
        while start < len(text):
            cut = text.find(self.separator, start)
            end = len(text) if cut < 0 else cut + len(self.separator)
            spans.append((start, end))
            start = end
        return spans


MARKED = TextFormat()
"""The format of the paper's code, which MATH and the ladder share."""
