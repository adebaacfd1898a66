"""Who chose what: for each problem the solutions that a vote, the evaluator and nobody chose, for people to read.

A vote chooses an answer, not a solution. Of the solutions with that answer, the table shows the one
that the evaluator scores highest. Tied answers share the credit in the metrics; here the one that
was drawn first stands for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.evaluation.graded import GradedPool
from e2h_pipeline.grading.verdicts import Grader, seen_by
from e2h_pipeline.reranking.aggregate import by_preference, step_probabilities
from e2h_pipeline.reranking.curves import RerankPool
from e2h_pipeline.statistics.levels import level_column

if TYPE_CHECKING:
    import pyarrow as pa

MAJORITY, WEIGHTED, BEST = "majority", "weighted-vote", "best-of-n"
UNCHOSEN_RIGHT, TRUSTED_WRONG = "right, chosen by nobody", "wrong, scored highest"


def choices_table(
    graded: GradedPool,
    pool: RerankPool,
    logits: NDArray[np.float64],
    offsets: NDArray[np.int64],
) -> pa.Table:
    """Two or three solutions of each problem with step scores and roles (columns: `choices_schema`).

    Args:
        graded: P problems with M samples each.
        pool: the same, with solution scores; the vote and best-of-N use the aggregations that speak
            for them.
        logits: step logits of all samples, flat.
        offsets: (P * M + 1) where each sample's logits begin.

    Only samples with an answer can be chosen. A problem none of whose samples has one has no row.
    """
    import pyarrow as pa

    names = pool.log_scores.keys()
    vote, best = (
        pool.log_scores[by_preference(method, names)[0]] for method in ("weighted-vote", "best-of-n")
    )
    levels = level_column(graded.levels)
    rows: list[dict[str, Any]] = []
    for p, problem in enumerate(graded.problem_ids):
        shares = _weight_shares(vote[p], pool.classes[p])
        for sample, roles in _chosen(pool.classes[p], pool.correct[p], vote[p], best[p]).items():
            flat = p * pool.samples + sample
            same = pool.classes[p] == pool.classes[p, sample]
            rows.append(
                {
                    "problem_id": problem,
                    "level": levels[p],
                    "question": graded.questions[p],
                    "gold": graded.gold[p],
                    "roles": roles,
                    "sample": sample,
                    "completion": graded.completions[flat],
                    "answer": graded.answers[p][sample],
                    "right": bool(pool.correct[p, sample]),
                    "votes": int(same.sum()),
                    "weight": float(shares[same].sum()),
                    "step_scores": step_probabilities(logits[offsets[flat] : offsets[flat + 1]]).tolist(),
                    "samples": pool.samples,
                    "right_samples": int(pool.correct[p].sum()),
                    "why": "",
                }
            )
    return pa.Table.from_pylist(rows, choices_schema())


def told_why(choices: pa.Table, graded: GradedPool, judge: Grader) -> pa.Table:
    """The table with the grader's words on each wrong answer (`why`), where it has any."""
    import pyarrow as pa

    rows = choices.to_pylist()
    golds = dict(zip(graded.problem_ids, graded.golds, strict=True))
    wrong = [row for row in rows if not row["right"]]
    pairs = [(seen_by(judge, golds[row["problem_id"]]), row["answer"]) for row in wrong]
    for row, grade in zip(wrong, judge.grade_pairs(pairs), strict=True):
        row["why"] = grade.detail
    return pa.Table.from_pylist(rows, choices_schema())


def _weight_shares(log_weights: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(M,) each sample's share of the weighted vote; equal where all weights are 0, and 0 without an answer."""
    answered = classes >= 0
    usable = np.where(answered, log_weights, -np.inf)
    top = usable.max(initial=-np.inf)
    weights = answered.astype(float) if np.isneginf(top) else np.exp(usable - top)
    return weights / (weights.sum() or 1.0)


def _chosen(
    classes: NDArray[np.int64],
    correct: NDArray[np.bool_],
    vote: NDArray[np.float64],
    best: NDArray[np.float64],
) -> dict[int, list[str]]:
    """Sample -> its roles, in the order of `MAJORITY`, `WEIGHTED`, `BEST`, then who was not chosen."""
    answered = np.flatnonzero(classes >= 0)
    if not len(answered):
        return {}
    found: dict[int, list[str]] = {}

    def note(role: str, among: NDArray[np.intp], scores: NDArray[np.float64]) -> None:
        found.setdefault(int(among[np.argmax(scores[among])]), []).append(role)

    shares = _weight_shares(vote, classes)
    members = [np.flatnonzero(classes == c) for c in dict.fromkeys(classes[answered].tolist())]
    note(MAJORITY, max(members, key=len), vote)
    note(WEIGHTED, max(members, key=lambda of: round(float(shares[of].sum()), 12)), vote)
    note(BEST, answered, best)
    right = [bool(correct[sample]) for sample in found]
    if not any(right) and correct[answered].any():
        note(UNCHOSEN_RIGHT, answered[correct[answered]], vote)
    if all(right) and not correct[answered].all():
        note(TRUSTED_WRONG, answered[~correct[answered]], vote)
    return found


def choices_schema() -> pa.Schema:
    """Columns of `choices.parquet`. `why` says what is wrong with an answer; `votes` and `weight` are
    those of the sample's answer."""
    import pyarrow as pa

    return pa.schema(
        [
            ("problem_id", pa.string()),
            ("level", pa.int8()),
            ("question", pa.string()),
            ("gold", pa.string()),
            ("roles", pa.list_(pa.string())),
            ("sample", pa.int32()),
            ("completion", pa.string()),
            ("answer", pa.string()),
            ("right", pa.bool_()),
            ("votes", pa.int32()),
            ("weight", pa.float64()),
            ("step_scores", pa.list_(pa.float64())),
            ("samples", pa.int32()),
            ("right_samples", pa.int32()),
            ("why", pa.string()),
        ]
    )
