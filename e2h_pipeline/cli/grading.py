"""`e2h grade` and `e2h rerank`: our graders and metrics for answers and samples from elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from e2h_pipeline.artifacts.json_text import json_text
from e2h_pipeline.cli.evaluators import DomainName, EvaluatorName, FoundEvaluator, find_evaluator, scored
from e2h_pipeline.cli.files import explained, opened, whole_file
from e2h_pipeline.cli.shared import CommandError, Json, print_json

if TYPE_CHECKING:
    from e2h_pipeline.evaluation.outside.grade_lines import Graded
    from e2h_pipeline.evaluation.outside.rerank import ExternalOptions, ExternalResult
    from e2h_pipeline.grading.verdicts import Grader

Mode = Annotated[str, typer.Option(help="Grader: ours (math), or one that imitates another project's.")]


def grade(
    file: Annotated[
        str | None,
        typer.Argument(help="JSON lines with gold and prediction or response; .gz too, - for stdin."),
    ] = None,
    mode: Mode = "math",
    compare: Annotated[
        list[str] | None,
        typer.Option(help="Another mode, to list only lines where the modes differ. Repeatable."),
    ] = None,
    gold: Annotated[str | None, typer.Option(help="One pair instead of a file: the right answer.")] = None,
    prediction: Annotated[str | None, typer.Option(help="With --gold: the answer to grade.")] = None,
    response: Annotated[str | None, typer.Option(help="With --gold: a text with the answer.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the graded lines here; .gz too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The graded lines on stdout.")] = False,
) -> None:
    """Grade answers: each line with its verdict, answer, tier and ms, or a summary of all lines."""
    if as_json and output:
        raise CommandError("--json writes the lines to stdout, --output into a file: choose one")
    modes = list(dict.fromkeys([mode, *(compare or [])]))
    with explained(), _graders(modes) as judges:
        if file is not None and (gold, prediction, response) == (None, None, None):
            _grade_file(file, judges, as_json, output)
        elif file is None and gold is not None and (prediction is None) != (response is None):
            if output:
                raise CommandError("--output is for a FILE; one pair is printed")
            _grade_pair(gold, prediction, response, judges, as_json)
        else:
            raise CommandError("give a FILE (- for stdin), or --gold with one of --prediction and --response")


def rerank(
    file: Annotated[
        str,
        typer.Argument(help="JSON lines, one per problem: problem_id, gold, responses or answers, ..."),
    ],
    mode: Mode = "math",
    evaluator: EvaluatorName = None,
    domain: DomainName = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Use only this many samples of each problem, the first ones.")
    ] = None,
    logits: Annotated[
        bool, typer.Option("--logits", help="Scores are logits or raw rewards: take their sigmoid.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Name for these problems. Default: the file's name.")
    ] = None,
    easy: Annotated[
        list[int] | None,
        typer.Option(help="A level that counts as easy; repeatable. Default: 1, 2 and 3."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of drawn subsets and intervals.")] = 0,
    everything: Annotated[bool, typer.Option("--all", help="Include every N and single levels.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the report page here.")] = None,
    as_json: Json = False,
) -> None:
    """Majority, weighted vote, best-of-N and pass@N of samples from elsewhere, with intervals."""
    from e2h_pipeline.cli.grading_view import print_reranked, status
    from e2h_pipeline.evaluation.outside.rerank import ExternalOptions
    from e2h_pipeline.recipe import Evaluation, Problems, Rerank

    called = name or Path(file).name.removesuffix(".gz").removesuffix(".jsonl")
    evaluation = Evaluation(easy_levels=tuple(easy or Problems.supervisable_levels))
    options = ExternalOptions(called, logits, Rerank(), evaluation, seed)
    with explained(), _graders([mode]) as (judge,), status(f"{called}: reading and grading"):
        found = find_evaluator(evaluator, domain) if evaluator else None
        result = _reranked(file, judge, samples, options, found)
    metrics, differences = result.tables.metrics.to_pylist(), result.tables.differences.to_pylist()
    if html:
        with whole_file(html) as sink:
            sink.write(_page(result.summary, metrics, differences))
    if as_json:
        print_json({**result.summary, "metrics": metrics, "differences": differences})
    else:
        print_reranked(result.summary, metrics, differences, everything)
        if html:
            typer.echo(html)


def _page(summary: dict[str, Any], metrics: list[dict[str, Any]], differences: list[dict[str, Any]]) -> str:
    from e2h_pipeline.cli.grading_view import facts
    from e2h_pipeline.report.html import samples_page

    return samples_page(
        summary["benchmark"],
        f"{summary['problems']:,} problems with {summary['samples']:,} samples each, grader {summary['grader']}.",
        metrics,
        differences,
        facts(summary),
        summary["confidence"],
    )


def _reranked(
    file: str, judge: Grader, samples: int | None, options: ExternalOptions, evaluator: FoundEvaluator | None
) -> ExternalResult:
    from e2h_pipeline.evaluation.outside.rerank import first_samples, rerank_external, samples_of
    from e2h_pipeline.problems.jsonl import read_records

    with ExitStack() as stack:
        stream, where = stack.enter_context(opened(file))
        records = read_records(stream, where)
        if evaluator is not None:
            if options.logits:
                raise CommandError("--logits is for scores in the file, not for those of an --evaluator")
            first = ((number, first_samples(record, samples)) for number, record in records)
            records = stack.enter_context(scored(first, where, evaluator, stream))
        problems = samples_of(records, where, logits=options.logits, limit=samples)
    return rerank_external(problems, judge, options)


def _grade_file(file: str, judges: Sequence[Grader], as_json: bool, output: Path | None) -> None:
    """Stream a file through the graders, batch by batch."""
    from e2h_pipeline.cli.grading_view import SHOWN, LineProgress, print_graded
    from e2h_pipeline.evaluation.outside.grade_lines import Tally, grade_items, read_items
    from e2h_pipeline.problems.jsonl import read_records

    tallies = [Tally() for _ in judges]
    disputed: list[Graded] = []
    disputes = 0
    with ExitStack() as stack:
        stream, where = stack.enter_context(opened(file))
        sink = stack.enter_context(whole_file(output)) if output else sys.stdout if as_json else None
        progress = stack.enter_context(LineProgress(where, stream))
        for batch in grade_items(read_items(read_records(stream, where), where), judges):
            for line in batch:
                for tally, verdict in zip(tallies, line.grades, strict=True):
                    tally.add(verdict)
            found = [line for line in batch if line.disputed]
            disputes += len(found)
            disputed += found[: SHOWN - len(disputed)]
            if sink is not None:
                sink.writelines(_json_lines(found if len(judges) > 1 else batch, judges))
            progress.advance(len(batch))
    if not as_json:
        print_graded(where, judges, tallies, disputed, disputes)


def _grade_pair(
    gold: str, prediction: str | None, response: str | None, judges: Sequence[Grader], as_json: bool
) -> None:
    from e2h_pipeline.cli.grading_view import print_pair
    from e2h_pipeline.evaluation.outside.grade_lines import grade_items, read_items

    record = (
        {"gold": gold, "response": response}
        if prediction is None
        else {"gold": gold, "prediction": prediction}
    )
    ((line,),) = grade_items(read_items([(1, record)], "options"), judges)
    if as_json:
        sys.stdout.writelines(_json_lines([line], judges))
    else:
        print_pair(line, judges)


def _json_lines(lines: Sequence[Graded], judges: Sequence[Grader]) -> Iterator[str]:
    """Lines of JSON. ASCII only: a model's text may hold characters that no encoding accepts."""
    from e2h_pipeline.evaluation.outside.grade_lines import compared_record, graded_record

    for line in lines:
        record = compared_record(line, judges) if len(judges) > 1 else graded_record(line, judges[0])
        yield json_text(record) + "\n"


@contextmanager
def _graders(modes: Sequence[str]) -> Iterator[list[Grader]]:
    from e2h_pipeline.grading.graders import grader
    from e2h_pipeline.registry import GRADERS

    words = GRADERS.words()
    for mode in modes:
        if mode not in words:
            raise CommandError(f"no grader '{mode}'; there are: {', '.join(words)}")
    with ExitStack() as stack:
        yield [stack.enter_context(grader(mode)) for mode in modes]
