"""MetaMathQA (Yu et al. 2023, arXiv 2309.12284): problems of MATH and GSM8K rewritten, and solved
by a model.

A record has four fields: `query`, the question; `response`, a solution that ends with `The answer
is: ...`; `type`, the set it comes from and how it was rewritten (`MATH_AnsAug`, `MATH_Rephrased`,
`MATH_SV`, `MATH_FOBAR`, and the same of `GSM`); and `original_question`, which tells the level of
the problem. A step is a line, or a sentence of one (paper's code, prepare_metamath). The part of
GSM8K behind `####` only repeats the answer and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2h_pipeline.problems.jsonl import BadLine, field, parse_each
from e2h_pipeline.problems.math.steps import split_sentences
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.solutions import ANSWER_MARKER

MATH, GSM8K = "MATH", "GSM"
_ANSWER, _GSM8K_ANSWER = "The answer is", "####"
_LONGEST = 20_000
"""Characters of a response at most: a formula that never ends would take quadratic time."""


@dataclass(frozen=True)
class RewrittenSolution:
    """A solved question. `origin` is `MATH` or `GSM`, `original_question` the one that was
    rewritten."""

    kind: str
    origin: str
    original_question: str
    question: str
    steps: tuple[str, ...]
    answer: str


def read_metamath(path: Path) -> Iterator[RewrittenSolution | BadLine]:
    """The records of a .json array or of .jsonl lines, gzipped or not, one after the other.

    Raises:
        ProblemError: no such file, or a damaged one.
    """
    return parse_each(path, _read)


def _read(record: dict[str, Any], path: Path, line: int) -> RewrittenSolution:
    query, response, kind, original = (
        field(record, name, str, path, line).strip()
        for name in ("query", "response", "type", "original_question")
    )
    where = f"{path}:{line}"
    origin = kind.partition("_")[0]
    if origin not in (MATH, GSM8K):
        raise ProblemError(f"{where}: type {kind!r} is neither {MATH}_... nor {GSM8K}_...")
    if not query or not original:
        raise ProblemError(f"{where}: no question in 'query' or in 'original_question'")
    if len(response) > _LONGEST:
        raise ProblemError(f"{where}: 'response' has {len(response):,} characters, more than {_LONGEST:,}")
    body, marker, answer = response.rpartition(_ANSWER)
    steps = split_sentences(body.partition(_GSM8K_ANSWER)[0])
    answer = answer.removeprefix(":").strip()
    if not marker or not answer or not steps:
        raise ProblemError(f"{where}: 'response' must be a solution and then '{_ANSWER}: ...'")
    if ANSWER_MARKER in body:
        raise ProblemError(f"{where}: '{ANSWER_MARKER}' within a solution")
    return RewrittenSolution(kind, origin, original, query, steps, answer)
