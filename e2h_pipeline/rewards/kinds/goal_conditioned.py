"""Goal-conditioned representations of a reward model: Nath et al. 2024 (arXiv 2407.13887).

    L = L_R + lambda L_C,   lambda = 0.5,   L_R the pairwise loss on the last token
    L_C = -log mean sigmoid(cos(h_i, h_j)) - log(1 - mean sigmoid(cos(h_m, h_n)))

h are last-layer states: i before j in the preferred completion (a source and a later goal), m in the
preferred and n in the dispreferred one. The means run over the batch, inside the logarithm, so L_C does
not add up over micro-batches. Without a temperature it lies in [0.627, 2.627]: a curve that stands at
0.63 has converged. Q of a token is the cosine of its state with the goal, the mean last state of right
training solutions; a solution may be dropped at its first token with Q below a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

WEIGHT = 0.5  # lambda of the paper, which also tried 0.1 and 0.9
DRAWS = 16  # index samples per sequence in the authors' code
UNJUDGED = 5  # first tokens that the authors' filter passes over


def contrastive_loss(source: Tensor, goal: Tensor, preferred: Tensor, dispreferred: Tensor) -> Tensor:
    """L_C of a batch of states, each (n, width): states i, j, m and n of the formula above."""
    from torch.nn.functional import cosine_similarity, logsigmoid

    near = cosine_similarity(source.float(), goal.float(), dim=-1)
    far = cosine_similarity(preferred.float(), dispreferred.float(), dim=-1)
    return (
        -logsigmoid(near).exp().mean().log() - (-far).sigmoid().mean().log()
    )  # 1 - sigmoid(x) = sigmoid(-x)


def source_and_goal(start: int, stop: int, generator: Generator, draws: int = DRAWS) -> tuple[Tensor, Tensor]:
    """Positions i < j, uniform over all such pairs in the half-open range [start, stop): two tensors (draws,).

    Raises:
        ValueError: a completion of fewer than two tokens has no pair.
    """
    import torch

    length = stop - start
    if length < 2:
        raise ValueError(f"a completion of {length} tokens has no source before a goal")
    first = torch.randint(length, (draws,), generator=generator)
    second = (first + torch.randint(1, length, (draws,), generator=generator)) % length
    return start + torch.minimum(first, second), start + torch.maximum(first, second)


def goal_state(last_states: Tensor) -> Tensor:
    """The goal (width,): mean last-token state of right training solutions (solutions, width)."""
    return last_states.float().mean(0)


def q_values(states: Tensor, goal: Tensor) -> Tensor:
    """Q of each token in [-1, 1]: cosine of states (..., length, width) with the goal (width,)."""
    from torch.nn.functional import cosine_similarity

    return cosine_similarity(states.float(), goal.float(), dim=-1)


@dataclass(frozen=True)
class Filtered:
    """`kept`: indices of solutions that pass; `cut[i]`: tokens of solution i up to where it was dropped, all
    of them where it was not; `saved`: tokens that would not have been sampled."""

    kept: tuple[int, ...]
    cut: tuple[int, ...]
    saved: int


def q_filter(values: Sequence[Sequence[float]], threshold: float = 0.0, unjudged: int = UNJUDGED) -> Filtered:
    """Drop solutions of one problem at their first token with Q below `threshold`.

    Where all would be dropped, all are kept and nothing is saved (the paper's rule).

    Args:
        values: Q of the completion's tokens, one sequence per solution.
        unjudged: first tokens that cannot drop a solution.
    """
    cut = tuple(
        next((t + 1 for t, q in enumerate(row) if t >= unjudged and q < threshold), len(row))
        for row in values
    )
    failed = {i for i, row in enumerate(values) if any(q < threshold for q in row[unjudged:])}
    if len(failed) == len(values):
        return Filtered(tuple(range(len(values))), tuple(len(row) for row in values), 0)
    saved = sum(len(row) - stop for row, stop in zip(values, cut, strict=True))
    return Filtered(tuple(i for i in range(len(values)) if i not in failed), cut, saved)
