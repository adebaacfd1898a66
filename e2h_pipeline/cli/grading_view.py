"""Output of `e2h grade` and `e2h rerank`: summaries, differences between modes, progress."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from e2h_pipeline.cli.view import console, print_results, print_titled
from e2h_pipeline.statistics.levels import POOLED_GROUPS

if TYPE_CHECKING:
    from e2h_pipeline.evaluation.outside.grade_lines import Graded, Tally
    from e2h_pipeline.grading.verdicts import Grader

SHOWN = 40  # disputed lines in a table; --json and --output give all of them
_NOTE_SECONDS = 30
_WIDTH = 36  # characters of an answer in a table
_VERSION_LENGTH = 12


class LineProgress:
    """Lines, rate, and time left if the size is known, on stderr: a bar if that is a terminal, else a
    line every `_NOTE_SECONDS`."""

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self._stream = stream
        self._size = _size(stream)
        self._name, self._lines, self._first = name, 0, (0, 0)
        self._started = self._noted = time.monotonic()
        out = console(sys.stderr)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[lines]:,} lines"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            *([TextColumn("left"), TimeRemainingColumn()] if self._size else []),
        )
        self._bar = Progress(*columns, console=out, transient=True, disable=not out.is_terminal)
        self._task = self._bar.add_task(escape(plain(name)), total=self._size, lines=0, rate="")

    def __enter__(self) -> LineProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, lines: int, reused: bool = False) -> None:
        """Count more lines; `reused`: an earlier call has done them, so rates leave them out."""
        self._lines += lines
        # Position in the file on disk, which may be gzipped.
        position = self._stream.tell() if self._size else self._lines
        now = time.monotonic()
        if reused:
            self._first, self._started = (self._lines, position), now
        elapsed = now - self._started
        rate = f"{(self._lines - self._first[0]) / elapsed:,.1f}/s" if elapsed else ""
        self._bar.update(self._task, completed=position, lines=self._lines, rate=rate)
        if self._bar.disable and now - self._noted >= _NOTE_SECONDS:
            self._noted = now
            left = _left(self._size, position, self._first[1], elapsed)
            typer.echo(f"{plain(self._name)}: {self._lines:,} lines, {rate}{left}", err=True)


def _left(size: int | None, position: int, first: int, elapsed: float) -> str:
    """The time left in words, from the bytes read in `elapsed` seconds; empty where it is not known."""
    if not size or position <= first:
        return ""
    return f", {(size - position) * elapsed / (position - first) / 60:,.0f} min left"


def _size(stream: IO[bytes]) -> int | None:
    """Bytes of a regular file; None for a pipe."""
    found = os.fstat(stream.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None


@contextmanager
def status(text: str) -> Iterator[None]:
    """Show a line on stderr during a long operation, if stderr is a terminal."""
    out = console(sys.stderr)
    if out.is_terminal:
        with out.status(escape(plain(text))):
            yield
    else:
        yield


def plain(text: str, width: int | None = None) -> str:
    """A file's or model's text on one line, without terminal control characters, cut to a width."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: width and width + 1])
    return shown if width is None or len(shown) <= width else shown[: width - 1] + "…"


def print_graded(
    name: str, judges: Sequence[Grader], tallies: Sequence[Tally], disputed: Sequence[Graded], disputes: int
) -> None:
    """The summary of a file: by tier for one grader, side by side for several."""
    out = console()
    if len(judges) == 1:
        print_titled(
            f"{escape(plain(name))}: {tallies[0].lines:,} lines, {_percent(tallies[0])} equal",
            _tier_table(tallies[0]),
        )
        out.print(_counted_as_wrong(tallies[0]))
        out.print(f"grader {escape(judges[0].version)}", soft_wrap=True)
        return
    print_titled(f"{escape(plain(name))}: {tallies[0].lines:,} lines", _modes_table(judges, tallies))
    out.print(f"{disputes:,} of {tallies[0].lines:,} lines have different verdicts")
    if disputed:
        out.print(_disputed_table(judges, disputed))
    if disputes > len(disputed):
        out.print(f"and {disputes - len(disputed):,} more; --json or --output gives all")


def _tier_table(tally: Tally) -> Table:
    from e2h_pipeline.grading.verdicts import Verdict

    table = Table(box=SIMPLE)
    table.add_column("decided by")
    for verdict in Verdict:
        table.add_column(verdict.value, justify="right")
    table.add_column("all", justify="right")
    for tier in tally.tiers:
        table.add_row(tier, *(_count(tally.of(v, tier)) for v in Verdict), _count(tally.of(tier=tier)))
    table.add_section()
    table.add_row("all", *(_count(tally.of(v)) for v in Verdict), _count(tally.lines))
    return table


def _counted_as_wrong(tally: Tally) -> str:
    from e2h_pipeline.evaluation.outside.grade_lines import NO_ANSWER
    from e2h_pipeline.grading.verdicts import Verdict

    undecided, missing = tally.of(Verdict.UNDECIDED), tally.of(tier=NO_ANSWER.tier)
    return f"{undecided:,} undecided and {missing:,} without an answer count as wrong"


def _modes_table(judges: Sequence[Grader], tallies: Sequence[Tally]) -> Table:
    from e2h_pipeline.grading.verdicts import Verdict

    table = Table("mode", box=SIMPLE)
    for column in (*(v.value for v in Verdict), "accuracy"):
        table.add_column(column, justify="right")
    table.add_column("grader", overflow="fold")
    for judge, tally in zip(judges, tallies, strict=True):
        counts = [_count(tally.of(v)) for v in Verdict]
        table.add_row(judge.name, *counts, _percent(tally), escape(judge.version))
    return table


def _disputed_table(judges: Sequence[Grader], disputed: Sequence[Graded]) -> Table:
    table = Table(box=SIMPLE)
    table.add_column("line", justify="right")
    for column in ("gold", "answer", *(judge.name for judge in judges)):
        table.add_column(column, no_wrap=True)
    for line in disputed:
        texts = [Text(plain(text, _WIDTH)) for text in (line.item.gold, line.item.answer or "")]
        table.add_row(f"{line.item.number}", *texts, *(grade.verdict.value for grade in line.grades))
    return table


def print_pair(line: Graded, judges: Sequence[Grader]) -> None:
    """One pair: the answer found, and each grader's verdict."""
    from e2h_pipeline.grading.mathematics.extract import extract

    out = console()
    answer = "no answer" if line.item.answer is None else f"answer {plain(line.item.answer)}"
    if (found := extract(line.item.record.get("response", ""))) is not None:
        answer += f" (characters {found.start} to {found.end} of the response, by {found.rule})"
    out.print(Text(f"gold {plain(line.item.gold)}; {answer}"), soft_wrap=True)
    for judge, grade in zip(judges, line.grades, strict=True):
        out.print(
            f"[bold]{grade.verdict.value}[/bold] by {escape(grade.tier)} in {grade.ms:.1f} ms"
            f" · grader {escape(judge.version)}",
            soft_wrap=True,
        )


def _percent(tally: Tally) -> str:
    return f"{100 * tally.accuracy:.2f} %" if tally.lines else "–"


def _count(number: int) -> str:
    return f"{number:,}" if number else "·"


def print_reranked(
    summary: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    differences: Sequence[Mapping[str, Any]],
    everything: bool,
) -> None:
    """Accuracies, differences to the majority vote, and what they depend on."""
    from e2h_pipeline.evaluation.results import result_rows, select

    out = console()
    rows = result_rows("", metrics, {})
    print_results(rows if everything else [row for row in rows if row in select(rows) or _is_mean(row)])
    if differences:
        largest = [
            row for row in differences if row["n"] == summary["samples"] and row["levels"] in POOLED_GROUPS
        ]
        title = f"paired differences in points \\[95% interval of each of these {len(largest)} by itself]"
        print_titled(title, _differences_table(largest))
    for name, value in facts(summary):
        out.print(f"{name}: {escape(value)}", soft_wrap=True)


def _is_mean(row: Mapping[str, Any]) -> bool:
    """pass@1, the mean over samples, which is always shown."""
    return row["method"] == "pass" and row["n"] == 1 and not row["levels"].isdecimal()


def _differences_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    groups = [group for group in POOLED_GROUPS if any(row["levels"] == group for row in rows)]
    table = Table(box=SIMPLE)
    table.add_column("difference", no_wrap=True)
    for column in ("N", *groups):
        table.add_column(column, justify="right", no_wrap=True)
    found = {(row["first"], row["second"], row["levels"]): row for row in rows}
    for first, second in dict.fromkeys((row["first"], row["second"]) for row in rows):
        cells = [found[first, second, group] for group in groups]
        table.add_row(f"{first} − {second}", str(cells[0]["n"]), *(_points(cell) for cell in cells))
    return table


def _points(row: Mapping[str, Any]) -> str:
    value, low, high = (100 * row[column] for column in ("difference", "ci_low", "ci_high"))
    return f"{value:+.1f} \\[{low:+.1f}, {high:+.1f}]"


def facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings and counts behind reranked numbers, for people."""
    drawn = f"{summary['draws']} subsets per problem and N for votes, seed {summary['seed']}"
    resampled = f"{summary['bootstrap']:,} resamples of problems, {100 * summary['confidence']:g} %"
    found = [
        ("problems", f"{summary['problems']:,} with {summary['samples']:,} samples each"),
        (
            "counted as wrong",
            f"{summary['no_answer']:,} samples without an answer ({summary['cut_off']:,} cut off);"
            f" answers the grader could not decide: {summary['undecided']:,}",
        ),
        ("drawn", drawn),
        ("intervals", resampled),
        ("easy levels", ", ".join(map(str, summary["easy_levels"]))),
        ("data version", summary["data_version"][:_VERSION_LENGTH]),
    ]
    if summary["scores"]:
        found.insert(2, ("scores used", f"{' and '.join(summary['scores'])}, as {summary['scores_are']}"))
    return found
