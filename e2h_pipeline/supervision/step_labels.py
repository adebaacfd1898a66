"""Step labels on easy problems, the supervision of evaluators that learn from steps.

The recipe's `labels` names one source, or several; the rows of several are put together. The labels
of every source stop at the first error (Lightman et al. 2023; paper appendix L). Of several
sources, the first one in the list labels a step; later ones label the steps left open.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.lineage import LABELS_BOUGHT
from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.registry import LABEL_SOURCES
from e2h_pipeline.supervision.cost import agreement_of_sources, labels_bought
from e2h_pipeline.supervision.matching import of_easy_problems
from e2h_pipeline.supervision.once import EarlierLabels
from e2h_pipeline.supervision.rows import RIGHT, UNLABELLED, WRONG, Rows, in_order, write_solutions
from e2h_pipeline.supervision.source import LabelJob

if TYPE_CHECKING:
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.problems.domain import Domain
    from e2h_pipeline.recipe import Labels, Sampling

WEIGHT = "weight"
"""Column: weight of a row's source in the loss; only where not all weights are 1."""
SOURCE = "source"
"""Column: number of a row's source, from 0; only where one of several may label hard questions."""
_GIVEN = "given"
"""Column, not written: the labels that the source gave, earlier sources or not."""


def label_easy_steps(
    inputs: Mapping[str, Path],
    labels: Sequence[Labels],
    domain: Domain,
    sampling: Sampling,
    grader: str,
    work: Work,
) -> dict[str, Any]:
    """Write `data.parquet`: completions of easy problems with one label per segment; `weight` where
    weights differ; and `source` where one of several may label hard questions.

    A label is 1 (right), 0 (wrong), between the two (soft), or -1 where there is none.

    Args:
        inputs: folders of `easy_problems` and of the sources' inputs, by asset name.
        labels: the sources, each with its options.
        domain: of the problems.
        sampling: how completions are drawn, for sources that draw.
        grader: judges answers; its name in the registry.
        work: each source works in a folder of its own.

    Returns counts: `solutions`, `problems`, steps by label, `labels_bought` (see `cost`), and the
    source's own counts, such as `dropped` (left out, by reason). With several sources, `sources`
    has these counts for each (`1 prm800k`, `2 shepherd`), and `agreement` what each two of them say
    of the steps that both label.

    Raises:
        ValueError: a source cannot do what the recipe asks for; the message names the mend.
        ProblemError: files of labels that cannot be used.
    """
    easy = {row["problem_id"]: row for row in read_table(inputs["easy_problems"] / TABLE).to_pylist()}
    jobs = [
        LabelJob(options, place, easy, inputs, domain, sampling, grader, work.below(f"source-{place}"))
        for place, options in enumerate(labels)
    ]
    parts = list(_draw(jobs))
    rows = in_order(row for part in parts for row in part.rows)
    weighted, hard = any(options.weight != 1 for options in labels), hard_sources(labels)
    _write(work.out, rows, {WEIGHT: weighted, SOURCE: len(labels) > 1 and bool(hard)})
    if len(parts) == 1:
        return {**_counted(rows), **parts[0].counts}
    names = [f"{job.place + 1} {job.options.source}" for job in jobs]
    return {
        **_counted(rows),
        LABELS_BOUGHT: sum(part.counts[LABELS_BOUGHT] for part in parts),
        "sources": {
            name: {**_counted(part.rows), **part.counts} for name, part in zip(names, parts, strict=True)
        },
        "agreement": agreement_of_sources(
            {name: part.asked for name, part in zip(names, parts, strict=True)}, domain.text
        ),
    }


@dataclass(frozen=True)
class _Part:
    """What one source adds.

    Attributes:
        rows: with labels of steps that no earlier source labels.
        asked: the solutions that it was asked about, with all labels it gave them.
        counts: for the summary.
    """

    rows: Rows
    asked: Rows
    counts: Mapping[str, Any]


def _draw(jobs: Sequence[LabelJob]) -> Iterator[_Part]:
    """The rows that each source adds to those before it."""
    text = jobs[0].domain.text
    earlier = EarlierLabels(text)
    for job in jobs:
        source = LABEL_SOURCES.load(job.options.source)()
        drawn = source.draw(job)
        known: dict[str, int] = {}
        dropped = Counter(drawn.counts.get("dropped", {}))
        allowed = {**job.easy, **_hard(job)} if source.labels_hard(job.options) else job.easy
        given = in_order(of_easy_problems(drawn.rows, allowed, dropped))
        rows = given = [{**row, _GIVEN: row["labels"]} for row in given]
        if job.place:
            rows, known = earlier.new_rows(rows)
        rows = _at_most(rows, job.options.limit, f"{job.stream('labels')}/{job.work.seed}")
        if job is not jobs[-1]:
            earlier.add(rows)
        chosen = given if job.options.limit is None else rows  # a limit needs no labels to choose by
        asked = [{**row, "labels": row[_GIVEN]} for row in chosen]
        counts = {
            LABELS_BOUGHT: labels_bought(asked, text),
            **drawn.counts,
            **({"dropped": dict(dropped)} if dropped else {}),
            **known,
        }
        told = {WEIGHT: job.options.weight, SOURCE: job.place}
        yield _Part([{**row, **told} for row in rows], asked, counts)


def hard_sources(labels: Sequence[Labels]) -> frozenset[int]:
    """Numbers of the sources whose rows may be of hard questions, labelled by a model."""
    made = [LABEL_SOURCES.load(options.source)() for options in labels]
    return frozenset(
        place
        for place, (source, options) in enumerate(zip(made, labels, strict=True))
        if source.labels_hard(options)
    )


def _hard(job: LabelJob) -> dict[str, dict[str, Any]]:
    """The hard questions by id, without answers."""
    rows = read_table(job.inputs["hard_questions"] / TABLE, ["problem_id", "question"]).to_pylist()
    return {row["problem_id"]: row for row in rows}


def _at_most(rows: Rows, limit: int | None, stream: str) -> Rows:
    """At most `limit` of the rows, drawn at random, in their order."""
    if limit is None:
        return rows
    return in_order(random.Random(stream).sample(rows, min(limit, len(rows))))


def _counted(rows: Rows) -> dict[str, int]:
    labels = Counter(label for row in rows for label in row["labels"])
    return {
        "solutions": len(rows),
        "problems": len({row["problem_id"] for row in rows}),
        "right_steps": labels[RIGHT],
        "wrong_steps": labels[WRONG],
        "soft_steps": sum(count for label, count in labels.items() if WRONG < label < RIGHT),
        "unlabelled_steps": labels[UNLABELLED],
    }


def _write(out: Path, rows: Rows, wanted: Mapping[str, bool]) -> None:
    """Write the rows with those further columns that are wanted."""
    import pyarrow as pa

    columns = [("labels", pa.list_(pa.float32())), ("finished", pa.bool_())]
    further = [(WEIGHT, pa.float32()), (SOURCE, pa.int8())]
    write_solutions(out, rows, [*columns, *(column for column in further if wanted[column[0]])])
