r"""Reference solutions as steps.

MATH solutions are prose with LaTeX. A step is a paragraph (blank lines separate them); a solution
of one paragraph is split into sentences. Formulas, environments and figures are never cut. A
sentence ends at `.`, `!` or `?` and white space, at a formula whose last sign is one of these (MATH
writes `$x = 3.$ Then`), or at a displayed formula; and what follows is a capital or a formula.
"""

from __future__ import annotations

import re
from itertools import pairwise

_WHOLE = re.compile(
    r"\[asy\].*?\[/asy\]"
    r"|\\begin\{(\w+\*?)\}.*?\\end\{\1\}"
    r"|\\\[.*?\\\]|\\\(.*?\\\)|\$\$.*?\$\$"
    r"|(?<!\\)\$(?:\\.|[^$\\])*\$",
    re.DOTALL,
)
_INSIDE, _INSIDE_END = "\x00", "\x01"  # stand for formulas and figures: the data has no such characters
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE = re.compile(  # abbreviations are looked for behind the stop: ten times as fast as before it
    rf"(?:[.!?](?<!\bi\.e.)(?<!\be\.g.)(?<!\bMr.)(?<!\bMs.)(?<!\bDr.)(?<!\bMrs.)(?<!\bvs.)[\"')]*\s+|{_INSIDE_END}\s*)"
    rf"(?=[A-Z{_INSIDE}])"
)
_LINE_OR_SENTENCE = re.compile(rf"\n|{_SENTENCE.pattern}")


def split_steps(solution: str) -> tuple[str, ...]:
    """The steps of a reference solution, stripped, none empty."""
    masked = _WHOLE.sub(_mask, solution)
    paragraphs = _cut(solution, masked, _PARAGRAPH)
    return paragraphs if len(paragraphs) > 1 else _cut(solution, masked, _SENTENCE)


def split_sentences(solution: str) -> tuple[str, ...]:
    """The lines of a solution, and the sentences of each, stripped, none empty. Models write a
    thought a line."""
    return _cut(solution, _WHOLE.sub(_mask, solution), _LINE_OR_SENTENCE)


def _mask(whole: re.Match[str]) -> str:
    """As many masking characters. The last one says whether a sentence may end with this
    formula."""
    display = whole[0].startswith(("$$", "\\[", "\\begin", "[asy]"))
    ends = display or whole[0].rstrip("$)\\ \n").endswith((".", "!", "?"))
    return _INSIDE * (len(whole[0]) - 1) + (_INSIDE_END if ends else _INSIDE)


def _cut(text: str, masked: str, boundary: re.Pattern[str]) -> tuple[str, ...]:
    cuts = [0, *(match.end() for match in boundary.finditer(masked)), len(text)]
    pieces = (text[start:end].strip() for start, end in pairwise(cuts))
    return tuple(piece for piece in pieces if piece)
