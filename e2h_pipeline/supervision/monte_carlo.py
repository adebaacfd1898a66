"""Step labels by Monte-Carlo completion, without people (Math-Shepherd, Wang et al. 2024, section 3).

A step is as good as what can still come of it: from the end of the step the policy draws N completions, and
their answers are compared with the easy problem's. Hard label: 1 if any is right, else 0. Soft label: the
share that is right. The answer block is not completed but compared itself.

Samples share beginnings, so each distinct prefix is completed once. Prefixes are taken depth by depth: where
no completion is right the solution has gone wrong, labels stop (as everywhere in this house), and nothing is
drawn behind it. A step or an answer that the length limit cut in two is not labelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.shards import Call, LocalRunner, Runner, complete_shards
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.generation.engines.loading import cached_engine
from e2h_pipeline.generation.engines.protocol import Engine, Request
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.generation.sample_pool import sampling_options
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.grading.mathematics.extract import final_answer
from e2h_pipeline.grading.verdicts import Grader, Verdict
from e2h_pipeline.solutions import SEPARATOR, parse_completion
from e2h_pipeline.supervision.rows import (
    RIGHT,
    UNLABELLED,
    WRONG,
    by_problem,
    grade_answers,
    until_first_error,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.recipe import Labels, Sampling

STAGE = "easy_step_labels"
"""Names the stream of randomness of the completions."""

_Easy = Mapping[str, Mapping[str, Any]]
_Row = dict[str, Any]


def monte_carlo_labels(
    policy: Path,
    samples: Sequence[_Row],
    easy: _Easy,
    work: Path,
    options: Labels,
    sampling: Sampling,
    grader_name: str,
    seed: int,
    reporter: Reporter,
    engine: str = "transformers",
    runner: Runner | None = None,
) -> tuple[list[_Row], dict[str, Any]]:
    """Label distinct samples of easy problems; shards of problems survive a kill, damaged ones are made again.

    Args:
        samples: rows with problem_id, completion, finished.
        easy: easy problems by id, with question and answer.
        work: folder of shards, resumed from where there are some.
        options: `completions` per prefix, `soft`.
        sampling: how completions are drawn (`samples` is not looked at), problems per shard.
        runner: who makes the shards; this process where unset.

    Returns the rows with labels, and counts: `dropped`, `prefixes`, `completions`, of these `right`,
    `unfinished` and `undecided`, their `tokens`, and the `grader`.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError(
            "labels.source=monte_carlo labels easy samples, and there are none: set easy_samples.samples"
        )
    problems = list(by_problem(samples).values())
    size = sampling.shard_questions
    calls: list[Call] = []
    for number, start in enumerate(range(0, len(problems), size)):
        rows = [row for own in problems[start : start + size] for row in own]
        asked = {row["problem_id"]: easy[row["problem_id"]] for row in rows}
        arguments = (engine, policy, rows, asked, options.completions, sampling, grader_name, seed)
        calls.append((f"part-{number:05d}", arguments))
    done = 0

    def tell(_name: str, _made: pa.Table | None) -> None:
        nonlocal done
        done = min(done + size, len(problems))
        reporter.progress(done, len(problems), f"problems, {options.completions} completions a prefix")

    try:
        complete_shards(work / "prefixes", calls, complete_problems, runner or LocalRunner(), reporter, tell)
    finally:
        cached_engine.cache_clear()
    prefixes = read_table(work / "prefixes").to_pylist()
    with grader(grader_name) as judge:
        labelled = _label(judge, samples, easy, prefixes, soft=options.soft)
        version = judge.version
    kept = [row for row in labelled if any(label != UNLABELLED for label in row["labels"])]
    dropped = len(labelled) - len(kept)
    return kept, {
        "dropped": {"nothing to label": dropped} if dropped else {},
        "prefixes": len(prefixes),
        **{
            name: sum(row[name] for row in prefixes)
            for name in ("completions", "right", "unfinished", "undecided", "tokens")
        },
        "grader": version,
    }


def step_prefixes(completion: str, finished: bool) -> list[str]:
    """The text up to the end of each step, ready to go on from; a step that was cut off has none."""
    solution = parse_completion(completion)
    spans = solution.spans[: len(solution.steps)]
    cut = (
        not finished
        and bool(spans)
        and spans[-1][1] == len(completion)
        and not completion.endswith(SEPARATOR)
    )
    return [completion[:end].rstrip() + SEPARATOR for _, end in (spans[:-1] if cut else spans)]


def complete_problems(
    engine: str,
    policy: Path,
    rows: Sequence[_Row],
    easy: _Easy,
    completions: int,
    sampling: Sampling,
    grader_name: str,
    seed: int,
) -> pa.Table:
    """Complete the distinct prefixes of some problems' samples, depth by depth, as long as anything comes out right:
    a row for each prefix, with counts."""
    loaded = cached_engine(engine, policy)
    with grader(grader_name) as judge:
        return _complete(loaded, judge, rows, easy, completions, sampling, seed)


def _complete(
    engine: Engine,
    judge: Grader,
    rows: Sequence[_Row],
    easy: _Easy,
    completions: int,
    sampling: Sampling,
    seed: int,
) -> pa.Table:
    alive = [(row["problem_id"], step_prefixes(row["completion"], row["finished"])) for row in rows]
    found: list[_Row] = []
    depth = 0
    while alive := [(name, prefixes) for name, prefixes in alive if len(prefixes) > depth]:
        wanted = sorted({(name, prefixes[depth]) for name, prefixes in alive})
        drawn = _complete_prefixes(engine, judge, wanted, easy, completions, sampling, seed)
        found += drawn
        hopeful = {(row["problem_id"], row["prefix"]) for row in drawn if row["right"]}
        alive = [(name, prefixes) for name, prefixes in alive if (name, prefixes[depth]) in hopeful]
        depth += 1
    return _prefix_table(found)


def _complete_prefixes(
    engine: Engine,
    judge: Grader,
    wanted: Sequence[tuple[str, str]],
    easy: _Easy,
    completions: int,
    sampling: Sampling,
    seed: int,
) -> list[_Row]:
    """Draw and grade the completions of each (problem id, prefix)."""
    requests = [
        Request(
            easy[name]["question"], stream_key(seed, STAGE, f"{name}\0{prefix}"), completions, prefix=prefix
        )
        for name, prefix in wanted
    ]
    drawn = engine.sample(requests, sampling_options(sampling))
    flat = [(name, prefix, s) for (name, prefix), own in zip(wanted, drawn, strict=True) for s in own]
    answers = [final_answer(prefix + s.completion, s.finish_reason == "stop") for _, prefix, s in flat]
    verdicts = iter(grade_answers(judge, [{"problem_id": name} for name, _, _ in flat], answers, easy))
    rows = []
    for (name, prefix), own in zip(wanted, drawn, strict=True):
        said = [next(verdicts) for _ in own]
        rows.append(
            {
                "problem_id": name,
                "prefix": prefix,
                "completions": len(own),
                "right": said.count(Verdict.EQUAL),
                "unfinished": sum(s.finish_reason != "stop" for s in own),
                "undecided": said.count(Verdict.UNDECIDED),
                "tokens": sum(len(s.token_ids) for s in own),
            }
        )
    return rows


def _label(
    judge: Grader, samples: Sequence[_Row], easy: _Easy, prefixes: Sequence[_Row], *, soft: bool
) -> list[_Row]:
    """Samples with labels: steps by what came of their prefixes, answers by themselves."""
    share = {(row["problem_id"], row["prefix"]): row["right"] / row["completions"] for row in prefixes}
    answers = [final_answer(row["completion"], row["finished"]) for row in samples]
    verdicts = grade_answers(judge, samples, answers, easy)
    labelled = []
    for row, verdict in zip(samples, verdicts, strict=True):
        steps = step_prefixes(row["completion"], row["finished"])
        shares = [share.get((row["problem_id"], prefix), UNLABELLED) for prefix in steps]
        solution = parse_completion(row["completion"])
        labels = step_labels(shares, soft=soft)
        labels += [UNLABELLED] * (len(solution.steps) - len(labels))
        if len(solution.spans) > len(solution.steps):
            judged = RIGHT if verdict is Verdict.EQUAL else WRONG
            labels.append(judged if row["finished"] else UNLABELLED)
        labelled.append({**row, "labels": until_first_error(labels)})
    return labelled


def step_labels(shares: Sequence[float], *, soft: bool) -> list[float]:
    """Labels from shares of right completions (-1: none drawn): the share, or 1 where it is not 0."""
    return [share if soft or share == UNLABELLED else float(share > 0) for share in shares]


def _prefix_table(rows: Sequence[_Row]) -> pa.Table:
    import pyarrow as pa

    counts = ("completions", "right", "unfinished", "undecided", "tokens")
    schema = pa.schema(
        [("problem_id", pa.string()), ("prefix", pa.string()), *((name, pa.int64()) for name in counts)]
    )
    return pa.Table.from_pylist(list(rows), schema)
