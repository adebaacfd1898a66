r"""The final answer of a completion: our own answer block first, else the last balanced `\boxed{}`.

The box rule is that of the MATH data set (Hendrycks et al. 2021, `last_boxed_only_string`), so that
models that were never trained on our format can be graded too. Every function is linear in the text.
"""

from __future__ import annotations

import re

from e2h_pipeline.solutions import parse_completion

_TOKEN = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\boxed\s+([^\s${}\\]+)")


def final_answer(completion: str, finished: bool = True) -> str | None:
    """The answer of a completion, or None where there is none.

    Args:
        finished: False for a completion that was cut off by the length limit: it has no answer,
            whatever its text holds, because the policy had not stopped.
    """
    if not finished:
        return None
    answer = parse_completion(completion).answer
    if answer is None:
        return last_boxed(completion)
    return unwrap_box(answer)


def last_boxed(text: str) -> str | None:
    r"""Content of the balanced `\boxed{}` (or `\fbox{}`) that opens last, else the last bare `\boxed 5`.

    Escaped braces (`\{`) do not count as braces. An empty box is no answer.
    """
    box = _last_balanced_box(text)
    if box is not None:
        return text[box[1] : box[2]].strip() or None
    bare = _BARE_BOX.findall(text)
    return bare[-1] if bare else None


def unwrap_box(answer: str) -> str:
    r"""`\boxed{x}` and `$\boxed{x}$` as x; any other text as it is."""
    text = answer.strip()
    inner = text[1:-1].strip() if len(text) > 2 and text[0] == text[-1] == "$" else text
    box = _last_balanced_box(inner)
    if box is not None and box[0] == 0 and box[2] == len(inner) - 1:
        return inner[box[1] : box[2]].strip() or text
    return text


def _last_balanced_box(text: str) -> tuple[int, int, int] | None:
    """(start of the command, start and end of the content) of the balanced box that opens last.

    One pass with a stack of open braces; a search per box would be quadratic on hostile text.
    """
    open_braces: list[tuple[int, int] | None] = []
    best: tuple[int, int, int] | None = None
    for token in _TOKEN.finditer(text):
        if token[0] == "{":
            open_braces.append(None)
        elif token[0] == "}":
            opened = open_braces.pop() if open_braces else None
            if opened is not None and (best is None or opened[0] > best[0]):
                best = (*opened, token.start())
        elif token[0].endswith("{") and len(token[0]) > 2:
            open_braces.append((token.start(), token.end()))
    return best
