"""From step scores to step rewards and terminal rewards: pure functions, without a reward hole.

The paper's scheme is the running minimum (appendix C.3; released code,
`shape_math_process_rewards`): its sum telescopes, so a solution cannot earn more by adding steps.
The other schemes are the field's ways to the same goal; `total` misses it, and is the control. Each
docstring gives the sum of the rewards, its bounds, and the effect of cutting a step in two.
`SCHEMES` has them by the word of `rl.shaping`.

The evaluator scores all segments: the steps, and the answer block as the last of them. The released
code rewards only what stands before `# Answer`; below, the answer block counts as a step.

A solution without a step before its answer gets the reward of a single step of score 0, without the
bonus. The released code gives 0, but writing nothing must not beat writing something wrong. Under
`clip`, writing nothing beats two wrong steps or more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from operator import mul
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2h_pipeline.recipe import OnlineRl


def step_rewards(scores: Sequence[float], options: OnlineRl) -> list[float]:
    """Step rewards of one solution by the recipe's scheme, plus an even share of `step_bonus` each.

    Args:
        scores: probabilities in [0, 1] that each step is right, in order.
    """
    shaped = SCHEMES[options.shaping](scores, options)
    return [reward + options.step_bonus / len(scores) for reward in shaped]


def without_steps(options: OnlineRl) -> float:
    """Process reward of a solution without a step: that of a step of score 0, without the bonus."""
    return SCHEMES[options.shaping]([0.0], options)[0]


def running_minimum(scores: Sequence[float], upper_bound: float) -> list[float]:
    """r_i = min(0, p_i - m_{i-1}), m_i the minimum so far, m_0 a bound (paper, appendix C.3).

    The sum is min(upper_bound, min_i p_i) - upper_bound, in [-upper_bound, 0]. It stays the same
    when a step is cut in two and the worse half scores as the step did.

    Args:
        upper_bound: in (0, 1]; scores above it are as good as it.
    """
    rewards, lowest = [], upper_bound
    for score in scores:
        rewards.append(min(0.0, score - lowest))
        lowest = min(lowest, score)
    return rewards


def running_product(scores: Sequence[float], upper_bound: float) -> list[float]:
    """`running_minimum` of the products p_1 ... p_i ("prod" in the paper's released code).

    The sum is min(upper_bound, product of all p_i) - upper_bound, in [-upper_bound, 0]. It stays
    the same when a step is cut in two and the halves' scores multiply to the step's. With scores
    below 1 more steps cost more.
    """
    return running_minimum(list(accumulate(scores, mul)), upper_bound)


def soft_minimum(scores: Sequence[float], temperature: float) -> list[float]:
    """r_i = softmax(-s / temperature)_i s_i with s_i = 2 p_i - 1 (PURE, arXiv 2504.15275).

    PURE's temperature is 0.1. The sum is a mean of the s_i that leans to the lowest: at least min_i
    s_i, at most their plain mean, in [-1, 1]. No guarantee when a step is cut in two: right steps
    beside a wrong one take some of its weight away."""
    signed = [2 * score - 1 for score in scores]
    lowest = min(signed, default=0.0)
    weights = [math.exp((lowest - value) / temperature) for value in signed]
    return [weight / sum(weights) * value for weight, value in zip(weights, signed, strict=True)]


def strict_minimum(scores: Sequence[float]) -> list[float]:
    """r_i = m_i - m_{i+1}, m_i the lowest s_j = 2 p_j - 1 of steps j >= i, 0 at the end (PURE,
    strict).

    The rewards from step i on sum to m_i, its value in PURE; all of them to min_i s_i, in [-1, 1].
    The sum stays the same when a step is cut in two and the worse half scores as the step did.
    """
    signed = [2 * score - 1 for score in scores]
    lowest = list(accumulate(reversed(signed), min))[::-1]
    return [now - later for now, later in pairwise([*lowest, 0.0])]


def delta(scores: Sequence[float]) -> list[float]:
    """r_i = p_i - p_{i+1}, with 0 after the last (Delta, arXiv 2410.15115).

    The rewards from step i on sum to p_i, so each step is paid by its own score; all of them to
    p_1, in [0, 1]. The sum stays the same when a step is cut in two and the first half scores as
    the step did. In the source's figure the last step, which states the answer, gets nothing, and
    the step before keeps its score. Here the answer block keeps its own.
    """
    return [score - later for score, later in pairwise([*scores, 0.0])]


def clip(scores: Sequence[float], upper_bound: float) -> list[float]:
    """r_i = min(0, p_i - upper_bound) (Clip, arXiv 2410.15115).

    The sum is at most 0, so no step earns anything. There is no lower bound, because each wrong
    step costs again. The sum stays the same when a step is cut in two, one half scores as the step
    did and the other `upper_bound` or more. A hole: a solution without steps costs `upper_bound`,
    as much as one step of score 0 and half as much as two. So writing nothing pays where the
    evaluator dislikes all that is written (`rl.guards.one_step` sees it).
    """
    return [min(0.0, score - upper_bound) for score in scores]


def first_error(scores: Sequence[float], threshold: float, prefix_reward: float) -> list[float]:
    """1 at the end, or `prefix_reward` before the first error (VPPO, arXiv 2601.18984, eq. 6).

    The last step gets 1 where no score is below the threshold. Else the step before the first score
    below it gets `prefix_reward`, if there is such a step. All other steps get 0.

    Only the place of the first error counts. The sum is 1, `prefix_reward` or 0. It stays the same
    when a step is cut in two and both halves are judged as the step was. In the source a verdict on
    the answer says which solutions get the 1. Hard questions have no verdict, so the evaluator
    decides.

    Args:
        prefix_reward: in [0, 1]; the source has 0.5.
    """
    rewards = [0.0] * len(scores)
    wrong = next((i for i, score in enumerate(scores) if score < threshold), None)
    if wrong is None and rewards:
        rewards[-1] = 1.0
    elif wrong:
        rewards[wrong - 1] = prefix_reward
    return rewards


def total(scores: Sequence[float]) -> list[float]:
    """r_i = p_i: the control, which pays for every further step.

    The sum has no upper bound, and there is no guarantee when a step is cut in two.
    """
    return list(scores)


SCHEMES: dict[str, Callable[[Sequence[float], OnlineRl], list[float]]] = {
    "running_minimum": lambda scores, options: running_minimum(scores, options.upper_bound),
    "running_product": lambda scores, options: running_product(scores, options.upper_bound),
    "soft_minimum": lambda scores, options: soft_minimum(scores, options.soft_minimum_temperature),
    "strict_minimum": lambda scores, options: strict_minimum(scores),
    "delta": lambda scores, options: delta(scores),
    "clip": lambda scores, options: clip(scores, options.upper_bound),
    "first_error": lambda scores, options: first_error(
        scores, options.error_threshold, options.prefix_reward
    ),
    "sum": lambda scores, options: total(scores),
}


def terminal_reward(right: bool | None, answered: bool, options: OnlineRl) -> float:
    """The reward at the last token of a completion.

    Args:
        right: the verdict on an easy question; None on a hard one, where the gold answer is hidden.
        answered: the completion ended by itself and has an answer.
    """
    if not answered:
        return -options.unfinished_penalty
    if right is None:
        return options.hard_constant
    return options.outcome_reward if right else 0.0
