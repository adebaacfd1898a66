"""Step labels by Monte-Carlo completion (Math-Shepherd, Wang et al. 2024, section 3).

A step is judged by its continuations: from the end of the step the policy draws N completions, and
their answers are compared with the easy problem's. Hard label: 1 if any is right, else 0. Soft
label: the share that is right. The answer block is not completed but compared itself.

Samples share beginnings, so each distinct prefix is completed once. Prefixes are taken depth by
depth. Where no completion is right, the solution has gone wrong: labels stop (as everywhere in this
project), and later prefixes are not completed. A step or an answer that the length limit cut in two
is not labelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.lineage import LABELS_BOUGHT
from e2h_pipeline.artifacts.shards import Call, complete_shards
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.generation.engines.loading import cached_engine
from e2h_pipeline.generation.engines.protocol import Engine, SampleRequest
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.generation.sample_pool import sampling_options
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.grading.verdicts import Grader, Verdict
from e2h_pipeline.supervision.cost import labels_bought
from e2h_pipeline.supervision.rows import (
    RIGHT,
    UNLABELLED,
    WRONG,
    Rows,
    balanced_by_problem,
    by_problem,
    distinct_samples,
    grade_answers,
    until_first_error,
)
from e2h_pipeline.supervision.source import GRADER, AskedSource, LabelJob, LabelledRows

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.problems.domain import Domain
    from e2h_pipeline.recipe import Sampling
    from e2h_pipeline.solutions import TextFormat

STREAM = "easy_step_labels"
"""Names the stream of randomness of the completions."""

_COUNTS = ("completions", "right", "unfinished", "undecided", "tokens")
_Easy = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Completing:
    """How prefixes are completed and judged. It is sent to other processes, so it is small and
    picklable.

    Attributes:
        engine: the sampling engine, by its name in the registry.
        policy: folder of the model that completes.
        completions: number per prefix.
        sampling: how they are drawn; `samples` is ignored.
        grader: judges answers; its name in the registry.
        domain: finds answers, and says how solutions are written.
        seed: of the draws.
        stream: name of their stream.
    """

    engine: str
    policy: Path
    completions: int
    sampling: Sampling
    grader: str
    domain: Domain
    seed: int
    stream: str


class MonteCarlo(AskedSource):
    """Labels distinct samples of easy problems. Shards of problems survive a kill, damaged ones are
    made again."""

    samples = True
    methods = (GRADER,)

    def reads(self, options: Any) -> tuple[str, ...]:
        """The samples that are labelled, and the policy that completes their beginnings."""
        return ("easy_samples", "sft_policy")

    def draw(self, job: LabelJob) -> LabelledRows:
        """Samples with labels, and counts: `dropped`, `prefixes`, `completions`, of these `right`,
        `unfinished` and `undecided`, their `tokens`, the `grader`, and `labels_bought`.

        Raises:
            ValueError: there are no samples.
        """
        samples = self.candidates(job)
        if not samples:
            raise ValueError(
                "labels.source=monte_carlo labels easy samples, and there are none: set easy_samples.samples"
            )
        found = self.label(job, samples)
        return LabelledRows(balanced_by_problem(found.rows, job), found.counts)

    def candidates(self, job: LabelJob) -> Rows:
        """The distinct samples."""
        return distinct_samples(job.inputs["easy_samples"] / "data", job.easy)

    def label(self, job: LabelJob, rows: Rows) -> LabelledRows:
        """Samples with labels, and the counts of `draw`; only prefixes of these samples are completed."""
        prefixes = _all_prefixes(job, rows)
        with grader(job.grader) as judge:
            labelled = _label(judge, rows, job, prefixes)
            version = judge.version
        kept = [row for row in labelled if any(label != UNLABELLED for label in row["labels"])]
        dropped = len(labelled) - len(kept)
        counts = {
            "dropped": {"nothing to label": dropped} if dropped else {},
            "prefixes": len(prefixes),
            **{name: sum(row[name] for row in prefixes) for name in _COUNTS},
            "grader": version,
            LABELS_BOUGHT: labels_bought(kept, job.domain.text),
        }
        return LabelledRows(kept, counts)


def _all_prefixes(job: LabelJob, samples: Rows) -> Rows:
    """The rows of `complete_problems` for all samples; shards of an earlier run are reused."""
    options, work, size = job.options, job.work, job.sampling.shard_questions
    how = Completing(
        engine=work.engine,
        policy=job.inputs["sft_policy"],
        completions=options.completions,
        sampling=job.sampling,
        grader=job.grader,
        domain=job.domain,
        seed=work.seed,
        stream=job.stream(STREAM),
    )
    problems = list(by_problem(samples).values())
    calls: list[Call] = []
    for number, start in enumerate(range(0, len(problems), size)):
        rows = [row for own in problems[start : start + size] for row in own]
        asked = {row["problem_id"]: job.easy[row["problem_id"]] for row in rows}
        calls.append((f"part-{number:05d}", (how, rows, asked)))
    done = 0

    def tell(_name: str, _made: pa.Table | None) -> None:
        nonlocal done
        done = min(done + size, len(problems))
        told = f"problems, {options.completions} completions a prefix"
        work.reporter.progress(done, len(problems), told)

    folder = work.folder / "prefixes"
    try:
        complete_shards(folder, calls, complete_problems, work.runner, work.reporter, tell)
    finally:
        cached_engine.cache_clear()
    return read_table(folder).to_pylist()


def step_prefixes(completion: str, finished: bool, text: TextFormat) -> list[str]:
    """The text up to the end of each step, ready to go on from; a cut-off step has none."""
    solution = text.parse(completion)
    spans = solution.spans[: len(solution.steps)]
    cut = (
        not finished
        and bool(spans)
        and spans[-1][1] == len(completion)
        and not completion.endswith(text.separator)
    )
    return [completion[:end].rstrip() + text.separator for _, end in (spans[:-1] if cut else spans)]


def complete_problems(how: Completing, rows: Rows, easy: _Easy) -> pa.Table:
    """Complete the distinct prefixes of some problems' samples, depth by depth, while any
    completion is right: a row for each prefix, with counts."""
    engine = cached_engine(how.engine, how.policy)
    text = how.domain.text
    alive = [(row["problem_id"], step_prefixes(row["completion"], row["finished"], text)) for row in rows]
    found: Rows = []
    depth = 0
    with grader(how.grader) as judge:
        while alive := [(name, prefixes) for name, prefixes in alive if len(prefixes) > depth]:
            wanted = sorted({(name, prefixes[depth]) for name, prefixes in alive})
            drawn = _complete_prefixes(engine, judge, wanted, easy, how)
            found += drawn
            hopeful = {(row["problem_id"], row["prefix"]) for row in drawn if row["right"]}
            alive = [(name, prefixes) for name, prefixes in alive if (name, prefixes[depth]) in hopeful]
            depth += 1
    return _prefix_table(found)


def _complete_prefixes(
    engine: Engine, judge: Grader, wanted: Sequence[tuple[str, str]], easy: _Easy, how: Completing
) -> Rows:
    """Draw and grade the completions of each (problem id, prefix)."""
    requests = [
        SampleRequest(
            easy[name]["question"],
            how.domain.text,
            stream_key(how.seed, how.stream, f"{name}\0{prefix}"),
            how.completions,
            prefix=prefix,
        )
        for name, prefix in wanted
    ]
    drawn = engine.sample(requests, sampling_options(how.sampling))
    flat = [(name, prefix, s) for (name, prefix), own in zip(wanted, drawn, strict=True) for s in own]
    answers = [
        how.domain.answer_of(prefix + s.completion, s.finish_reason == "stop") for _, prefix, s in flat
    ]
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


def _label(judge: Grader, samples: Rows, job: LabelJob, prefixes: Rows) -> Rows:
    """Samples with labels: steps by the completions of their prefixes, answers by their grade."""
    share = {(row["problem_id"], row["prefix"]): row["right"] / row["completions"] for row in prefixes}
    answers = [job.domain.answer_of(row["completion"], row["finished"]) for row in samples]
    verdicts = grade_answers(judge, samples, answers, job.easy)
    text = job.domain.text
    labelled = []
    for row, verdict in zip(samples, verdicts, strict=True):
        steps = step_prefixes(row["completion"], row["finished"], text)
        shares = [share.get((row["problem_id"], prefix), UNLABELLED) for prefix in steps]
        solution = text.parse(row["completion"])
        labels = step_labels(shares, soft=job.options.soft)
        labels += [UNLABELLED] * (len(solution.steps) - len(labels))
        if len(solution.spans) > len(solution.steps):
            judged = RIGHT if verdict is Verdict.EQUAL else WRONG
            labels.append(judged if row["finished"] else UNLABELLED)
        labelled.append({**row, "labels": until_first_error(labels)})
    return labelled


def step_labels(shares: Sequence[float], *, soft: bool) -> list[float]:
    """Labels from shares of right completions (-1: none drawn): the share, or 1 where above 0."""
    return [share if soft or share == UNLABELLED else float(share > 0) for share in shares]


def _prefix_table(rows: Rows) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema(
        [("problem_id", pa.string()), ("prefix", pa.string()), *((name, pa.int64()) for name in _COUNTS)]
    )
    return pa.Table.from_pylist(rows, schema)
