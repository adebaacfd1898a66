"""Programs that do the same are one answer: what each does on inputs made from the question's own examples.

Two right programs seldom have the same text, so votes go to behaviour, as in execution-based consensus
(AlphaCode, Li et al. 2022; MBR-exec, Shi et al. 2022). The inputs are the examples that the question shows and changed
copies of them, drawn from the question alone: tests have no say, and nor has the set of programs. A changed input may
break the rules of a question; then programs may differ where it does not matter, and votes split.
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

INPUTS = 8
"""Inputs of a problem; the examples themselves come first."""
_LONGEST_CALL = 500  # characters
_DIGITS = 9
_DEFINED = re.compile(r"^\s*def (\w+)\(", re.MULTILINE)
_NAMED = re.compile(r"function `(\w+)`")
_ASSERTED = re.compile(r"^\s*assert .*?(\w+)\(", re.MULTILINE)
_HEADING = re.compile(r"^\W*(?:sample |example )?(input|output)[ \d]*\W*$", re.IGNORECASE)
_TOKEN = re.compile(r"(?<![\w.])(?:-?[0-9]{1,15}|[^\W\d_]+)(?![\w.])")


@dataclass(frozen=True)
class Probe:
    """Inputs on which programs are watched.

    Attributes:
        entry_point: the function; None where programs read and write.
        inputs: arguments of each call as a JSON array, or what is read.
    """

    entry_point: str | None
    inputs: tuple[str, ...]


def probe_of(question: str) -> Probe | None:
    """The inputs for a question; None where it shows no example."""
    rng = random.Random(f"probe/{question}")
    for name in _entry_points(question):
        if calls := list(_calls(question, name)):
            return Probe(
                name, _made(calls, lambda call: [_changed(part, rng) for part in call], json.dumps, rng)
            )
    if blocks := list(_blocks(question)):
        return Probe(None, _made(blocks, lambda block: _other_tokens(block, rng), str, rng))
    return None


def canonical(value: Any) -> str:
    """A result as text: equal results of a call have equal texts."""
    return json.dumps(_canonical(value), sort_keys=True)


def _made(examples: list[Any], change: Any, write: Any, rng: random.Random) -> tuple[str, ...]:
    """The examples and changed copies, no input twice."""
    found = dict.fromkeys(write(example) for example in examples[:INPUTS])
    for _ in range(4 * INPUTS):
        if len(found) >= INPUTS:
            break
        found.setdefault(write(change(rng.choice(examples))))
    return tuple(found)


def _entry_points(question: str) -> Iterator[str]:
    """Names that could be the function asked for, the likeliest first."""
    yield from reversed(_DEFINED.findall(question))
    yield from _NAMED.findall(question)
    yield from _ASSERTED.findall(question)


def _calls(question: str, name: str) -> Iterator[list[Any]]:
    """The arguments of each call of a function that the question shows with plain values."""
    for match in re.finditer(rf"(?<!def )\b{re.escape(name)}\(", question):
        text = question[match.start() : match.start() + _LONGEST_CALL]
        for end in (i + 1 for i, sign in enumerate(text) if sign == ")"):
            arguments = _literals(text[:end])
            if arguments is not None:
                yield arguments
                break


def _literals(call: str) -> list[Any] | None:
    """Arguments of a call that is written out; None where it is no such call, or JSON has no form for one."""
    try:
        node = ast.parse(call.strip(), mode="eval").body  # of a question, not of a model
        if not isinstance(node, ast.Call) or node.keywords or not node.args:
            return None
        found = [ast.literal_eval(argument) for argument in node.args]
        return found if json.loads(json.dumps(found)) == found else None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _blocks(question: str) -> Iterator[str]:
    """What stands below each heading `Input` with an `Output` behind it."""
    block: list[str] | None = None
    for line in question.splitlines():
        heading = _HEADING.match(line)
        if heading and heading[1].lower() == "output" and block is not None:
            text = "\n".join(block).strip().strip("`").strip()
            if text:
                yield text + "\n"
        if heading:
            block = [] if heading[1].lower() == "input" else None
        elif block is not None:
            block.append(line)


def _changed(value: Any, rng: random.Random) -> Any:
    """A value of the same kind."""
    if isinstance(value, bool):
        return rng.random() < 0.5
    if isinstance(value, int):
        return rng.choice(
            [value + rng.randint(-3, 3), -value, 0, 1, 10 * value, rng.randint(0, abs(value) + 1)]
        )
    if isinstance(value, float):
        return round(value * rng.choice([-1, 0.5, 2, 10]) + rng.choice([0, 0.25, 1]), 4)
    if isinstance(value, str):
        return "".join(_other_order(list(value), rng))
    if isinstance(value, list):
        parts = _other_order(value, rng)
        return [_changed(part, rng) if rng.random() < 0.5 else part for part in parts]
    if isinstance(value, dict):
        return {key: _changed(part, rng) for key, part in value.items()}
    return value


def _other_order(parts: list[Any], rng: random.Random) -> list[Any]:
    """Reversed, shuffled, shorter, longer, or the same."""
    way = rng.randrange(6)
    if way == 0:
        return parts[::-1]
    if way == 1:
        return rng.sample(parts, len(parts))
    if way == 2:
        return parts[: rng.randint(0, len(parts))]
    if way == 3:
        return parts + parts[: rng.randint(0, len(parts))]
    return parts


def _other_tokens(block: str, rng: random.Random) -> str:
    """The same lines with a few other numbers or words."""
    places = list(_TOKEN.finditer(block))
    for match in sorted(rng.sample(places, min(len(places), rng.randint(1, 3))), key=lambda m: -m.start()):
        old = match[0]
        if old.lstrip("-").isdecimal():
            new = str(abs(_changed(int(old), rng)))
        else:
            new = "".join(_other_order(list(old), rng)) or old + old[0]
        block = block[: match.start()] + new + block[match.end() :]
    return block


def _canonical(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, list | tuple):
        return [_canonical(part) for part in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted(canonical(part) for part in value)}
    if isinstance(value, dict):
        return {"dict": sorted([canonical(key), canonical(part)] for key, part in value.items())}
    return value if value is None or isinstance(value, int | str) else repr(value)
