"""Cross-validation of an evaluator by problem: a score of every labelled solution by an evaluator
that has not seen its problem.

Human labels are few (PRM800K's public part has some hundred easy problems), and a hold-out of a
tenth of them chooses a threshold by chance. With k folds every labelled problem is judged once, and
the threshold for hard problems is chosen on all of these scores. The evaluator that is kept is
trained on all rows; its scores of unseen problems lie a little apart from those of the folds, which
have seen k - 1 of k parts.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.artifacts.reporter import Part
from e2h_pipeline.artifacts.shards import shard_damage, shard_path, write_shard
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.rewards.examples import Rows
from e2h_pipeline.rewards.validate import score_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.rewards.train import Training
    from e2h_pipeline.solutions import TextFormat

OUT_OF_FOLD = "out_of_fold.parquet"
"""Beside the model: the scores of its labelled solutions by the evaluators of the folds."""


@dataclass(frozen=True)
class OutOfFold:
    """Scores of labelled rows by evaluators that have not seen their problems.

    Attributes:
        folds: fold of each problem, from 0.
        problems: by kind of label, the problem of each row.
        logits: by kind of label, the raw logits of the segments of each row, in the rows' order.
    """

    folds: Mapping[str, int]
    problems: Mapping[str, Sequence[str]]
    logits: Mapping[str, Sequence[Sequence[float]]]


def folds_of(problems: Sequence[str], count: int, seed: int) -> dict[str, int]:
    """A fold for each problem, drawn by seed; sizes differ by one at most.

    Raises:
        ValueError: fewer problems than folds.
    """
    order = sorted(set(problems))
    if len(order) < count:
        raise ValueError(
            f"reward.training.folds is {count}, but only {len(order)} problems are labelled; lower it"
        )
    random.Random(f"folds/{seed}").shuffle(order)
    return {problem: place % count for place, problem in enumerate(order)}


def judge_out_of_fold(training: Training, rows: Mapping[str, Rows], count: int, work: Work) -> OutOfFold:
    """Train an evaluator for each fold on the other folds, and judge the fold with it.

    Finished folds are kept in `work.folder`. With several processes all train, and the main one
    judges; the others get no scores.
    """
    import pyarrow as pa

    from e2h_pipeline.training.trainer import is_main_process

    folds = folds_of([row["problem_id"] for part in rows.values() for row in part], count, work.seed)
    files = [shard_path(work.folder, f"fold-{fold}") for fold in range(count)]
    missing = [fold for fold in range(count) if shard_damage(files[fold]) is not None]
    for fold in missing:
        inside = work.below(f"fold-{fold}")
        inside = replace(inside, reporter=Part(work.reporter, f"fold {fold + 1} of {count}"))
        others = {
            kind: [row for row in part if folds[row["problem_id"]] != fold] for kind, part in rows.items()
        }
        model, tokenizer, _, _ = training.run(others, inside)
        if is_main_process():
            write_shard(files[fold], _judged(model, tokenizer, rows, folds, fold, training.text))
        shutil.rmtree(inside.out, ignore_errors=True)  # its curves
    if not is_main_process():
        return OutOfFold(folds, {}, {})
    return _of_table(pa.concat_tables([read_table(file) for file in files]))


def write_out_of_fold(out: Path, judged: OutOfFold) -> None:
    """Write scores beside the saved evaluator."""
    import pyarrow as pa

    rows = [
        {"labels": kind, "row": row, "problem_id": name, "fold": judged.folds[name], "step_logits": logits}
        for kind, part in judged.logits.items()
        for row, (name, logits) in enumerate(zip(judged.problems[kind], part, strict=True))
    ]
    write_table(out / OUT_OF_FOLD, pa.Table.from_pylist(rows, _schema()))


def read_out_of_fold(evaluator: Path) -> OutOfFold | None:
    """The scores beside a saved evaluator; None where it was trained without folds."""
    file = evaluator / OUT_OF_FOLD
    return _of_table(read_table(file)) if file.is_file() else None


def _judged(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Mapping[str, Rows],
    folds: Mapping[str, int],
    fold: int,
    text: TextFormat,
) -> pa.Table:
    """The scores of a fold."""
    import pyarrow as pa

    scored = []
    for kind, part in rows.items():
        places = [place for place, row in enumerate(part) if folds[row["problem_id"]] == fold]
        logits = score_rows(model, tokenizer, [part[place] for place in places], text)
        scored += [
            {
                "labels": kind,
                "row": place,
                "problem_id": part[place]["problem_id"],
                "fold": fold,
                "step_logits": found,
            }
            for place, found in zip(places, logits, strict=True)
        ]
    return pa.Table.from_pylist(scored, _schema())


def _schema() -> pa.Schema:
    """`labels` is the kind of label, `row` the number of the solution in its artifact."""
    import pyarrow as pa

    texts = [("labels", pa.string()), ("row", pa.int32()), ("problem_id", pa.string())]
    return pa.schema([*texts, ("fold", pa.int32()), ("step_logits", pa.list_(pa.float32()))])


def _of_table(table: pa.Table) -> OutOfFold:
    rows = sorted(table.to_pylist(), key=lambda row: (row["labels"], row["row"]))
    logits: dict[str, list[list[float]]] = {}
    problems: dict[str, list[str]] = {}
    for row in rows:
        logits.setdefault(row["labels"], []).append(row["step_logits"])
        problems.setdefault(row["labels"], []).append(row["problem_id"])
    return OutOfFold({row["problem_id"]: row["fold"] for row in rows}, problems, logits)
