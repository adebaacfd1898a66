"""Preference pairs from sampled solutions: a better and a worse one of the same question.

Easy questions: a right solution over a wrong one, by the gold answer. In the paper's rule,
evaluator score + 1 for a right answer must differ by more than 1: so the evaluator must agree too.
On hard questions, which have no gold answer, the rule can never be met, and the paper does not say
what its iterative DPO did. Here the weighted vote takes the place of the gold answer:

    chosen    gives the answer that wins the vote weighted by the evaluator
    rejected  gives another, or none
    margin    the evaluator scores chosen above rejected by more than this

The vote, not the best score, says which answer to prefer, because it is right more often: with the
paper's 8 samples a question and its process evaluator, 12.8% of the hard test questions against
11.8% (figures 4 to 14), and more so with more samples. The margin drops the pairs that the
evaluator is unsure of. Of the others some are drawn, with equal chance: the widest gaps are also
where a mistaken evaluator errs most.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2h_pipeline.rl.rollouts import Rollout

if TYPE_CHECKING:
    from e2h_pipeline.recipe import PreferenceRl
    from e2h_pipeline.rl.rounds.protocol import Classes

# Sums of weights that differ only by rounding are ties (as in `reranking.vote`).
_TIE = 1e-12

DROPPED = ("no_winner", "one_sided", "equal_texts", "repeated", "margin", "over_cap")


@dataclass(frozen=True)
class Pair:
    """Two solutions of one question; the first is to become likelier."""

    chosen: Rollout
    rejected: Rollout


def preference_pairs(
    rollouts: Sequence[Rollout], classes: Classes, options: PreferenceRl, seed: int, iteration: int
) -> tuple[list[Pair], dict[str, int]]:
    """Pairs of all questions, easy and hard, in the order in which questions first appear.

    Draws depend on seed, iteration, the question's id and its solutions, but not on their order.

    Args:
        rollouts: several of each question; those of one question are found by its id.
        classes: which answers to a hard question are the same.
        options: most pairs of one question, and by how much the evaluator must score chosen above
            rejected: `margin` on hard questions, 0 on easy ones, where `evaluator_agrees` is set;
            else the answer decides alone.

    Returns:
        The pairs, and counts: `questions` and those of them without a pair because the vote had no
        winner (`no_winner`) or all solutions lie on one side (`one_sided`); `pairs` kept, and
        possible pairs that were dropped: the same text twice (`equal_texts`), the texts of another
        pair (`repeated`), scores too close (`margin`), not drawn (`over_cap`).
    """
    groups = by_question(rollouts)
    sides = better_sides(groups, classes)
    counts = Counter({"questions": len(groups), "pairs": 0, **dict.fromkeys(DROPPED, 0)})
    easy_margin = 0.0 if options.evaluator_agrees else None
    pairs: list[Pair] = []
    for problem_id, group in groups.items():
        better = sides[problem_id]
        if better is None:
            counts["no_winner"] += 1
            continue
        if all(better) or not any(better):
            counts["one_sided"] += 1
            continue
        needed = easy_margin if group[0].right is not None else options.margin
        fit = _fitting(group, better, needed, counts)
        rng = random.Random(f"rl/pairs/{seed}/{iteration}/{problem_id}")
        drawn = rng.sample(fit, min(options.per_question, len(fit)))
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
    """Which solutions of each question are on the better side; None where the vote has no winner.

    With a gold answer these are the right ones, else the winners of the vote weighted by the
    evaluator.
    """
    hard = {name: group for name, group in groups.items() if group[0].right is None}
    sides: dict[str, list[bool] | None] = {
        name: [bool(r.right) for r in group] for name, group in groups.items() if name not in hard
    }
    answers = [[r.answer for r in group] for group in hard.values()]
    questions = [group[0].question.question for group in hard.values()]
    for (name, group), found in zip(hard.items(), classes(answers, questions), strict=True):
        winner = weighted_vote(found, [r.evaluator_score for r in group])
        sides[name] = None if winner is None else [c == winner for c in found]
    return sides


def weighted_vote(classes: Sequence[int | None], weights: Sequence[float]) -> int | None:
    """The class with the largest sum of weights; None where two tie or nothing has weight.

    Args:
        classes: answer class of each solution; None does not vote.
        weights: one per solution, at least 0.
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
    """The pairs of one question that may be drawn, ordered by text; the others are counted."""
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
