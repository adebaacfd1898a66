"""Step scores to step rewards and terminal rewards: pure functions, bounded, with no reward hole.

The scheme is the paper's running minimum (appendix C.3; released code, `shape_math_process_rewards`):
the reward of step i is min(0, p_i - m_{i-1}) with m_0 an upper bound and m_i the running minimum, plus
a constant spread over the steps. The sum telescopes to min(bound, min_i p_i) - bound + bonus, so a
solution cannot earn more by adding steps. Unlike the released code, a solution without a step gets the
worst sum instead of 0: writing nothing must not beat writing something wrong.
"""

from __future__ import annotations

from collections.abc import Sequence


def running_minimum(scores: Sequence[float], upper_bound: float, bonus: float) -> list[float]:
    """Rewards of the steps of one solution.

    Args:
        scores: probabilities in [0, 1] that each step is right, in order.
        upper_bound: start of the running minimum, in (0, 1]; scores above it are as good as it.
        bonus: constant shared out evenly over the steps.

    Returns as many rewards; they sum to min(upper_bound, min(scores)) - upper_bound + bonus.
    """
    rewards, lowest = [], upper_bound
    for score in scores:
        rewards.append(min(0.0, score - lowest) + bonus / len(scores))
        lowest = min(lowest, score)
    return rewards


def without_steps(upper_bound: float) -> float:
    """The process reward of a solution that has no step: what a step of score 0 would get, no bonus."""
    return -upper_bound


def terminal_reward(
    *,
    right: bool | None,
    answered: bool,
    outcome_reward: float,
    hard_constant: float,
    unfinished_penalty: float,
) -> float:
    """The reward at the last token of a completion.

    Args:
        right: the verdict on an easy question; None on a hard one, whose answer nobody may look at.
        answered: the completion ended by itself and has an answer.
    """
    if not answered:
        return -unfinished_penalty
    if right is None:
        return hard_constant
    return outcome_reward if right else 0.0
