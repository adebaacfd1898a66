"""Solutions that wait for people's labels: from a file, or samples of an experiment's easy problems.

The firewall holds here too. Of an experiment only problems of levels that its domain lets people
supervise are asked about, and a reference answer exists for those alone; a file brings none.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.problems.jsonl import field, read_jsonl
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.problems.same_problem import same_key
from e2h_pipeline.solutions import ANSWER_MARKER, MARKED, SEPARATOR, TextFormat
from e2h_pipeline.supervision.matching import by_question

CUT_OFF, NO_STEPS, NOT_EASY = "cut off", "no steps to rate", "not an easy problem"


@dataclass(frozen=True)
class Item:
    """A solution to label.

    Attributes:
        name: what it is called in the export, such as a problem's id and the sample's number.
        steps: as PRM800K writes them, an answer block at the end of the last one.
        reference: answer of an easy problem, shown when asked for; None where there is none.
    """

    name: str
    question: str
    steps: tuple[str, ...]
    reference: str | None = None


@dataclass(frozen=True)
class Queue:
    """Solutions in the order in which they are labelled.

    Attributes:
        source: where they come from, for the export.
        left_out: how many were not taken, by reason.
    """

    source: str
    items: tuple[Item, ...]
    left_out: Mapping[str, int]

    @property
    def version(self) -> str:
        """Hash of the solutions."""
        return digest_json([asdict(item) for item in self.items])


@dataclass(frozen=True)
class EasyProblems:
    """Problems that people may be asked about, with their answers.

    Attributes:
        rows: of `easy_problems`, by id.
        text: how their domain writes solutions.
    """

    rows: Mapping[str, dict[str, Any]]
    text: TextFormat = MARKED

    @classmethod
    def of(cls, folder: Path, levels: Collection[int], text: TextFormat) -> EasyProblems:
        """Those of an `easy_problems` artifact that have one of these levels."""
        rows = read_table(folder / TABLE).to_pylist()
        return cls({row["problem_id"]: row for row in rows if row["level"] in levels}, text)


def queue_of_file(path: Path, easy: EasyProblems | None = None) -> Queue:
    """The solutions of a file of JSON lines with `question`, and `steps` (a list) or `completion`.

    Args:
        easy: where given, solutions of other problems are left out, and reference answers are known.

    Raises:
        ProblemError: a line cannot be read, or no solution is left.
    """
    known = None if easy is None else by_question(easy.rows.values())
    text = easy.text if easy else MARKED
    left_out: Counter[str] = Counter()
    items = []
    for line, record in read_jsonl(path):
        question = field(record, "question", str, path, line)
        _require_text(record, path, line)
        problem = known.get(same_key(question)) if known is not None else None
        if known is not None and problem is None:
            left_out[NOT_EASY] += 1
        elif not (steps := _steps_of(record, path, line, text)):
            left_out[NO_STEPS] += 1
        else:
            items.append(Item(f"{path.name}:{line}", question, steps, problem["answer"] if problem else None))
    return _queue(f"{path.name}", items, left_out)


def queue_of_samples(pool: Path, easy: EasyProblems, source: str, count: int, seed: int) -> Queue:
    """Finished, distinct samples of easy problems: one of each problem in random order, then a
    second of each, and so on, `count` in all.

    Args:
        pool: folder of the tables of `easy_samples`.
        source: name of the pool.

    Raises:
        ProblemError: no sample can be labelled.
    """
    left_out: Counter[str] = Counter()
    found: dict[str, list[Item]] = {}
    seen: set[tuple[str, str]] = set()
    columns = ["problem_id", "sample", "completion", "finish_reason"]
    rows = read_table(pool, columns).to_pylist()
    for row in sorted(rows, key=lambda row: (row["problem_id"], row["sample"])):
        problem = easy.rows.get(row["problem_id"])
        if problem is None:
            left_out[NOT_EASY] += 1
        elif row["finish_reason"] != "stop":
            left_out[CUT_OFF] += 1
        elif not (steps := written_steps(row["completion"], easy.text)):
            left_out[NO_STEPS] += 1
        elif (known := (row["problem_id"], row["completion"])) not in seen:
            seen.add(known)
            item = Item(f"{known[0]}#{row['sample']}", problem["question"], steps, problem["answer"])
            found.setdefault(known[0], []).append(item)
    return _queue(source, _in_turns(found, f"people/{seed}")[:count], left_out)


def written_steps(completion: str, text: TextFormat) -> tuple[str, ...]:
    """A completion's steps as PRM800K writes them: the answer block is the end of the last step.
    None of them where there is more than one answer block."""
    solution = text.parse(completion)
    steps = list(solution.steps)
    if any(ANSWER_MARKER in step for step in (*steps, solution.answer or "")):
        return ()
    if solution.answer is not None:
        answer = ANSWER_MARKER + SEPARATOR + solution.answer
        steps = [*steps[:-1], SEPARATOR.join([*steps[-1:], answer])]
    return tuple(steps)


def _steps_of(record: dict[str, Any], path: Path, line: int, text: TextFormat) -> tuple[str, ...]:
    if "steps" not in record:
        return written_steps(field(record, "completion", str, path, line), text)
    steps = field(record, "steps", list, path, line)
    if not all(isinstance(step, str) and step.strip() for step in steps):
        raise ProblemError(f"{path}:{line}: 'steps' must be a list of texts that are not blank")
    return written_steps(SEPARATOR.join(steps), MARKED)


def _require_text(record: dict[str, Any], path: Path, line: int) -> None:
    """JSON can hold halves of characters, which no file of text can."""
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ProblemError(f"{path}:{line}: has half a character (a lone surrogate); delete it") from None


def _in_turns(found: Mapping[str, Sequence[Item]], stream: str) -> list[Item]:
    """One item of each problem in random order, then a second of each, and so on."""
    shuffled = random.Random(stream)
    problems = [shuffled.sample(items, len(items)) for items in found.values()]
    shuffled.shuffle(problems)
    longest = max(map(len, problems), default=0)
    return [items[turn] for turn in range(longest) for items in problems if turn < len(items)]


def _queue(source: str, items: Iterable[Item], left_out: Counter[str]) -> Queue:
    kept = tuple(items)
    told = {reason: count for reason, count in left_out.items() if count}
    if not kept:
        why = ", ".join(f"{count} {reason}" for reason, count in told.items()) or "it is empty"
        raise ProblemError(f"{source}: no solution can be labelled ({why}); name other solutions")
    return Queue(source, kept, told)
