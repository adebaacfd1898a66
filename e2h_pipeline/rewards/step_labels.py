"""Step labels on easy problems, the supervision of the process reward model.

On the ladder an exact checker labels samples of easy problems; on MATH the labels are PRM800K's
human ratings of solutions to problems of the easy split. Either way labels stop at the first error
(Lightman et al. 2023; paper appendix L).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.solutions import ANSWER_MARKER, SEPARATOR

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Labels, Problems
    from e2h_pipeline.reporter import Reporter

RIGHT, WRONG, UNLABELLED = 1, 0, -1


def label_easy_samples(
    easy_samples: Path,
    easy_problems: Path,
    out: Path,
    options: Labels,
    problems: Problems,
    seed: int,
    reporter: Reporter,
) -> dict[str, Any]:
    """Write `out/data.parquet`: completions of easy problems with one label per segment.

    Raises:
        ValueError: the recipe asks for the checker where the problem source has none.
    """
    easy = {row["problem_id"]: row for row in read_table(easy_problems / "data.parquet").to_pylist()}
    if options.source == "prm800k":
        rows, dropped = _human_labels(easy, options)
    elif problems.source == "ladder":
        rows, dropped = _checked_labels(easy_samples, easy, options, seed), Counter()
    else:
        raise ValueError("labels.source=checker needs the ladder; on MATH use labels.source=prm800k")
    rows.sort(key=lambda row: (row["problem_id"], row["sample"]))
    if options.limit is not None:
        rows = sorted(
            random.Random(f"labels/{seed}").sample(rows, min(options.limit, len(rows))),
            key=lambda row: (row["problem_id"], row["sample"]),
        )
    _write(out, rows)
    labels = Counter(label for row in rows for label in row["labels"])
    return {
        "solutions": len(rows),
        "problems": len({row["problem_id"] for row in rows}),
        "right_steps": labels[RIGHT],
        "wrong_steps": labels[WRONG],
        "dropped": dict(dropped),
    }


def _checked_labels(pool: Path, easy: dict[str, Any], options: Labels, seed: int) -> list[dict[str, Any]]:
    """Label every distinct sample of the pool; balance right and wrong solutions of each problem."""
    from e2h_pipeline.problems.ladder import step_labels

    seen: dict[str, dict[str, dict[str, Any]]] = {}
    for sample in read_table(pool, ["problem_id", "sample", "completion", "finish_reason"]).to_pylist():
        problem = easy[sample["problem_id"]]
        labels = step_labels(problem["question"], sample["completion"])
        if labels:
            seen.setdefault(sample["problem_id"], {}).setdefault(
                sample["completion"],
                _row(
                    problem, sample["sample"], sample["completion"], labels, sample["finish_reason"] == "stop"
                ),
            )
    rows = []
    for problem_id, distinct in sorted(seen.items()):
        ordered = list(distinct.values())
        rows += _balanced(ordered, f"labels/{seed}/{problem_id}") if options.balance else ordered
    return rows


def _balanced(rows: Sequence[dict[str, Any]], stream: str) -> list[dict[str, Any]]:
    """All of the rarer kind, and at most three of the other kind for each of them (paper C.1: 1:3)."""
    wrong = [row for row in rows if WRONG in row["labels"]]
    right = [row for row in rows if WRONG not in row["labels"]]
    rng = random.Random(stream)
    fewer, more = sorted((right, wrong), key=len)
    return [*fewer, *rng.sample(more, min(len(more), max(1, 3 * len(fewer))))]


def _human_labels(easy: dict[str, Any], options: Labels) -> tuple[list[dict[str, Any]], Counter[str]]:
    """PRM800K ratings of solutions to problems of the easy split; everything else is counted, not used."""
    from e2h_pipeline.problems.prm800k import read_prm800k

    neutral = {"positive": RIGHT, "negative": WRONG, "drop": UNLABELLED}[options.neutral]
    rows: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    human = read_prm800k(Path(options.path) if options.path else None)
    dropped["repeated"] = human.counts["repeated"]
    for solution in human.solutions:
        problem = easy.get(solution.unique_id)
        if problem is None:
            dropped["not an easy problem of this split"] += 1
            continue
        rated = [{1: RIGHT, 0: neutral, -1: WRONG}[rating] for rating in solution.ratings]
        blocks, shared = _segments(solution.steps, rated)
        labels, completion = until_first_error(shared), SEPARATOR.join(blocks)
        rows.append(
            _row(problem, numbers[solution.unique_id], completion, labels, solution.final_answer is not None)
        )
        numbers[solution.unique_id] += 1
    return rows, dropped


def until_first_error(labels: Iterable[int]) -> list[int]:
    """Labels up to and including the first wrong step; what follows is not labelled."""
    kept: list[int] = []
    failed = False
    for label in labels:
        kept.append(UNLABELLED if failed else label)
        failed = failed or label == WRONG
    return kept


def _segments(steps: Sequence[str], labels: Sequence[int]) -> tuple[list[str], list[int]]:
    """Rated steps as the blocks of our text format, and a label for each segment.

    A blank line inside a step would read as two steps, so it becomes a line break; the answer block
    of a step that ends in one is a segment of its own and shares the step's label.
    """
    blocks: list[str] = []
    kept: list[int] = []
    for step, label in zip(steps, labels, strict=True):
        body, marker, answer = step.partition(ANSWER_MARKER)
        lines = "\n".join(line for line in body.strip().splitlines() if line.strip())
        if lines:
            blocks.append(lines)
            kept.append(label)
        if marker:
            blocks += [ANSWER_MARKER, answer.strip()]
            kept.append(label)
    return blocks, kept


def _row(
    problem: dict[str, Any], sample: int, completion: str, labels: list[int], finished: bool
) -> dict[str, Any]:
    return {
        "problem_id": problem["problem_id"],
        "level": problem["level"],
        "sample": sample,
        "split": problem["split"],
        "question": problem["question"],
        "completion": completion,
        "labels": labels,
        "finished": finished,
    }


def _write(out: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    schema = pa.schema(
        [
            ("problem_id", pa.string()),
            ("level", pa.int8()),
            ("sample", pa.int32()),
            ("split", pa.string()),
            ("question", pa.string()),
            ("completion", pa.string()),
            ("labels", pa.list_(pa.int8())),
            ("finished", pa.bool_()),
        ]
    )
    write_table(out / "data.parquet", pa.Table.from_pylist(rows, schema))
