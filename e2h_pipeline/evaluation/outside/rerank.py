r"""Samples made elsewhere, reranked as our own pools are: the same votes, curves and intervals.

JSON lines, a problem each:

    {"problem_id": "test/algebra/1", "level": 3, "gold": "5",
     "responses": ["... so \\boxed{5}.", "..."], "step_scores": [[0.9, 0.8], [0.4]]}

`answers` (null: there is none) may replace `responses`. `finish_reasons` beside `responses` say
which were cut off ("length") and so have no answer. `level` is a whole number from 1, or such a
number as MATH writes it ("Level 3"). A problem without one counts among all problems, not as easy
or hard. `scores` has a number per sample, `step_scores` one per step. They are probabilities, which
float32 may round to a little more than 1, or logits where the caller says so; then the sigmoid is
taken. Scores are the weights of a vote, and a raw reward of -1.7 has no obvious weight. Lines with
`question` and `responses` get their `step_scores` from `e2h score`, or from an evaluator here.

Every problem must have equally many samples: a curve whose problems change with N compares
different problems. `limit` takes the first samples of each.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.evaluation.graded import PoolError, grade_pool, vote_classes
from e2h_pipeline.evaluation.outside.grade_lines import answer_in, as_text, json_name, text_field
from e2h_pipeline.evaluation.rerank import Origin, RerankTables, chosen_aggregations, rerank_tables
from e2h_pipeline.grading.verdicts import Gold
from e2h_pipeline.problems.jsonl import read_records
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.reranking.aggregate import Aggregation, aggregate, log_step_probabilities
from e2h_pipeline.reranking.curves import RerankPool
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.levels import HIGHEST_LEVEL, level_array

if TYPE_CHECKING:
    from e2h_pipeline.evaluation.outside.step_lines import Numbered
    from e2h_pipeline.grading.verdicts import Grader
    from e2h_pipeline.recipe import Evaluation, Rerank

NO_POLICY = "samples"  # nobody says who drew them
SCORE = "score"  # in the place of an aggregation: `scores` need none
_ROUNDING = 1e-5  # a probability may be so far outside [0, 1]: float32 and bfloat16 sums of a softmax
_LEVEL = re.compile(r"(?:[Ll]evel )?([0-9]{1,9})")
_SCORE_FIELDS = ("scores", "step_scores")
_FIELDS = ("problem_id", "level", "gold", "responses", "finish_reasons", "answers", *_SCORE_FIELDS)


@dataclass(frozen=True)
class ExternalProblem:
    """A problem with M samples.

    Attributes:
        where: its file and line, for errors.
        level: None where it is unknown.
        answers: M, None where there is none.
        cut_off: how many of the samples the length limit cut off.
        scores: M numbers, or empty.
        step_scores: M lists with a number per step, or empty.
        digest: of all that was read.
    """

    where: str
    problem_id: str
    level: int | None
    gold: str
    answers: list[str | None]
    cut_off: int
    scores: list[float]
    step_scores: list[list[float]]
    digest: str

    @property
    def score_fields(self) -> tuple[str, ...]:
        """Names of the score fields it has."""
        return tuple(name for name in _SCORE_FIELDS if getattr(self, name))


@dataclass(frozen=True)
class ExternalOptions:
    """How samples are reranked.

    Attributes:
        benchmark: name of the problems in tables.
        logits: scores are logits, not probabilities.
        seed: of the subsets that vote, and of the intervals.
    """

    benchmark: str
    logits: bool
    rerank: Rerank
    evaluation: Evaluation
    seed: int


@dataclass(frozen=True)
class ExternalResult:
    """What was measured, with which grader and seed; and the tables."""

    summary: dict[str, Any]
    tables: RerankTables


def read_samples(
    file: IO[bytes], name: str, *, logits: bool = False, limit: int | None = None
) -> list[ExternalProblem]:
    """`samples_of` an open file of JSON lines; gzipped where its name ends in .gz."""
    return samples_of(read_records(file, name), name, logits=logits, limit=limit)


def samples_of(
    records: Iterable[Numbered], name: str, *, logits: bool = False, limit: int | None = None
) -> list[ExternalProblem]:
    """All problems of a file, checked, in order of problem id. Responses are not kept.

    Args:
        records: (line number, line).
        name: of the file, for errors.
        logits: scores are logits: any finite number will do.
        limit: take only the first so many samples of each problem.

    Raises:
        ProblemError: a line that cannot be read or used.
        PoolError: problems that do not go together.
    """
    found = [_problem(record, f"{name}:{number}", logits, limit) for number, record in records]
    if not found:
        raise PoolError(f"{name}: no line; there must be one for each problem")
    _check_together(found)
    return sorted(found, key=lambda problem: problem.problem_id)


def first_samples(record: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    """A line with its first samples alone, so that the others are not scored."""
    lists = ("responses", "answers", "finish_reasons", *_SCORE_FIELDS)
    return {
        name: value[:limit] if name in lists and isinstance(value, list) else value
        for name, value in record.items()
    }


def rerank_external(
    problems: Sequence[ExternalProblem], judge: Grader, options: ExternalOptions
) -> ExternalResult:
    """Grade the answers and rerank: majority and pass@N, and with scores weighted vote and best-of-N.

    Args:
        problems: from `read_samples`.
    """
    rerank, evaluation = options.rerank, options.evaluation
    answers = [problem.answers for problem in problems]
    correct, undecided = grade_pool(answers, [Gold(problem.gold) for problem in problems], judge)
    pool = RerankPool(
        tuple(problem.problem_id for problem in problems),
        vote_classes(answers, judge),
        correct,
        _log_scores(problems, options.logits, chosen_aggregations(rerank)),
    )
    tables = rerank_tables(
        pool,
        level_array(problem.level for problem in problems),
        Origin(options.benchmark, judge.version, NO_POLICY, " and ".join(problems[0].score_fields)),
        rerank.draws,
        evaluation.easy_levels,
        Bootstrap(evaluation.bootstrap, evaluation.confidence, options.seed),
    )
    summary = {
        "benchmark": options.benchmark,
        "grader": judge.name,
        "grader_version": judge.version,
        "problems": len(problems),
        "samples": pool.samples,
        "no_answer": int((pool.classes < 0).sum()),
        "cut_off": sum(problem.cut_off for problem in problems),
        "undecided": undecided,
        **_scores_summary(problems, options.logits),
        "data_version": digest_json([problem.digest for problem in problems]),
        "seed": options.seed,
        "draws": rerank.draws,
        "bootstrap": evaluation.bootstrap,
        "confidence": evaluation.confidence,
        "easy_levels": list(evaluation.easy_levels),
    }
    return ExternalResult(summary, tables)


def _scores_summary(problems: Sequence[ExternalProblem], logits: bool) -> dict[str, Any]:
    fields = list(problems[0].score_fields)
    return {"scores": fields, "scores_are": ("logits" if logits else "probabilities") if fields else ""}


def _log_scores(
    problems: Sequence[ExternalProblem], logits: bool, aggregations: Mapping[str, Aggregation]
) -> dict[str, NDArray[np.float64]]:
    """Aggregation -> (P, M) log of the solution score."""
    shape = (len(problems), len(problems[0].answers))
    found = {}
    if problems[0].scores:
        numbers = np.array([problem.scores for problem in problems], dtype=np.float64)
        found[SCORE] = _log_probabilities(numbers, logits)
    if problems[0].step_scores:
        solutions = [steps for problem in problems for steps in problem.step_scores]
        offsets = np.concatenate([[0], np.cumsum([len(steps) for steps in solutions])]).astype(np.int64)
        flat = np.array([score for steps in solutions for score in steps], dtype=np.float64)
        logs = _log_probabilities(flat, logits)
        for name, aggregation in aggregations.items():
            found[name] = aggregate(logs, offsets, aggregation).reshape(shape)
    return found


def _log_probabilities(scores: NDArray[np.float64], logits: bool) -> NDArray[np.float64]:
    if logits:
        return log_step_probabilities(scores)
    with np.errstate(divide="ignore"):
        return np.log(scores)


def _problem(record: dict[str, Any], where: str, logits: bool, limit: int | None) -> ExternalProblem:
    answers, cut_off = _answers(record, where)
    if limit is not None and len(answers) < limit:
        raise PoolError(f"{where}: {len(answers)} samples, and {limit} are asked for; ask for fewer")
    scores = _list(record, "scores", where, len(answers))
    step_scores = _list(record, "step_scores", where, len(answers))
    return ExternalProblem(
        where,
        text_field(record, "problem_id", where),
        level_field(record, where),
        text_field(record, "gold", where),
        answers[:limit],
        sum(cut_off[:limit]),
        score_numbers(scores, f"{where}: 'scores'", logits)[:limit],
        [
            score_numbers(steps, f"{where}: 'step_scores' of sample {i}", logits)
            for i, steps in enumerate(step_scores)
        ][:limit],
        digest_json({name: record[name] for name in _FIELDS if name in record}),
    )


def _answers(record: dict[str, Any], where: str) -> tuple[list[str | None], list[bool]]:
    """Each sample's answer, and whether it was cut off."""
    if "answers" in record:
        values = _list(record, "answers", where)
        answers = [
            None if value is None else as_text(value, f"{where}: 'answers' of sample {i}")
            for i, value in enumerate(values)
        ]
        return answers, [False] * len(answers)
    if "responses" not in record:
        raise ProblemError(
            f"{where}: neither 'responses' nor 'answers'; there are {', '.join(record) or 'none'};"
            " give the texts of the samples, or their answers"
        )
    responses = _list(record, "responses", where)
    reasons = _list(record, "finish_reasons", where, len(responses)) or [None] * len(responses)
    answers = [
        answer_in(as_text(response, f"{where}: 'responses' of sample {i}"), reason)
        for i, (response, reason) in enumerate(zip(responses, reasons, strict=True))
    ]
    return answers, [reason == "length" for reason in reasons]


def _list(record: dict[str, Any], name: str, where: str, count: int | None = None) -> list[Any]:
    """A list with an entry per sample; empty where the field is absent or null, if `count` allows that."""
    value = record.get(name)
    if value is None and count is not None:
        return []
    if not isinstance(value, list):
        raise ProblemError(
            f"{where}: '{name}' must be a list with an entry per sample, not {json_name(value)}"
        )
    if count is None and not value:
        raise ProblemError(f"{where}: '{name}' is empty; delete the line, or give it samples")
    if count is not None and len(value) != count:
        raise ProblemError(
            f"{where}: '{name}' has {len(value)} entries for {count} samples; give each sample one"
        )
    return value


def level_field(record: dict[str, Any], where: str) -> int | None:
    """The level of a line; None where it is unknown.

    Raises:
        ProblemError: it is no level.
    """
    level = record.get("level")
    if level is None or level == "Level ?":
        return None
    if isinstance(level, str) and (match := _LEVEL.fullmatch(level.strip())):
        level = int(match[1])
    if isinstance(level, float) and level.is_integer():
        level = int(level)
    if isinstance(level, bool) or not isinstance(level, int) or not 1 <= level <= HIGHEST_LEVEL:
        raise ProblemError(
            f"{where}: 'level' must be a whole number from 1 to {HIGHEST_LEVEL}, not {level!r:.60}; leave it out where "
            "unknown"
        )
    return level


def score_numbers(values: Any, what: str, logits: bool) -> list[float]:
    """Probabilities, or any finite numbers where they are logits.

    Raises:
        ProblemError: anything else; the message begins with `what`.
    """
    if not isinstance(values, list):
        raise ProblemError(f"{what} must be a list of numbers, not {json_name(values)}")
    for i, value in enumerate(values):
        if isinstance(value, list):
            raise ProblemError(
                f"{what}: entry {i} is a list; a sample has one number in 'scores', and a list with a number per step"
                " in 'step_scores'"
            )
        if not _is_finite(value):
            raise ProblemError(f"{what}: entry {i} must be a finite number, not {value!r:.60}")
        if not logits and not -_ROUNDING <= value <= 1 + _ROUNDING:
            raise ProblemError(
                f"{what}: entry {i} is {value:g}; scores are probabilities from 0 to 1."
                " If these are logits or raw rewards, say --logits: the sigmoid of each is taken"
            )
    return [float(value) if logits else min(max(float(value), 0.0), 1.0) for value in values]


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def _check_together(problems: Sequence[ExternalProblem]) -> None:
    """One line per problem, equally many samples, the same kinds of scores."""
    first: dict[str, ExternalProblem] = {}
    for problem in problems:
        earlier = first.setdefault(problem.problem_id, problem)
        if earlier is not problem:
            raise PoolError(
                f"{problem.where}: problem_id '{problem.problem_id:.80}' was on {earlier.where} before;"
                " put all samples of a problem into one line"
            )
    usual = Counter(len(problem.answers) for problem in problems).most_common(1)[0][0]
    least = min(len(problem.answers) for problem in problems)
    for problem in problems:
        if len(problem.answers) != usual:
            raise PoolError(
                f"{problem.where}: {len(problem.answers)} samples, others have {usual}; give every problem"
                f" equally many, or take the first {least} of each with --samples {least}"
            )
        if problem.score_fields != problems[0].score_fields:
            have, want = (" and ".join(p.score_fields) or "no scores" for p in (problem, problems[0]))
            raise PoolError(
                f"{problem.where}: {have}, but {want} on {problems[0].where}; score all problems alike"
            )
