r"""The final answer of a response: where it stands, and the rule that found it.

The rules, in this order:

1. A response that was cut off has no answer, whatever its text holds: the policy had not stopped.
2. `answer-block`: our own format, the block behind the last `# Answer`.
3. `boxed`, `final-answer`, `hash`, `tag`: the last balanced `\boxed{}` (Hendrycks et al. 2021), Minerva's
   `final answer is X` (Lewkowycz et al. 2022), GSM8K's `#### X` and `<answer>X</answer>`. Of these the one
   that comes last in the text counts. Boxes side by side, or with a comma, `and` or `or` between them,
   count together.
4. `answer-is`: the last `answer is X` or `answer: X`.
5. `conclusion`: the mathematics or number that ends a last sentence beginning with `therefore`, `thus`,
   `so` or the like, in a text that ends as a text does and not in the middle of a sentence.
6. `whole`: a response of one short line is its own answer.

Every rule is linear in the text. `from_prose` reads an answer that is a sentence: by rules 3 to 5, and then by
its last mathematics or number. That is lenient, but the sentence has been given as the answer already.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from e2h_pipeline.solutions import MARKED

SHORT = 120
"""Characters of a line that may be an answer by itself."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """`response[start:end]` holds the answer, by `rule`; `answer` is that text without its box."""

    answer: str
    start: int
    end: int
    rule: str


def final_answer(completion: str, finished: bool = True) -> str | None:
    """The marked answer of a completion, or None where there is none. See `extract`."""
    found = extract(completion, finished, lenient=False)
    return None if found is None else found.answer


def any_answer(completion: str, finished: bool = True) -> str | None:
    """The answer of a text by another's model, which marks it in its own way, by all rules of
    `extract`."""
    found = extract(completion, finished)
    return None if found is None else found.answer


def extract(response: str, finished: bool = True, lenient: bool = True) -> Extraction | None:
    """The final answer and its place, or None where there is none.

    Args:
        finished: False for a response that was cut off by the length limit.
        lenient: False stops at the markers (rules 1 to 3). A policy that is trained or measured must write one of
            them, so that nothing less earns a reward.
    """
    if not finished:
        return None
    strict = _answer_block(response) or _marked(response)
    if strict is not None or not lenient:
        return strict
    return _answer_is(response) or _conclusion(response) or _whole(response)


def last_boxed(text: str) -> str | None:
    r"""Content of the balanced `\boxed{}` (or `\fbox{}`) that opens last, else the last bare `\boxed 5`.

    Escaped braces (`\{`) do not count as braces. A box that is empty or holds a placeholder is no answer.
    """
    boxes = _answer_boxes(text)
    if boxes:
        return text[boxes[-1][1] : boxes[-1][2]].strip()
    bare = _bare_box(text)
    return None if bare is None else bare[1]


def unwrap_box(answer: str) -> str:
    r"""`\boxed{x}` and `$\boxed{x}$` as x; any other text as it is."""
    text = answer.strip()
    inner = text[1:-1].strip() if len(text) > 2 and text[0] == text[-1] == "$" else text
    boxes = _boxes(inner)
    if boxes and boxes[-1][0] == 0 and boxes[-1][2] == len(inner) - 1:
        return inner[boxes[-1][1] : boxes[-1][2]].strip() or text
    return text


def from_prose(text: str) -> str | None:
    """The answer inside a sentence that was given as an answer; None where there is none."""
    found = _marked(text) or _answer_is(text)
    if found is not None:
        return found.answer
    place = _last_value(text, 0, len(text))
    return None if place is None else text[slice(*place)].strip()


# Boxes

_BOX_TOKEN = re.compile(r"\\{1,4}(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(
    r"\\boxed\s+((?![aI](?![a-zA-Z]))(?:[a-zA-Z](?![a-zA-Z])|[^\s${}\\a-zA-Z])[^\s${}\\]*)"
)
_PLACEHOLDER = re.compile(
    r"(?:\\(?:text|mathrm|textbf)\s*)?[\s{<\[(]*(?:(?:the |your )?(?:final )?(?:answer|result|solution|value)(?: here)?"
    r"|\.{2,}|…|\\(?:l|c)?dots|_+|\\_+|\?+|\\square|\\cdot|)[\s}>\])]*",
    re.IGNORECASE,
)
_BLANK = re.compile(r"\s*")
_LONGEST_PLACEHOLDER = 60
_LONGEST_JOIN = 100
_TYPESETTING = re.compile(r"\\(?:text|mbox|qquad|quad)|[\s${}()\[\]\\]")
_JOIN = re.compile(
    r"[,;]?"
    r"|(?:[^.!?]{0,40}[\s,;])?(?:and|or)"
    r"|(?:[^.!?]{0,40}?[\s,;])?(?:and|or|,|;)(?:\s+[^.!?,;]{1,60})?"
    r"|[^!?]{0,60}\b(?:second|third|fourth|other|another|next one|also|ii|iii|b|c)\b[^!?]{0,40}"
)
_SAID_AGAIN = re.compile(
    r"\\approx|≈|\b(?:equivalent\w*|simpl\w+|i\.?e|that is|which is|other words|decimals?|approx\w*|about|therefore"
    r"|thus|hence|so|then|final\w*|answer|express\w*|convert\w*|round\w*|equals?|becomes|gives|gets?|but|wait|actually"
    r"|instead|not|mistake|correct\w*|also be|can be|written|form|same|we|since|because|note|step|now|next)\b",
    re.IGNORECASE,
)


def _boxes(text: str) -> list[tuple[int, int, int]]:
    """(start of the command, start and end of the content) of every balanced box, in order of opening.

    One pass with a stack of open braces; a search per box would be quadratic on hostile text.
    """
    if "box" not in text:
        return []
    open_braces: list[tuple[int, int] | None] = []
    found: list[tuple[int, int, int]] = []
    for token in _BOX_TOKEN.finditer(text):
        if token[0] == "{":
            open_braces.append(None)
        elif token[0] == "}":
            opened = open_braces.pop() if open_braces else None
            if opened is not None:
                found.append((*opened, token.start()))
        elif token[0].endswith("{") and len(token[0]) > 2:
            open_braces.append((token.start(), token.end()))
    return sorted(found)


def _answer_boxes(text: str) -> list[tuple[int, int, int]]:
    """`_boxes` without those that are empty or hold a placeholder."""
    return [box for box in _boxes(text) if not _is_placeholder(text, *box[1:])]


def _is_placeholder(text: str, start: int, end: int) -> bool:
    if _BLANK.fullmatch(text, start, end):
        return True
    return end - start <= _LONGEST_PLACEHOLDER and _PLACEHOLDER.fullmatch(text, start, end) is not None


def _bare_box(text: str) -> re.Match[str] | None:
    """The last `\\boxed 5`; a word behind `\\boxed` only mentions it."""
    bare = list(_BARE_BOX.finditer(text))
    return bare[-1] if bare else None


def _boxed(text: str) -> Extraction | None:
    """The last box, with the boxes before it that it is joined to."""
    boxes = _answer_boxes(text)
    if not boxes:
        bare = _bare_box(text)
        return Extraction(bare[1], bare.start(1), bare.end(1), "boxed") if bare else None
    first = len(boxes) - 1
    while first and _joined(text, boxes[first - 1][2] + 1, boxes[first][0]):
        first -= 1
    contents = list(dict.fromkeys(text[start:end].strip() for _, start, end in boxes[first:]))
    either = " or " in text[boxes[first][2] + 1 : boxes[-1][0]] and len(contents) == 2
    return Extraction(
        (" \\text{ or } " if either else ", ").join(contents), boxes[first][1], boxes[-1][2], "boxed"
    )


def _joined(text: str, start: int, end: int) -> bool:
    """Whether two boxes are one answer; see the module."""
    if not 0 <= end - start <= _LONGEST_JOIN or "\n\n" in text[start:end]:
        return False
    between = _TYPESETTING.sub(" ", text[start:end]).strip()
    return _JOIN.fullmatch(between) is not None and _SAID_AGAIN.search(between) is None


# Markers

_FINAL = re.compile(r"final answer\s*(?:is|:|=)(?:\s*\*\*)?\s*:?", re.IGNORECASE)
_TAG = re.compile(r"<answer>\s*(?=\S)", re.IGNORECASE)
_HASH = re.compile(r"(?<!#)####(?!#)[ \t]*(?=\S)")
ANSWER_IS = re.compile(
    r"(?:answer|ans|r[ée]ponse|result|respuesta|antwort|ответ)\b\s*(?:to (?:the|this) \w+ )?"
    r"(?:is|are|est|es|ist|(?:should|must|will|would) be|equals|comes out (?:to be|to|as)|:|=|\*\*:?|__:?)"
    r"(?:\*\*|__)?\s*:?"
    r"|^[#*_ \t]*(?:final )?answer[*_: \t]*\n+(?=\s*\S)"
    r"|答案\s*(?:是|为|：|:)",
    re.IGNORECASE | re.MULTILINE,
)
_STRONG = {"final-answer": _FINAL, "hash": _HASH, "tag": _TAG}
_STOP = re.compile(r"\s*(?:I hope it is correct|\\?</[a-z]*>?)")
_LINE_LIMIT = 400


def _answer_block(response: str) -> Extraction | None:
    solution = MARKED.parse(response)
    if solution.answer is None:
        return None
    place = response.rindex(solution.answer)
    answer = unwrap_box(solution.answer)
    return Extraction(answer, place, place + len(solution.answer), "answer-block") if answer else None


def _marked(text: str) -> Extraction | None:
    """The strong markers; the one that comes last in the text counts."""
    found = [_boxed(text), *(_after(text, marker, rule) for rule, marker in _STRONG.items())]
    return max((mark for mark in found if mark), key=lambda mark: mark.end, default=None)


def _answer_is(text: str) -> Extraction | None:
    return _after(text, ANSWER_IS, "answer-is")


def _after(text: str, marker: re.Pattern[str], rule: str) -> Extraction | None:
    """What stands behind the last marker that has an answer behind it."""
    for match in reversed(list(marker.finditer(text))[-8:]):
        start, end = _tail(text, match.end())
        piece = text[start:end]
        boxes = _boxes(piece)
        if boxes:
            content = piece[boxes[-1][1] : boxes[-1][2]].strip()
            if content:
                return Extraction(content, start, end, rule)
            continue
        if rule not in ("hash", "tag"):
            place = _answer_in(text, start, end)
            if place is None:
                continue
            start, end = place
        answer = text[start:end].strip().strip("*").strip()
        if answer:
            return Extraction(answer, start, end, rule)
    return None


def _tail(text: str, start: int) -> tuple[int, int]:
    """The rest of the sentence or display behind a marker: to the end of the line if it has text."""
    while start < len(text) and text[start] in " \t\n*:":
        start += 1
    if text.startswith(("\\[", "$$"), start):
        closing = text.find("\\]" if text[start] == "\\" else "$$", start + 2)
        if closing > 0:
            return start, closing + 2
    end = text.find("\n", start)
    end = min(len(text) if end < 0 else end, start + _LINE_LIMIT)
    stop = _STOP.search(text, start, end)
    end = stop.start() if stop else end
    sentence = _SENTENCE_END.search(text, start, end)
    return start, sentence.start() if sentence else end


_SENTENCE_END = re.compile(r"[.!?。](?:\s|\*\*|<\||$)")
_CONTROL_TOKEN = re.compile(r"<\|[a-z_]+\|>.*", re.DOTALL)


# Values in sentences

_MATHS = re.compile(
    r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|(?<!\\)\$((?:[^$\n\\]|\\.)+?)\$|\\\(([^\n]+?)\\\)", re.DOTALL
)
_BETWEEN = re.compile(r"\s*(?:,|;|and|or|,\s*and|,\s*or)\s*")
_RUN = re.compile(
    r"(?:\\[$%])?(?<![A-Za-z0-9'’])(?:"
    r"\\(?:frac|dfrac|tfrac|sqrt|pi|infty|left|right|times|cdot|pm)(?![a-zA-Z])|\^\{?\\circ\}?|\\[$%,!;]"
    r"|[-+*/^_={}()\[\],.:<>!%$√π∞−×÷²³°]|\d|[a-zA-Z](?![a-zA-Z])|(?<=\S) (?=[-+*/=\d(\\]))+"
)
_CHOICE = re.compile(r"(?<![A-Za-z'\\])\(?([A-J])\)?(?![A-Za-z'’])")


def _answer_in(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The answer in the piece behind a marker: all of it if short, else its value."""
    piece = text[start:end].strip().rstrip(".")
    if not piece:
        return None
    if _CHOICE.search(piece) and not any(c.isdigit() or c in "\\$" for c in piece):
        match = _CHOICE.search(text, start, end)
        assert match is not None
        return match.span(1)
    if len(piece.split()) == 1 or (
        len(piece) <= 40 and not re.search(r"[a-z]{2,} [a-z]{2,}|[^\x00-\x7f]{2,}", piece)
    ):
        return start, start + len(text[start:end].rstrip().rstrip("."))
    return _last_value(text, start, end) or ((start, end) if len(piece) <= SHORT else None)


def _last_value(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The last mathematics in a sentence, and what commas or `and` join it to; else its last run of plain
    mathematics with a digit. A `$` or `\\(` that does not close makes the sentence unreadable: inline mathematics
    ends on the line where it began."""
    segments = [match.span() for match in _MATHS.finditer(text, start, end)]
    if segments:
        first = len(segments) - 1
        while first and _BETWEEN.fullmatch(text, segments[first - 1][1], segments[first][0]):
            first -= 1
        later = _RUN_AFTER.search(text, segments[-1][1], end)
        if later is None:
            return segments[first][0], segments[-1][1]
        start = later.start(1)
    piece = text[start:end]
    if "\\(" in piece or len(_LONE_DOLLAR.findall(piece)) > 1:
        return None
    runs = [match for match in _RUN.finditer(text, start, end) if any(c.isdigit() for c in match[0])]
    if not runs:
        choices = list(_CHOICE.finditer(text, start, end))
        return choices[0].span(1) if choices else None
    low, high = runs[-1].span()
    for before in reversed(runs[:-1]):  # 1 or 13
        if not _BETWEEN.fullmatch(text, before.end(), low):
            break
        low = before.start()
    while high > low and text[high - 1] in " .,:;=<>(*":
        high -= 1
    while (
        low < high
        and text[low] in " .,:;=<>)*"
        and not (text[low] == "." and text[low + 1 : low + 2].isdigit())
    ):
        low += 1
    low, high = _balanced(text, low, high)
    area = _AREA.search(text, low, high)
    if area is not None:
        return low, area.start()
    unit = _UNIT.match(text, high, end)
    return low, unit.end() if unit else high


_LONE_DOLLAR = re.compile(r"(?<!\\)\$(?!\d)")
_UNIT = re.compile(r"\s?(?:percent|degrees|%)")


_AREA = re.compile(r"(?<=\d)[a-z]{1,2}(?:[²³]|\^\{?[23]\}?)?$")  # 1,000.99m², in a sentence
_RUN_AFTER = re.compile(r"\b(?:is|are|equals|be|by|to)\s+((?:\\?\$)?-?[\d.])")


def _balanced(text: str, low: int, high: int) -> tuple[int, int]:
    """Without brackets at the ends that have no partner; then behind the last equals sign."""
    run = text[low:high]
    while (
        run and run[-1] in ")]}" and run.count(run[-1]) > run.count({")": "(", "]": "[", "}": "{"}[run[-1]])
    ):
        run, high = run[:-1], high - 1
    while run and run[0] in "([{" and run.count(run[0]) > run.count({"(": ")", "[": "]", "{": "}"}[run[0]]):
        run, low = run[1:], low + 1
    return low, high


_CONCLUDES = re.compile(
    r"(?<![a-zA-Z])(?:Therefore|Thus|So|Hence|In conclusion|We conclude|Consequently|Finally|En conclusion)(?![a-z])"
    r"|因此|所以"
)
_SENTENCES = re.compile(r"(?<=[.!?。])\s+")


def _conclusion(response: str) -> Extraction | None:
    """The value of a concluding last sentence."""
    text = _CONTROL_TOKEN.sub("", response[-4000:]).rstrip()
    text = text.removesuffix("I hope it is correct.").rstrip()
    if not text or text[-1] not in ".!。$)]*":
        return None
    offset = max(0, len(response) - 4000)
    cuts = [match.end() for match in _SENTENCES.finditer(text)]
    start = cuts[-1] if cuts else 0
    if not _CONCLUDES.search(text, start):
        return None
    place = _last_value(text, start, len(text))
    if place is None:
        return None
    answer = text[slice(*place)].strip()
    return Extraction(answer, offset + place[0], offset + place[1], "conclusion") if answer else None


def _whole(response: str) -> Extraction | None:
    text = response.strip()
    if not text or len(text) > SHORT or "\n" in text:
        return None
    start = response.index(text)
    return Extraction(text, start, start + len(text), "whole")
