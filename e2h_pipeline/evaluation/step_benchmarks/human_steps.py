"""Solutions whose steps people have judged, from several sources, in one form.

- `prm800k`: PRM800K's human labels (Lightman et al. 2023). Problems that trained the evaluator are
  among them; their scores come from the folds.
- `process_bench`: ProcessBench's MATH part (Zheng et al. 2024): the first wrong step, or none.
- `mr_math`: MR-MATH as ReasonEval published it (Xia et al. 2024), with the step scores of
  Math-Shepherd-7B and of three ReasonEval models.

A source is a function here and a line of `SOURCES`. The truth of a step behind the first error is
unknown everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.evaluation.step_benchmarks.process_bench import read_process_bench
from e2h_pipeline.evaluation.step_benchmarks.step_solutions import StepSolution, as_labelled, completion_of
from e2h_pipeline.problems import jsonl
from e2h_pipeline.problems.files import SourceState, data_folder, file_hashes, look_at_files
from e2h_pipeline.problems.math.prm800k import prm800k_files, read_prm800k
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.problems.same_problem import same_key
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.supervision.prm800k import NEUTRAL
from e2h_pipeline.supervision.ratings import rated_labels
from e2h_pipeline.supervision.rows import RIGHT, UNLABELLED, WRONG

if TYPE_CHECKING:
    from e2h_pipeline.recipe import HumanSteps
    from e2h_pipeline.solutions import TextFormat

_SUBSET = "math"  # of ProcessBench: the other three have no levels of MATH


@dataclass(frozen=True)
class HumanSolution:
    """A solution with labels of its steps by people.

    Attributes:
        problem: id of its problem, or its question where that is none of the experiment's.
        level: None where it is unknown.
        completion, finished: in the domain's format, as an evaluator reads it.
        segments: of the completion, for each step.
        labels: of each step: 1 right, 0 wrong, -1 unknown; none is known behind the first wrong one.
        complete: the first wrong step is known, or that there is none.
        published: name of another evaluator -> its probability that each step is right.
    """

    source: str
    identity: str
    problem: str
    level: int | None
    question: str
    completion: str
    finished: bool
    segments: tuple[tuple[int, ...], ...]
    labels: tuple[float, ...]
    complete: bool = True
    published: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownProblems:
    """The problems of an experiment, without answers.

    Attributes:
        by_id: rows with problem_id, level, question.
        by_text: the same by `same_key` of the question.
    """

    by_id: Mapping[str, dict[str, Any]]
    by_text: Mapping[str, dict[str, Any]]

    @classmethod
    def of(cls, folders: Iterable[Path]) -> KnownProblems:
        """Of artifacts of problems."""
        columns = ["problem_id", "level", "question"]
        rows = [row for folder in folders for row in read_table(folder / TABLE, columns).to_pylist()]
        rows = [{**row, "split": "audit"} for row in rows]
        return cls({row["problem_id"]: row for row in rows}, {same_key(row["question"]): row for row in rows})

    def find(self, question: str) -> dict[str, Any] | None:
        """The problem with this question."""
        return self.by_text.get(same_key(question))


def read_human_steps(
    options: HumanSteps, problems: KnownProblems, text: TextFormat
) -> tuple[list[HumanSolution], dict[str, Any]]:
    """The solutions of all sources that a recipe names, and counts by source.

    Raises:
        ProblemError: files that are not there, or records that do not fit.
    """
    found: list[HumanSolution] = []
    counts: dict[str, Any] = {}
    for source in options.sources:
        solutions, told = SOURCES[source].read(options, problems, text)
        found += solutions
        counts[source] = {"solutions": len(solutions), **told}
    return found, counts


def human_step_files(options: HumanSteps) -> list[Path]:
    """The files of all sources that a recipe names.

    Raises:
        ProblemError: the folder is not known, or a file is not there.
    """
    return [file for source in options.sources for file in SOURCES[source].files(options)]


def look_at_human_steps(options: HumanSteps) -> SourceState:
    """The state of these files, for the sensor that watches them. Nothing is raised."""
    nothing, text = KnownProblems({}, {}), MARKED

    def find() -> list[Path]:
        return human_step_files(options)

    return look_at_files(
        find, lambda: file_hashes(find()), lambda: read_human_steps(options, nothing, text), str(options)
    )


Read = Callable[["HumanSteps", KnownProblems, "TextFormat"], tuple[list[HumanSolution], dict[str, Any]]]


@dataclass(frozen=True)
class Source:
    """How a source's files are found and read."""

    files: Callable[[HumanSteps], list[Path]]
    read: Read


def _folder(options: HumanSteps) -> Path:
    folder = Path(options.path) if options.path else data_folder("steps")
    if folder is None:
        raise ProblemError(
            "no labelled steps: set human_steps.path to their folder, or E2H_DATA_DIR to the folder above steps/"
        )
    return folder


def _one(pattern: str) -> Callable[[HumanSteps], list[Path]]:
    def files(options: HumanSteps) -> list[Path]:
        found = sorted(_folder(options).glob(pattern))
        if len(found) != 1:
            raise ProblemError(
                f"{_folder(options)}: {len(found)} files are called {pattern}; human_steps.sources needs one"
            )
        return found

    return files


_process_bench = _one("processbench*.jsonl*")
_mr_math = _one("mr-math_invalid*.jsonl*")


def _prm800k_files(options: HumanSteps) -> list[Path]:
    return prm800k_files(_folder(options), "human_steps.path")


def _read_prm800k(
    options: HumanSteps, problems: KnownProblems, text: TextFormat
) -> tuple[list[HumanSolution], dict[str, Any]]:
    """Each step once, as in `easy_step_labels`, so that rows which trained are found again."""
    neutral = NEUTRAL[options.neutral]
    found = rated_labels(read_prm800k(_folder(options)), problems.by_id, text, neutral)
    solutions = [
        HumanSolution(
            source="prm800k",
            identity=f"{row['problem_id']}#{row['sample']}",
            problem=row["problem_id"],
            level=row["level"],
            question=row["question"],
            completion=row["completion"],
            finished=row["finished"],
            segments=tuple((i,) for i in range(len(row["labels"]))),
            labels=tuple(row["labels"]),
            complete=is_complete(row["labels"]),
        )
        for row in found.rows
    ]
    return solutions, {"dropped": found.counts.get("dropped", {})}


def is_complete(labels: Sequence[float]) -> bool:
    """Whether labels say which step is the first wrong one, or that none is. Where a step was
    labelled in another solution, a row may stop before its error."""
    return WRONG in labels or labels[-1] != UNLABELLED


def _read_process_bench(
    options: HumanSteps, problems: KnownProblems, text: TextFormat
) -> tuple[list[HumanSolution], dict[str, Any]]:
    read = read_process_bench(*_process_bench(options))
    return [_of_steps("process_bench", s, problems, text) for s in read if s.group == _SUBSET], {
        "of other subsets": sum(s.group != _SUBSET for s in read)
    }


def _read_mr_math(
    options: HumanSteps, problems: KnownProblems, text: TextFormat
) -> tuple[list[HumanSolution], dict[str, Any]]:
    (path,) = _mr_math(options)
    solutions = []
    for line, record in jsonl.read_jsonl(path):
        steps = jsonl.field(record, "model_output_step_format", list, path, line)
        error: Any = record.get("model_output_solution_first_error_step")  # "N/A" or a number from 1
        if error != "N/A" and error not in range(1, len(steps) + 1):
            raise ProblemError(f"{path}:{line}: first error step is {error!r} of {len(steps)} steps")
        question = jsonl.field(record, "question", str, path, line)
        solution = StepSolution(
            identity=str(record.get("id")),
            group="mr_math",
            problem=question,
            level=None,
            question=question,
            steps=tuple("\n".join(lines) for lines in steps),
            wrong=frozenset() if error == "N/A" else frozenset({error - 1}),
        )
        scores = jsonl.field(record, "prm_scores", dict, path, line)
        published = {
            name: _by_step(values, [len(lines) for lines in steps], path, line)
            for name, values in scores.items()
        }
        solutions.append(_of_steps("mr_math", solution, problems, text, published))
    return solutions, {}


def _by_step(values: Sequence[Any], lines: Sequence[int], path: Path, line: int) -> list[float]:
    """One probability per step of scores per line: the lowest, as in ReasonEval. Three numbers of a
    line are its chances to be wrong, neutral and right."""
    if len(values) != sum(lines):
        raise ProblemError(f"{path}:{line}: {len(values)} scores for {sum(lines)} lines of steps")
    right = [1 - value[0] if isinstance(value, list) else float(value) for value in values]
    found, start = [], 0
    for count in lines:
        found.append(min(right[start : start + count]))
        start += count
    return found


def _of_steps(
    source: str,
    solution: StepSolution,
    problems: KnownProblems,
    text: TextFormat,
    published: Mapping[str, Sequence[float]] | None = None,
) -> HumanSolution:
    """A solution of a benchmark that names the first wrong step. Without an answer block it ends
    like a step, as rows of step labels do."""
    completion, segments = completion_of(solution.steps, text)
    completion, finished = as_labelled(completion, text)
    first = min(solution.wrong, default=len(solution.steps))
    known = problems.find(solution.question)
    return HumanSolution(
        source=source,
        identity=solution.identity,
        problem=known["problem_id"] if known else same_key(solution.question),
        level=known["level"] if known else solution.level,
        question=solution.question,
        completion=completion,
        finished=finished,
        segments=tuple(map(tuple, segments)),
        labels=tuple(
            RIGHT if i < first else WRONG if i == first else UNLABELLED for i in range(len(solution.steps))
        ),
        published=published or {},
    )


SOURCES: Mapping[str, Source] = {
    "prm800k": Source(_prm800k_files, _read_prm800k),
    "process_bench": Source(_process_bench, _read_process_bench),
    "mr_math": Source(_mr_math, _read_mr_math),
}
