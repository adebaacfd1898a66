"""Which questions an update rolls out on: all alike, easy levels first, or by learning progress.

Learning progress is that of Kanitscheider et al. 2021 (arXiv 2106.14876), in the form of its later
users (OMNI, Syllabus). Each level has a fast average of its success, and a slow one, which is an
average of the fast. Progress is the distance of the two, up or down, so that forgetting counts too.
Success is what supervision allows: the share of right answers on levels that have answers, the
evaluator's mean score on the others. So on hard levels this curriculum can chase the evaluator's
mistakes.

Every draw follows from seed and update number. The state (`State`) has the draws and measurements
of each level. It is plain JSON, and a run restored with it draws as if it had never stopped.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Curriculum, OnlineRl
    from e2h_pipeline.rl.questions import Question
    from e2h_pipeline.rl.rollouts import Rollout


class LevelState(TypedDict, total=False):
    """Questions drawn of a level so far, and the two averages of its success, once measured."""

    drawn: int
    fast: float
    slow: float


State = dict[str, LevelState]
"""By level as text, because JSON keys are text. {} is the start of a run."""


def draw_questions(
    questions: Sequence[Question], options: OnlineRl, state: State, seed: int, update: int
) -> tuple[list[Question], State]:
    """The questions of one update, and the state after them.

    Draws are passes over a seeded shuffle, of all questions (`uniform`) or of each level, so each
    question of a shuffle is seen equally often.
    """
    wanted = max(1, options.rollouts // options.samples_per_question)
    shares_of = LEVEL_SHARES.get(options.curriculum.kind)
    if shares_of is None:
        return _pass(questions, update * wanted, wanted, f"rl/questions/{seed}"), state
    levels: dict[int, list[Question]] = {}
    for question in questions:
        levels.setdefault(question.level, []).append(question)
    shares = shares_of({level: len(levels[level]) for level in levels}, options, state, update)
    drawn: list[Question] = []
    after = dict(state)
    for level, count in _counts(shares, wanted, seed, update).items():
        before = state.get(str(level), {})
        first = before.get("drawn", 0)
        drawn += _pass(levels[level], first, count, f"rl/questions/{seed}/level-{level}")
        after[str(level)] = {**before, "drawn": first + count}
    return drawn, after


def observe(state: State, rollouts: Sequence[Rollout], options: OnlineRl) -> State:
    """The state after an update's rollouts, where the curriculum measures success by level."""
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

    The share of right answers where the level has answers, less what guessing gets: max(p - chance,
    0) / (1 - chance); the mean score of the evaluator where it has none.
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


def easy_to_hard(sizes: Mapping[int, int], options: OnlineRl, state: State, update: int) -> dict[int, float]:
    """Shares of levels that enter one by one, all by `entered_by` of the updates
    (`LEVEL_SHARES`)."""
    levels = sorted(sizes)
    by = options.curriculum.entered_by * options.updates
    entered = [level for i, level in enumerate(levels) if update * (len(levels) - 1) >= i * by]
    return _by_size({level: sizes[level] for level in entered})


def by_progress(sizes: Mapping[int, int], options: OnlineRl, state: State, update: int) -> dict[int, float]:
    """Shares of levels by learning progress, `uniform` of them by size (`LEVEL_SHARES`)."""
    curriculum, even = options.curriculum, _by_size({level: sizes[level] for level in sorted(sizes)})
    weights = progress_weights(
        {level: learning_progress(state.get(str(level), {}), curriculum) for level in even}
    )
    if not weights:
        return even
    uniform = curriculum.uniform
    mixed = {level: uniform * even[level] + (1 - uniform) * weights.get(level, 0.0) for level in even}
    return {level: share for level, share in mixed.items() if share > 0}


LEVEL_SHARES: dict[str, Callable[[Mapping[int, int], OnlineRl, State, int], dict[int, float]]] = {
    "easy_to_hard": easy_to_hard,
    "learning_progress": by_progress,
}
"""Curricula that draw level by level, by the word of `rl.curriculum.kind`.

Each is a function of the number of questions of each level, options, state and update. It returns
the share of each level in the update's questions, in order of level; shares sum to 1, and levels
without one are left out.
"""


def _by_size(sizes: Mapping[int, int]) -> dict[int, float]:
    total = sum(sizes.values())
    return {level: size / total for level, size in sizes.items()}


def learning_progress(level: LevelState, curriculum: Curriculum) -> float:
    """|f(fast) - f(slow)| with f = `stretch`; 0 if never measured. It fades after a single jump."""
    if "fast" not in level:
        return 0.0
    return abs(
        stretch(level["fast"], curriculum.low_success) - stretch(level["slow"], curriculum.low_success)
    )


def stretch(success: float, low: float) -> float:
    """f(p) = (1 - low) p / (p + low (1 - 2 p)): 0 and 1 stay, and `low` becomes 1/2.

    So a rise from .05 to .1 counts more than one from .5 to .55: learning begins where success is
    rare.
    """
    return (1 - low) * success / (success + low * (1 - 2 * success))


def progress_weights(progress: Mapping[int, float]) -> dict[int, float]:
    """Sigmoid of each z-score of progress, normalised, over levels that move; {} where none
    does."""
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
    """Questions per level: its share of `wanted`, rounded by one seeded draw (systematic sampling).

    Each level gets its share in the long run, and is less than one question off in each update.
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
    """Draws from number `first` on, out of an endless row of shuffled passes."""
    drawn: list[Question] = []
    while len(drawn) < wanted:
        position = first + len(drawn)
        order = list(questions)
        random.Random(f"{stream}/{position // len(order)}").shuffle(order)
        drawn += order[position % len(order) : position % len(order) + wanted - len(drawn)]
    return drawn
