"""Records of programming problems as problems: APPS, LiveCodeBench, HumanEval and MBPP, told apart by their
fields.

| | question | tests | level |
|---|---|---|---|
| APPS | `question`, `starter_code` | `input_output` (JSON) | `difficulty` |
| LiveCodeBench | `question_content`, `starter_code` | `public_test_cases`, `private_test_cases` (JSON) | `difficulty` |
| HumanEval | `prompt` | `test`, `entry_point` | `level`, if any |
| MBPP | `text` or `prompt` | `test_list`, `test_setup_code` | `level`, if any |

LiveCodeBench publishes its private cases pickled. They are refused: decode them to JSON first.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2h_pipeline.grading.code.suites import PAYLOAD, Asserts, CallCases, StdinCases, Suite, to_text
from e2h_pipeline.problems.code.text import logical_lines
from e2h_pipeline.problems.jsonl import field
from e2h_pipeline.problems.records import Problem, ProblemError

LEVELS = {
    "introductory": 1,
    "interview": 2,
    "competition": 3,  # APPS
    "easy": 1,
    "medium": 2,
    "hard": 3,  # LiveCodeBench
}
SUBJECT = "program"
_READS = "Read from standard input and write to standard output."

Record = dict[str, Any]


class NoTests(Exception):
    """A problem that carries no tests, as some of APPS."""


def problem_of_record(record: Record, problem_id: str, where: Path | str, line: int) -> Problem:
    """A record as a problem.

    Raises:
        ProblemError: a field is missing or cannot be used.
        NoTests: there is nothing to check a program with.
    """
    if "input_output" in record:
        question, suite, solution = _apps(record, where, line)
    elif "public_test_cases" in record:
        question, suite, solution = _live_code_bench(record, where, line)
    elif "test_list" in record:
        question, suite, solution = _mbpp(record, where, line)
    elif "entry_point" in record:
        question, suite, solution = _human_eval(record, where, line)
    else:
        raise ProblemError(
            f"{where}:{line}: no tests that are known: a record has input_output (APPS), public_test_cases "
            "(LiveCodeBench), test_list (MBPP) or entry_point and test (HumanEval)"
        )
    if not isinstance(suite, Asserts) and not suite.cases:
        raise NoTests
    return Problem(
        problem_id,
        _level(record, where, line),
        SUBJECT,
        question.strip(),
        tuple(logical_lines(solution)),
        solution,
        {PAYLOAD: to_text(suite)},
    )


def _level(record: Record, where: Path | str, line: int) -> int | None:
    value = record.get("level", record.get("difficulty"))
    if value is None or value in (1, 2, 3):
        return value
    if value not in LEVELS:
        raise ProblemError(
            f"{where}:{line}: level {value!r} is not 1-3 or one of {', '.join(LEVELS)}; use null where it is not known"
        )
    return LEVELS[value]


def _apps(record: Record, where: Path | str, line: int) -> tuple[str, Suite, str]:
    tests = _json(record, "input_output", dict, where, line) if record["input_output"] else {}
    given, wanted = tests.get("inputs", []), tests.get("outputs", [])
    if len(given) != len(wanted):
        raise ProblemError(
            f"{where}:{line}: 'input_output' has {len(given)} inputs and {len(wanted)} outputs"
        )
    solutions = _json(record, "solutions", list, where, line) if record.get("solutions") else []
    suite: Suite
    if name := tests.get("fn_name"):
        suite = CallCases(
            name, tuple((_arguments(a, where, line), w) for a, w in zip(given, wanted, strict=True))
        )
    else:
        suite = StdinCases(tuple((_lines(a), _lines(w)) for a, w in zip(given, wanted, strict=True)))
    question = field(record, "question", str, where, line)
    return (
        _asked(question, record.get("starter_code"), name),
        suite,
        _program(solutions[0] if solutions else ""),
    )


def _live_code_bench(record: Record, where: Path | str, line: int) -> tuple[str, Suite, str]:
    cases = _json(record, "public_test_cases", list, where, line)
    if record.get("private_test_cases"):
        cases = [*cases, *_json(record, "private_test_cases", list, where, line)]
    named = _json(record, "metadata", dict, where, line) if record.get("metadata") else {}
    name = named.get("func_name")
    try:
        suite: Suite
        if name:
            suite = CallCases(name, tuple((_values(c["input"]), json.loads(c["output"])) for c in cases))
        else:
            suite = StdinCases(tuple((str(c["input"]), str(c["output"])) for c in cases))
    except (KeyError, TypeError, ValueError) as error:
        raise ProblemError(
            f"{where}:{line}: a test case cannot be used ({error}); mend or delete it"
        ) from None
    question = field(record, "question_content", str, where, line)
    return _asked(question, record.get("starter_code"), name), suite, ""


def _human_eval(record: Record, where: Path | str, line: int) -> tuple[str, Suite, str]:
    prompt, test, name = (field(record, key, str, where, line) for key in ("prompt", "test", "entry_point"))
    suite = Asserts(name, prompt, f"{test}\ncheck(candidate)\n")
    solution = record.get("canonical_solution")
    return prompt, suite, _program(prompt + solution) if solution else ""


def _mbpp(record: Record, where: Path | str, line: int) -> tuple[str, Suite, str]:
    tests = [str(test) for test in field(record, "test_list", list, where, line)]
    setup = record.get("test_setup_code") or "\n".join(record.get("test_imports") or [])
    question = field(record, "text" if "text" in record else "prompt", str, where, line)
    shown = "\n".join([question, "Your program must pass this test:", *tests[:1]])
    return (
        shown,
        Asserts(_called(tests, where, line), setup, "\n".join(tests)),
        _program(record.get("code") or ""),
    )


def _called(tests: list[str], where: Path | str, line: int) -> str:
    """The function that asserts are about: the first name called that Python does not have itself."""
    import builtins

    try:
        tree = ast.parse("\n".join(tests))  # of a data set, not of a model
    except SyntaxError as error:
        raise ProblemError(f"{where}:{line}: 'test_list' is not Python ({error.msg}); mend it") from None
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and not hasattr(builtins, node.func.id)
        ):
            return node.func.id
    raise ProblemError(f"{where}:{line}: 'test_list' calls no function; delete the record")


def _asked(question: str, starter: Any, name: str | None) -> str:
    """The question with the beginning of a program, if there is one, and what a program must do."""
    how = f"Write the function `{name}`." if name else _READS
    return "\n\n".join(part.strip() for part in (question, str(starter or ""), how) if part.strip())


def _program(text: str) -> str:
    return text.replace("\r\n", "\n").strip("\n")


def _lines(value: Any) -> str:
    """APPS writes a text, or its lines."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _arguments(value: Any, where: Path | str, line: int) -> list[Any]:
    if not isinstance(value, list):
        raise ProblemError(f"{where}:{line}: an input of a function must be the list of its arguments")
    return value


def _values(text: str) -> list[Any]:
    """LiveCodeBench writes the arguments of a call as a line of JSON each."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _json(record: Record, name: str, kind: type, where: Path | str, line: int) -> Any:
    """A field that is JSON as text, or has been read already."""
    value = record[name]
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise ProblemError(f"{where}:{line}: '{name}' is not JSON; decode it to JSON first") from None
    if not isinstance(found, kind) or (kind is dict and not isinstance(found, Mapping)):
        raise ProblemError(f"{where}:{line}: '{name}' must hold {kind.__name__}, not {type(found).__name__}")
    return found
