"""Preference pairs from sampled solutions: a better and a worse one of the same question.

Easy questions: a right solution over a wrong one, by the gold answer. Hard ones have none, and the paper does not
say what its iterative DPO did there (its rule, evaluator score + 1 for a right answer must differ by more than 1,
can never be met without an answer). On easy questions that rule means: right over wrong, and the evaluator
agrees. Here it is read the same way on hard ones, with the weighted vote in the place of the gold answer:

    chosen    gives the answer that wins the vote weighted by the evaluator
    rejected  gives another, or none
    margin    the evaluator scores chosen above rejected by more than this

The vote and not the best score says which answer to prefer, because it is right more often: with the paper's 8
samples a question and its process evaluator, 12.8% of the hard test questions against 11.8% (figures 4 to 14), and
more so with more samples. The margin then drops the pairs that the evaluator is unsure of. Pairs are drawn
evenly from those that are left: the widest gaps are also where an evaluator that is wrong is most so.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from e2h_pipeline.rl.rollouts import Rollout, answer_of

Classes = Callable[[Sequence[Sequence[str | None]]], list[list[int | None]]]
"""The classes of each problem's answers (`grading.verdicts.Grader.classes`)."""

# Sums of weights that differ by rounding only are ties (as in `reranking.vote`).
_TIE = 1e-12

DROPPED = ("no_winner", "one_sided", "equal_texts", "repeated", "margin", "over_cap")


@dataclass(frozen=True)
class Pair:
    """Two solutions of one question, of which the first is to become likelier."""

    chosen: Rollout
    rejected: Rollout


def preference_pairs(
    rollouts: Sequence[Rollout],
    classes: Classes,
    *,
    per_question: int,
    margin: float,
    easy_margin: float | None,
    seed: int,
    iteration: int,
) -> tuple[list[Pair], dict[str, int]]:
    """Pairs of all questions, easy and hard, in the order in which questions first appear.

    Args:
        rollouts: several of each question; those of one question are found by its id.
        classes: which answers to a hard question are the same.
        per_question: the most pairs of one question (paper: 3).
        margin: chosen must score above rejected by more than this on hard questions.
        easy_margin: the same on easy ones (paper: 0); None asks the answer alone, for baselines without evaluator.
        seed, iteration: what the draw depends on, with the question's id and its solutions. Order has no say.

    Returns:
        The pairs, and counts: `questions` and those of them without a pair because the vote had no winner
        (`no_winner`) or all solutions lie on one side (`one_sided`); `pairs` kept, and what else could have
        been paired but has the same text twice (`equal_texts`), the texts of another pair (`repeated`), too
        close scores (`margin`), or was not drawn (`over_cap`).
    """
    groups = by_question(rollouts)
    sides = better_sides(groups, classes)
    counts = Counter({"questions": len(groups), "pairs": 0, **dict.fromkeys(DROPPED, 0)})
    pairs: list[Pair] = []
    for problem_id, group in groups.items():
        better = sides[problem_id]
        if better is None:
            counts["no_winner"] += 1
            continue
        if all(better) or not any(better):
            counts["one_sided"] += 1
            continue
        needed = easy_margin if group[0].right is not None else margin
        fit = _fitting(group, better, needed, counts)
        rng = random.Random(f"rl/pairs/{seed}/{iteration}/{problem_id}")
        drawn = rng.sample(fit, min(per_question, len(fit)))
        counts["over_cap"] += len(fit) - len(drawn)
        pairs += drawn
    counts["pairs"] = len(pairs)
    return pairs, dict(counts)


def by_question(rollouts: Iterable[Rollout]) -> dict[str, list[Rollout]]:
    """The solutions of each question, in the order in which questions first appear."""
    groups: dict[str, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        groups[rollout.question.problem_id].append(rollout)
    return groups


def better_sides(groups: Mapping[str, Sequence[Rollout]], classes: Classes) -> dict[str, list[bool] | None]:
    """Of each question's solutions, which are on the better side: right where the answer may be looked at, else
    winners of the vote weighted by the evaluator; None where that has no winner."""
    hard = {name: group for name, group in groups.items() if group[0].right is None}
    sides: dict[str, list[bool] | None] = {
        name: [bool(r.right) for r in group] for name, group in groups.items() if name not in hard
    }
    answers = [[answer_of(r.sample) for r in group] for group in hard.values()]
    for (name, group), found in zip(hard.items(), classes(answers), strict=True):
        winner = weighted_vote(found, [r.evaluator_score for r in group])
        sides[name] = None if winner is None else [c == winner for c in found]
    return sides


def weighted_vote(classes: Sequence[int | None], weights: Sequence[float]) -> int | None:
    """The class with the largest sum of weights; None where two share it or nothing has weight.

    Args:
        classes: answer class of each solution; None has no vote.
        weights: not below 0, as many.
    """
    votes: dict[int, float] = defaultdict(float)
    for label, weight in zip(classes, weights, strict=True):
        if label is not None:
            votes[label] += weight
    best = max(votes.values(), default=0.0)
    leading = [label for label, vote in votes.items() if vote >= best * (1 - _TIE)]
    return leading[0] if best > 0 and len(leading) == 1 else None


def _fitting(
    group: Sequence[Rollout], better: Sequence[bool], margin: float | None, counts: Counter[str]
) -> list[Pair]:
    """The pairs of one question that may be drawn, in an order that its texts decide; the others are counted."""
    order = sorted(
        zip(group, better, strict=True),
        key=lambda item: (item[0].sample.completion, item[0].sample.token_ids),
    )
    fit: dict[tuple[str, str], Pair] = {}
    for chosen in (r for r, good in order if good):
        for rejected in (r for r, good in order if not good):
            texts = (chosen.sample.completion, rejected.sample.completion)
            if texts[0] == texts[1]:
                counts["equal_texts"] += 1
            elif texts in fit:
                counts["repeated"] += 1
            elif margin is not None and not chosen.evaluator_score - rejected.evaluator_score > margin:
                counts["margin"] += 1
            else:
                fit[texts] = Pair(chosen, rejected)
    return list(fit.values())
