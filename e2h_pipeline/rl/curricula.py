"""Which questions an update rolls out on: uniform, easy levels first, or the levels where most is being learned.

Learning progress is Kanitscheider et al. 2021 (arXiv 2106.14876), in the form of its later users (OMNI, Syllabus): of each
level's success a fast average and a slow one, the average of the fast; progress is how far they lie apart, up or
down, so that what is being forgotten counts too. Success is what supervision allows: the share of right answers
on levels that have answers, the evaluator's mean score on the others. So on hard levels this curriculum can chase
the evaluator's mistakes.

Draws are counted, by seed and update, and never remembered: the state (`State`) holds what was drawn and measured
of each level, is plain JSON, and a run restored with it draws as if it had never stopped.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Curriculum, Rl
    from e2h_pipeline.rl.rollouts import Question, Rollout


class LevelState(TypedDict, total=False):
    """Questions drawn of a level so far, and the two averages of its success once it was measured."""

    drawn: int
    fast: float
    slow: float


State = dict[str, LevelState]
"""By level, written as text, for JSON knows no other keys. {} is the start of a run."""


def draw_questions(
    questions: Sequence[Question], options: Rl, state: State, seed: int, update: int
) -> tuple[list[Question], State]:
    """The questions of one update, and the state behind them.

    Every question of what is drawn from (all of them, or a level) is seen equally often: draws are passes over
    a seeded shuffle.
    """
    wanted = max(1, options.rollouts // options.samples_per_question)
    if options.curriculum.kind == "uniform":
        return _pass(questions, update * wanted, wanted, f"rl/questions/{seed}"), state
    levels: dict[int, list[Question]] = {}
    for question in questions:
        levels.setdefault(question.level, []).append(question)
    shares = level_shares({level: len(levels[level]) for level in levels}, options, state, update)
    drawn: list[Question] = []
    after = dict(state)
    for level, count in _counts(shares, wanted, seed, update).items():
        before = state.get(str(level), {})
        first = before.get("drawn", 0)
        drawn += _pass(levels[level], first, count, f"rl/questions/{seed}/level-{level}")
        after[str(level)] = {**before, "drawn": first + count}
    return drawn, after


def observe(state: State, rollouts: Sequence[Rollout], options: Rl) -> State:
    """The state after an update's rollouts: a measurement of each level they hold, where the curriculum asks."""
    curriculum = options.curriculum
    if curriculum.kind != "learning_progress":
        return state
    after = dict(state)
    for level, success in successes(rollouts, curriculum.chance).items():
        before = after.get(str(level), {})
        fast = before.get("fast", success)
        fast += curriculum.rate * (success - fast)
        slow = before.get("slow", success)
        slow += curriculum.rate * (fast - slow)
        after[str(level)] = {**before, "fast": fast, "slow": slow}
    return after


def successes(rollouts: Sequence[Rollout], chance: float) -> dict[int, float]:
    """Success of each level, in [0, 1].

    The share of right answers where the level has answers, less what guessing gets: max(p - chance, 0) / (1 - chance); the
    mean score of the evaluator where it has none.
    """
    right: dict[int, list[float]] = {}
    scored: dict[int, list[float]] = {}
    for rollout in rollouts:
        level = rollout.question.level
        if rollout.question.answer is None:
            scored.setdefault(level, []).append(rollout.evaluator_score)
        else:
            right.setdefault(level, []).append(float(bool(rollout.right)))
    found = {level: sum(values) / len(values) for level, values in scored.items()}
    for level, values in right.items():
        found[level] = max(sum(values) / len(values) - chance, 0.0) / (1 - chance)
    return dict(sorted(found.items()))


def level_shares(sizes: Mapping[int, int], options: Rl, state: State, update: int) -> dict[int, float]:
    """Share of an update's questions for each level, in order; they sum to 1, and levels without a share are left out.

    Args:
        sizes: how many questions each level has.
    """
    levels = sorted(sizes)
    kind = options.curriculum.kind
    if kind == "easy_to_hard":
        by = options.curriculum.entered_by * options.updates
        levels = [level for i, level in enumerate(levels) if update * (len(levels) - 1) >= i * by]
    total = sum(sizes[level] for level in levels)
    even = {level: sizes[level] / total for level in levels}
    if kind != "learning_progress":
        return even
    weights = progress_weights(
        {level: learning_progress(state.get(str(level), {}), options.curriculum) for level in levels}
    )
    if not weights:
        return even
    uniform = options.curriculum.uniform
    mixed = {level: uniform * even[level] + (1 - uniform) * weights.get(level, 0.0) for level in levels}
    return {level: share for level, share in mixed.items() if share > 0}


def learning_progress(level: LevelState, curriculum: Curriculum) -> float:
    """|f(fast) - f(slow)|, 0 for a level that was never measured; after one leap from 0 to 1 it fades again."""
    if "fast" not in level:
        return 0.0
    return abs(
        stretch(level["fast"], curriculum.low_success) - stretch(level["slow"], curriculum.low_success)
    )


def stretch(success: float, low: float) -> float:
    """f(p) = (1 - low) p / (p + low (1 - 2 p)): from 0 to 1 as p is, and low itself goes to 1/2.

    So a step from .05 to .1 counts more than one from .5 to .55: little success is where learning begins.
    """
    return (1 - low) * success / (success + low * (1 - 2 * success))


def progress_weights(progress: Mapping[int, float]) -> dict[int, float]:
    """Sigmoid of each progress' z-score, normalised, over the levels that move at all; {} where none does."""
    moving = {level: value for level, value in progress.items() if value > 0}
    if not moving:
        return {}
    mean = sum(moving.values()) / len(moving)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in moving.values()) / len(moving))
    scores = {
        level: 1 / (1 + math.exp(-(value - mean) / deviation)) if deviation > 0 else 0.5
        for level, value in moving.items()
    }
    return {level: score / sum(scores.values()) for level, score in scores.items()}


def _counts(shares: Mapping[int, float], wanted: int, seed: int, update: int) -> dict[int, int]:
    """Questions per level: its share of `wanted`, rounded up or down by one seeded draw for all (systematic sampling).

    Over updates each level gets its share; in one it is never a whole question off.
    """
    offset = random.Random(f"rl/levels/{seed}/{update}").random()
    counts: dict[int, int] = {}
    total, before = offset, 0
    for level, share in shares.items():
        total += share * wanted
        upto = wanted if len(counts) == len(shares) - 1 else min(wanted, math.floor(total))
        counts[level], before = upto - before, upto
    return counts


def _pass(questions: Sequence[Question], first: int, wanted: int, stream: str) -> list[Question]:
    """Draws number `first` and up of an endless row of shuffled passes."""
    drawn: list[Question] = []
    while len(drawn) < wanted:
        position = first + len(drawn)
        order = list(questions)
        random.Random(f"{stream}/{position // len(order)}").shuffle(order)
        drawn += order[position % len(order) : position % len(order) + wanted - len(drawn)]
    return drawn
