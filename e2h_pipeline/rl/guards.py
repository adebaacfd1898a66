"""When a run must stop: known effects of training on a reward model, with thresholds (`rl.guards`).

Pure functions of the history of metrics, one mapping per update, as `metrics.describe` and the
algorithm give them. Known ways to cheat: empty and one-step outputs (PURE, arXiv 2504.15275, its
README and issue 20), more and trivial steps under sums (arXiv 2410.15115), product scores that
favour short and unfinished solutions (prm800k, issue 8), and an evaluator's mean that rises while
accuracy falls (Gao et al. 2023).

Steps are compared level by level. Our own hack (docs/log.md, seed 12) skipped steps of long
problems and kept easy accuracy, and a curriculum moves the mean over all levels. The first updates
are the baseline, because they are closest to the SFT policy. Only the very first is wholly the SFT
policy's; it counts too, because a policy that runs away at once must not become its own baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Rl

Metrics = Mapping[str, float]

STEPS_OF_LEVEL = "steps_level_"
VALIDATION = "easy_validation_accuracy"

_MENDS = {
    "no_answer": "give rl.max_new_tokens room, or raise rl.unfinished_penalty or rl.kl",
    "one_step": "raise rl.kl, or check that a solution without steps earns less than a wrong one",
    "blind": "answers do not look at what they are asked: raise rl.kl, or give easy problems more tests",
    "repeated_steps": "raise rl.kl, or take a shaping whose sum does not grow with steps",
}


def trouble(
    history: Sequence[Metrics], options: Rl, best_update: int, best_accuracy: float, begins: int = 1
) -> str | None:
    """Why the run must stop, or None: metric, value, threshold and what to change.

    Args:
        history: one mapping per update, the latest last and not empty. `kl` is in each;
            `sampler_gap` where the engine that drew has log-probabilities of its own;
            `no_answer`, `one_step`, `repeated_steps` and `blind` (shares of rollouts), `steps_level_<level>`
            (mean steps), `evaluator_easy`, `evaluator_hard` and `easy_accuracy` (means) are in
            those that measured them, `easy_validation_accuracy` in checkpoints.
        best_update: updates behind the best checkpoint so far; 0 is the SFT policy.
        best_accuracy: its easy validation accuracy.
        begins: number of the update that the history begins with; 0 where it begins with the SFT
            policy itself.
    """
    return (
        _not_finite(history[-1])
        or _far_away(history[-1], options)
        or _drawn_otherwise(history[-1], options)
        or _more_of_a_vice(history, options)
        or _other_lengths(history, options)
        or _fell_behind(history, options)
        or _hacked(history, options, best_update, best_accuracy, begins)
    )


def _not_finite(metrics: Metrics) -> str | None:
    broken = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if not broken:
        return None
    return f"{', '.join(broken)}, not a finite number; lower rl.learning_rate"


def _far_away(metrics: Metrics, options: Rl) -> str | None:
    if metrics["kl"] <= options.max_kl:
        return None
    return (
        f"kl, to the SFT policy, is {metrics['kl']:.2f} per token, above rl.max_kl={options.max_kl}; "
        "raise rl.kl or lower rl.learning_rate"
    )


def _drawn_otherwise(metrics: Metrics, options: Rl) -> str | None:
    gap = metrics.get("sampler_gap", 0.0)
    if gap <= options.guards.sampler_gap:
        return None
    return (
        f"sampler_gap, between the log-probabilities of the trainer and of the rollout engine, is {gap:.2f} per token, "
        f"above rl.guards.sampler_gap={options.guards.sampler_gap}: the engine does not draw from the policy; "
        "unset E2H_ROLLOUT_ENGINES, or give the models a finer number format; with rl.lag=1 the gap holds an update's "
        "step too: lower rl.learning_rate, or set rl.lag=0"
    )


def _more_of_a_vice(history: Sequence[Metrics], options: Rl) -> str | None:
    guards = options.guards
    limits = {
        "no_answer": ("unfinished", guards.unfinished),
        "one_step": ("one_step", guards.one_step),
        "repeated_steps": ("repeated_steps", guards.repeated_steps),
        "blind": ("blind", guards.blind),
    }
    for name, (field, limit) in limits.items():
        means = _first_and_last(history, name, guards.window)
        if means is None:
            continue
        sft = next(metrics[name] for metrics in history if name in metrics)
        if means[1] - min(means[0], sft) > limit:
            return (
                f"{_moved(name, means, guards.window)} and {sft:.2f} in the very first, up by more than "
                f"rl.guards.{field}={limit}; {_MENDS[name]}"
            )
    return None


def _other_lengths(history: Sequence[Metrics], options: Rl) -> str | None:
    guards = options.guards
    for name in sorted({name for metrics in history for name in metrics if name.startswith(STEPS_OF_LEVEL)}):
        means = _first_and_last(history, name, guards.window)
        if means is None:
            continue
        first, last = means
        if last > guards.more_steps * max(first, 1.0):
            return (
                f"{_moved(name, means, guards.window)}, above rl.guards.more_steps={guards.more_steps} times that "
                "(or one step); "
                "raise rl.kl, or take a shaping whose sum does not grow with steps"
            )
        if last < guards.fewer_steps * first:
            return (
                f"{_moved(name, means, guards.window)}, below rl.guards.fewer_steps={guards.fewer_steps} times that: "
                "the evaluator may overlook skipped steps; raise rl.kl or lower rl.learning_rate"
            )
    return None


def _fell_behind(history: Sequence[Metrics], options: Rl) -> str | None:
    """The accuracy of rollouts on easy questions falls behind the evaluator's score of them.

    Harder questions in one batch lower both, so the measure is how far accuracy falls behind the
    score. It sees within a dozen updates what the few validations of a run show late.
    """
    guards = options.guards
    right = _first_and_last(history, "easy_accuracy", guards.window)
    liked = _first_and_last(history, "evaluator_easy", guards.window)
    if right is None or liked is None or guards.hack_fall >= 1:
        return None
    fall, rise = right[0] - right[1], liked[1] - liked[0]
    if fall <= 0 or rise <= guards.hack_rise or fall + rise <= guards.hack_fall:
        return None
    return (
        f"{_moved('easy_accuracy', right, guards.window)}, while {_moved('evaluator_easy', liked, guards.window)}: "
        f"{fall + rise:.2f} apart, more than rl.guards.hack_fall={guards.hack_fall}; the policy has found what the "
        "evaluator overlooks; raise rl.kl or lower rl.learning_rate"
    )


def _hacked(
    history: Sequence[Metrics], options: Rl, best_update: int, best_accuracy: float, begins: int
) -> str | None:
    """Every validation in the window is far below the best, and the evaluator's mean is above it.

    The evaluator's mean at the best checkpoint is taken over the window that ends there, or over
    the first window where the checkpoint came earlier. Where that is the recent window too, no
    change can be measured.
    """
    guards = options.guards
    window = guards.hack_window
    recent = history[-window:]
    accuracies = [metrics[VALIDATION] for metrics in recent if VALIDATION in metrics]
    if not accuracies or max(accuracies) >= best_accuracy - guards.hack_fall:
        return None
    then = history[: max(best_update + 1 - begins, window)][-window:]
    for name in ("evaluator_easy", "evaluator_hard"):
        before, now = _mean(then, name), _mean(recent, name)
        if before is not None and now is not None and now - before > guards.hack_rise:
            return (
                f"{VALIDATION} is {max(accuracies):.3f} at best in the last {window} updates, more than "
                f"rl.guards.hack_fall={guards.hack_fall} below the {best_accuracy:.3f} of update {best_update}, while "
                f"{name} rose from {before:.3f} to {now:.3f}, more than rl.guards.hack_rise={guards.hack_rise}: the "
                "policy has found what the evaluator overlooks; raise rl.kl or lower rl.learning_rate"
            )
    return None


def _first_and_last(history: Sequence[Metrics], name: str, window: int) -> tuple[float, float] | None:
    """Means of a metric over its first and last `window` updates; None while the two overlap."""
    values = [metrics[name] for metrics in history if name in metrics]
    if len(values) < 2 * window:
        return None
    return sum(values[:window]) / window, sum(values[-window:]) / window


def _moved(name: str, means: tuple[float, float], window: int) -> str:
    return f"{name} is {means[1]:.2f} over its last {window} updates, {means[0]:.2f} over its first {window}"


def _mean(history: Sequence[Metrics], name: str) -> float | None:
    values = [metrics[name] for metrics in history if name in metrics]
    return sum(values) / len(values) if values else None
