"""`e2h judge` and `e2h score`: any evaluator on steps that people labelled, and on any solutions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from e2h_pipeline.artifacts.json_text import json_text
from e2h_pipeline.cli.evaluators import (
    DomainName,
    EvaluatorName,
    FoundEvaluator,
    domain_of,
    find_evaluator,
    scored,
    scorer,
)
from e2h_pipeline.cli.files import explained, opened
from e2h_pipeline.cli.shared import AllowLeaks, CommandError, Json, print_json, quiet_libraries, refuse_leaks

if TYPE_CHECKING:
    from e2h_pipeline.evaluation.easy_steps import EasySteps
    from e2h_pipeline.evaluation.outside.judge import Rule
    from e2h_pipeline.evaluation.outside.judged_lines import Judged
    from e2h_pipeline.evaluation.outside.step_lines import Numbered

Logits = Annotated[bool, typer.Option("--logits", help="Scores are logits: take their sigmoid.")]


def score(
    file: Annotated[
        str, typer.Argument(help="JSON lines: question, and steps or responses; .gz too, - for stdin.")
    ],
    evaluator: EvaluatorName = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write the lines here (.gz too). A killed call goes on where it stopped."),
    ] = None,
    domain: DomainName = None,
) -> None:
    """Step scores for solutions made anywhere: the lines come back with step_scores."""
    from e2h_pipeline.cli.grading_view import LineProgress
    from e2h_pipeline.evaluation.outside.score_file import score_file
    from e2h_pipeline.evaluation.outside.step_lines import score_lines
    from e2h_pipeline.problems.jsonl import read_records

    if evaluator is None:
        raise CommandError("name an --evaluator: an experiment's key, or a folder")
    found = find_evaluator(evaluator, domain)
    with explained(), scorer(found) as judge, opened(file) as (stream, name):
        records = read_records(stream, name)
        with LineProgress(name, stream) as progress:
            if output is not None:
                for made in score_file(records, name, output, judge, found.domain, found.version):
                    progress.advance(made.lines, made.reused)
                return
            for batch in score_lines(records, name, judge, found.domain, found.version):
                sys.stdout.writelines(json_text(record) + "\n" for _, record in batch)
                progress.advance(len(batch))


def judge(
    file: Annotated[
        str, typer.Argument(help="ProcessBench, PRMBench, or JSON lines with question, steps and labels.")
    ],
    evaluator: EvaluatorName = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines with id and step_scores. Default: step_scores of the file itself. With --evaluator: what"
            " e2h score made of it."
        ),
    ] = None,
    stored: Annotated[
        str, typer.Option(help="Judge this one of the evaluators whose scores MR-MATH's files hold.")
    ] = "",
    logits: Logits = False,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="A number, easy (from the evaluator's easy solutions; default for a key), or oracle (from this"
            " file: not for claims). Default: 0.5."
        ),
    ] = None,
    domain: DomainName = None,
    easy: Annotated[
        list[int] | None,
        typer.Option(help="A level that counts as easy; repeatable. Default: those of the domain."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of intervals, and of the control's folds.")] = 0,
    everything: Annotated[bool, typer.Option("--all", help="Include single levels.")] = False,
    as_json: Json = False,
    allow_leaks: AllowLeaks = False,
) -> None:
    """First-error F1, step AUROC and PRMScore of an evaluator, by group and level, with intervals,
    beside a control that sees the length and position of steps only."""
    from e2h_pipeline.cli.judge_view import print_judged
    from e2h_pipeline.evaluation.outside.judge import JudgeOptions
    from e2h_pipeline.evaluation.outside.judge import judge as judge_file
    from e2h_pipeline.statistics.bootstrap import Bootstrap

    _check_whose(evaluator, scores, stored, logits)
    quiet_libraries()
    found = find_evaluator(evaluator, domain) if evaluator else None
    rule = _rule(threshold, found)
    with explained():
        known = _easy_steps(found)  # first: a rule without a threshold must not wait for hours
        read = _read(file, found, scores, stored, logits, domain)
        levels = tuple(easy or (found.domain if found else domain_of(domain)).supervisable)
        result = judge_file(read, JudgeOptions(rule, levels, Bootstrap(seed=seed)), known)
    told = {
        "file": file,
        "evaluator": evaluator or stored or str(scores or "step_scores of the file"),
        **(found.standing if found else {}),
        **result.summary,
    }
    if as_json:
        print_json({**told, "rows": result.rows})
    else:
        print_judged(told, result.rows, everything)
    refuse_leaks(told.get("leaks", ()), allow_leaks)


def _check_whose(evaluator: str | None, scores: Path | None, stored: str, logits: bool) -> None:
    """Options that say whose scores are judged must go together."""
    if stored and (evaluator or scores):
        raise CommandError("--stored, and --evaluator or --scores, say whose scores to judge: choose one")
    if logits and evaluator:
        raise CommandError("--logits is for scores made elsewhere; an --evaluator gives probabilities")


def _read(
    file: str,
    found: FoundEvaluator | None,
    scores: Path | None,
    stored: str,
    logits: bool,
    domain: str | None,
) -> Judged:
    """The labelled solutions of a file with the scores that are to be judged."""
    from e2h_pipeline.evaluation.outside.judged_lines import read_judged, with_scores
    from e2h_pipeline.problems.jsonl import read_jsonl, read_records

    spelled = found.domain if found else domain_of(domain)
    with ExitStack() as stack:
        stream, name = stack.enter_context(opened(file))
        records: Iterator[Numbered] = read_records(stream, name)
        if found is not None and scores is None:
            records = stack.enter_context(scored(records, name, found, stream))
        if scores is not None:
            records = with_scores(
                records, name, read_jsonl(scores), str(scores), found.version if found else ""
            )
        return read_judged(records, name, spelled, stored, logits)


def _easy_steps(found: FoundEvaluator | None) -> EasySteps | None:
    """The labelled easy solutions of an experiment's evaluator, judged by evaluators that have not seen
    them."""
    from e2h_pipeline.evaluation.easy_steps import EasySteps

    if found is None or found.folder is None or found.labels is None:
        return None
    return EasySteps.read(found.folder, found.labels, found.domain.text)


def _rule(threshold: str | None, found: FoundEvaluator | None) -> Rule:
    from e2h_pipeline.evaluation.outside.judge import Rule

    if threshold is None:
        threshold = "easy" if found is not None and found.labels is not None else "0.5"
    if threshold == "easy":
        return Rule("easy")
    if threshold == "oracle":
        return Rule("oracle")
    try:
        value = float(threshold)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise CommandError(f"--threshold {threshold}: a number from 0 to 1, easy or oracle")
    return Rule("fixed", value)
