"""Other people's completions of benchmark questions as a pool of our own kind.

The answer of a completion is looked for as in any text by others (`Domain.outside_answer_of`) and
written as the domain writes answers, so that graders and evaluators meet their own format
(`Domain.in_own_format`). A completion is finished where the file says so; where it says nothing, if it has an answer:
then `finish_reason` is `stop`, else `length`. Nobody counted tokens: `token_ids`, `tokens` and
`logprob` are null.

Every benchmark question must have equally many completions: accuracies over some of the questions are
those of another benchmark. Completions of other questions are counted and named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.generation.sources.protocol import PoolJob, SampleSource
from e2h_pipeline.generation.sources.records import Completion, Matched, SuppliedLine, match, supplied_line
from e2h_pipeline.problems.files import data_folder
from e2h_pipeline.problems.jsonl import read_jsonl
from e2h_pipeline.problems.records import ProblemError

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.problems.domain import Domain
    from e2h_pipeline.recipe import FileSamples

_QUESTIONS_PER_PART = 32
_SHOWN = 20
_UNKNOWN = ("token_ids", "logprob", "tokens")


class SuppliedSamples(SampleSource):
    """The source `file`."""

    def files(self, options: FileSamples) -> list[Path]:
        """The one file."""
        return [sample_file(options)]

    def read(self, options: FileSamples) -> None:
        """Read every line."""
        for _ in _lines(sample_file(options)):
            pass

    def pool(self, job: PoolJob) -> dict[str, Any]:
        """The completions of the file, one pass over the questions."""
        from e2h_pipeline.generation.sample_pool import pool_table

        path = sample_file(job.options)
        rows = job.questions.select(["problem_id", "level", "question"]).to_pylist()
        found = match(_lines(path), rows)
        count = _per_question(found, path, job.options.per_question)
        reasons: Counter[str] = Counter()
        answered = 0
        for number, start in enumerate(range(0, len(rows), _QUESTIONS_PER_PART)):
            pairs = [
                (row, sample)
                for row in rows[start : start + _QUESTIONS_PER_PART]
                for sample in _samples(found.completions[row["problem_id"]][:count], job.domain)
            ]
            reasons.update(sample.finish_reason for _, sample in pairs)
            table = _without_tokens(pool_table(pairs, job.domain))
            answered += table["answered"].to_pylist().count(True)
            write_table(job.work.out / f"part-{number:05d}-000000.parquet", table)
        return {
            "questions": len(rows),
            "samples": len(rows) * count,
            "per_question": count,
            "unfinished": reasons["length"],
            "no_answer": len(rows) * count - answered,
            "file": path.name,
            **_told("unmatched", found.unmatched),
            **_told("other_text", found.other_text),
        }


def sample_file(options: FileSamples) -> Path:
    """The file that the recipe names.

    Raises:
        ProblemError: it names none, or one that is not there.
    """
    if options.path is None:
        raise ProblemError(
            "samples.source is file, but samples.path names none; set it to a file of JSON lines"
        )
    path = Path(options.path)
    folder = path.parent if path.name != options.path else data_folder("outputs")
    if folder is None:
        raise ProblemError(
            f"samples.path is the bare name {path}, which is looked for in E2H_DATA_DIR/outputs, and"
            " E2H_DATA_DIR is not set; set it, or give the whole path"
        )
    places = [folder / f"{path.name}{end}" for end in ("", ".jsonl.gz", ".jsonl")]
    for place in places:
        if place.is_file():
            return place
    raise ProblemError(f"{places[0]}: no such file; set samples.path to a file of JSON lines")


def _lines(path: Path) -> Iterator[SuppliedLine]:
    for number, record in read_jsonl(path):
        yield supplied_line(record, f"{path.name}:{number}")


def _per_question(found: Matched, path: Path, wanted: int | None) -> int:
    """How many completions of each question are taken.

    Raises:
        ProblemError: a question has none, or fewer than others or than are wanted.
    """
    counts = {name: len(completions) for name, completions in found.completions.items()}
    without = [name for name, count in counts.items() if not count]
    if without:
        raise ProblemError(
            f"{path}: no completion of {len(without)} of {len(counts)} benchmark questions, such as "
            f"{', '.join(without[:3])}, and {len(found.unmatched)} lines of no benchmark question; "
            "set samples.path to a file of the whole benchmark"
        )
    least, most = min(counts.values()), max(counts.values())
    few = min(counts, key=counts.__getitem__)
    if wanted is None and least != most:
        raise ProblemError(
            f"{path}: {least} completions of {few}, others have up to {most}; every question must have equally"
            f" many: set samples.per_question to {least} or fewer"
        )
    if wanted is not None and wanted > least:
        raise ProblemError(
            f"{path}: {least} completions of {few}, and samples.per_question asks for {wanted}; ask for fewer"
        )
    return wanted or least


def _samples(completions: Sequence[Completion], domain: Domain) -> Iterator[Sample]:
    """Completions as samples in the domain's own format."""
    for index, supplied in enumerate(completions):
        text = domain.in_own_format(supplied.text, finished=not supplied.cut_off)
        cut_off = supplied.cut_off
        if cut_off is None:
            cut_off = domain.answer_of(text, True) is None
        yield Sample(index, text, (), "length" if cut_off else "stop", 0.0)


def _without_tokens(pool: pa.Table) -> pa.Table:
    """A pool without numbers that nobody knows."""
    import pyarrow as pa

    for name in _UNKNOWN:
        place = pool.schema.get_field_index(name)
        pool = pool.set_column(place, name, pa.nulls(pool.num_rows, pool.schema.field(name).type))
    return pool


def _told(name: str, lines: Sequence[SuppliedLine]) -> Mapping[str, Any]:
    """How many lines, and the first of them; nothing where there are none."""
    return {name: len(lines), f"first_{name}": [str(line) for line in lines[:_SHOWN]]} if lines else {}
