r"""What is written around an answer and is no part of it: boxes, dollar signs, Markdown, quotes, tags."""

from __future__ import annotations

import re

from e2h_pipeline.grading.mathematics.extract import unwrap_box

_PAIRS = (
    ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("***", "***"), ("**", "**"), ("*", "*"),
    ("___", "___"), ("__", "__"), ("_", "_"), ("~~", "~~"), ("==", "=="), ("```", "```"), ("``", "``"), ("`", "`"),
    ('"', '"'), ("'", "'"), ("``", "''"), ("`", "'"), ("“", "”"), ("„", "“"), ("‘", "’"), ("«", "»"), ("「", "」"),
)  # fmt: skip
_AT_END = re.compile(
    r"(?:\s|</[a-zA-Z]*>?|<\|[a-z_]*\|?>?|<br ?/?>|[✓✔✅☑🎉■□∎]|\ufe0f|\\(?:blacksquare|qed|Box|qedsymbol)(?![a-zA-Z])"
    r"|(?<=\w|\}|\)|\]|%|\$)[,;:?]|(?<!\.)\.)\Z"
)
_AT_START = re.compile(
    r"\A(?:\s|[•●▪✅➡]|\ufe0f|<(?:answer|b|i|em|strong|code|u|p|mark)>|```(?:latex|math|text)\b)"
)
_ROUNDS = 6  # of decoration around decoration
_LONGEST_TAIL = 40


def undecorated(text: str) -> str:
    """Without outer box, delimiters, emphasis, quotes and tags, and the full stop behind."""
    text = text.strip()
    for _ in range(_ROUNDS):
        before = text
        text = _unwrapped(_trimmed(unwrap_box(text)))
        text = text.rstrip("\\").rstrip() if not text.endswith("\\ ") else text
        if text == before:
            break
    return text


def _trimmed(text: str) -> str:
    for _ in range(_LONGEST_TAIL):
        end = text[-_LONGEST_TAIL:]
        plain = end[-1:].isalnum() and "<" not in end and "\\" not in end
        tail = None if plain or text.endswith("\\ ") else _AT_END.search(text, len(text) - len(end))
        shorter = text[: tail.start()] if tail else text
        shorter = shorter if shorter[:1].isalnum() else _AT_START.sub("", shorter)
        if shorter == text:
            break
        text = shorter
    return text


def _unwrapped(text: str) -> str:
    for opener, closer in _PAIRS:
        if not (text.startswith(opener) and text.endswith(closer) and not text.endswith("\\$")):
            continue
        inner = text[len(opener) : -len(closer)]
        if inner.strip() and opener not in inner and closer not in inner:
            return inner.strip()
    return text
