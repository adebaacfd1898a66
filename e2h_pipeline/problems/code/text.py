"""How programs are written as solutions: a fenced block, whose steps are its logical lines.

    ```python
    total = sum(
        numbers)          <- one step with the line above
    print(total)
    ```

The closing fence is the answer's segment, and the answer is the program. Text before the block is one
step. Nothing here parses Python: a program may be broken, or too deep for the parser.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from e2h_pipeline.solutions import Solution, TextFormat

FENCE = "```"
_OPENING = re.compile(r"^```[\w+.-]*[ \t]*$", re.MULTILINE)
_CLOSING = re.compile(r"^```[ \t]*$", re.MULTILINE)
_WORD = re.compile(r"[^\W\d]\w*")
_PARAMETERS = re.compile(r"\bdef \w+\(([^()]*)\)")
_INPUTS = frozenset({"input", "stdin", "argv", "open"})
_TOKENS = re.compile(r"\"\"\"|'''|\\.|[\"'#()\[\]{}]", re.DOTALL)


@dataclass(frozen=True)
class ProgramFormat(TextFormat):
    """The format of programs; see the module."""

    question_heading: str = "# Task"
    solution_heading: str = "# Program"
    answer_marker: str = FENCE
    separator: str = "\n"
    verbatim: bool = True
    language: str = "python"

    def completion(self, steps: Sequence[str], answer: str) -> str:
        """A program in its block, behind those steps that are no lines of it."""
        lines = {line.strip() for line in logical_lines(answer)}
        before = [step.strip() for step in steps if step.strip() and step.strip() not in lines]
        return "\n".join([*before, f"{FENCE}{self.language}", answer.strip("\n"), FENCE])

    def parse(self, completion: str) -> Solution:
        """Steps, program and spans; the last block that is opened counts. Without a closing fence there is no
        answer."""
        opening = _last_opening(completion)
        if opening is None:
            return _without_block(completion)
        before, begin = completion[: opening[0]], opening[1]
        closing = _CLOSING.search(completion, begin)
        end = closing.start() if closing else len(completion)
        steps, spans = _steps(completion[begin:end], begin)
        if before.strip():
            steps, spans = [before.strip(), *steps], [(0, begin), *spans]
        elif spans:
            spans[0] = (0, spans[0][1])  # the fence belongs to the first line
        program = completion[begin:end].strip("\n")
        if closing is None or not program.strip():
            return Solution(tuple(steps), None, tuple(spans))
        return Solution(tuple(steps), program, (*spans, (end, len(completion))))


TEXT = ProgramFormat()


def answer_of(completion: str, finished: bool) -> str | None:
    """The program; a completion that was cut off has none."""
    return TEXT.parse(completion).answer if finished else None


def outside_answer_of(completion: str, finished: bool) -> str | None:
    """The program of another's model: its last block, or all of a text without any."""
    if not finished:
        return None
    if _last_opening(completion) is None:
        return completion.strip("\n") or None
    return TEXT.parse(completion).answer


def is_blind(program: str) -> bool:
    """Whether a program names neither its input nor, apart from where they are defined, a parameter of its
    functions: it has special cases at best. Words in comments and texts count as uses, so a few are missed."""
    words = Counter(_WORD.findall(program))
    if _INPUTS & words.keys():
        return False
    lists = _PARAMETERS.findall(program)
    defined = Counter(
        part.split(":")[0].split("=")[0].strip(" *\n\t") for one in lists for part in one.split(",")
    )
    return all(words[name] <= times for name, times in defined.items() if name and name != "self")


def logical_lines(program: str) -> list[str]:
    """Lines with something on them; those inside of brackets or a long string belong to the line where
    it began."""
    return _steps(program, 0)[0]


def _steps(program: str, place: int) -> tuple[list[str], list[tuple[int, int]]]:
    """Logical lines and their ranges, the line breaks and blank lines behind them included."""
    steps: list[str] = []
    spans: list[tuple[int, int]] = []
    for start, end in _ranges(program):
        if program[start:end].strip():
            steps.append(program[start:end].rstrip())
            spans.append((place + start, place + end))
        elif spans:
            spans[-1] = (spans[-1][0], place + end)
    return steps, spans


def _ranges(program: str) -> Iterator[tuple[int, int]]:
    """Ranges of logical lines: each ends behind a line break that no bracket and no string contains."""
    start = place = depth = 0
    quote = ""
    while place < len(program):
        line_end = program.find("\n", place)
        line_end = len(program) if line_end < 0 else line_end + 1
        depth, quote, continued = _after(program[place:line_end], depth, quote)
        place = line_end
        if not (depth or quote or continued):
            yield start, place
            start = place
    if start < len(program):
        yield start, len(program)


def _after(line: str, depth: int, quote: str) -> tuple[int, str, bool]:
    """Depth of brackets and open long string behind a line, and whether it ends in a backslash."""
    for token in _TOKENS.finditer(line):
        sign = token[0]
        if sign[0] == "\\":
            if sign == "\\\n" and not quote:
                return depth, "", True
        elif quote:
            quote = "" if sign == quote else quote
        elif sign == "#":
            break
        elif sign[0] in "\"'":
            quote = sign
        else:
            depth = max(0, depth + (1 if sign in "([{" else -1))
    return depth, quote if len(quote) == 3 else "", False


def _last_opening(completion: str) -> tuple[int, int] | None:
    """Range of the last line that opens a block: fences open and close in turn."""
    found, place = None, 0
    while opening := _OPENING.search(completion, place):
        begin = min(opening.end() + 1, len(completion))
        found = (opening.start(), begin)
        closing = _CLOSING.search(completion, begin)
        if closing is None:
            break
        place = closing.end()
    return found


def _without_block(completion: str) -> Solution:
    steps, spans = _steps(completion, 0)
    return Solution(tuple(steps), None, tuple(spans))
