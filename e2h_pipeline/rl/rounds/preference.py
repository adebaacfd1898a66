"""Iterative preference training: DPO, SimPO, ORPO or SPPO on pairs of solutions (paper 4.2).

A round starts from the last round's policy. That policy is also the reference of DPO and SPPO; the
log-probabilities of its own draws are known from the sampler. `pairs` says which solution is
better, and `preference_losses` has the formulas. It assumes that, without a gold answer, the
evaluator's votes are right more often than wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from e2h_pipeline.recipe import PreferenceRl
    from e2h_pipeline.rl.algorithms import RlJob
    from e2h_pipeline.rl.rollouts import Rollout
    from e2h_pipeline.rl.rounds.protocol import Classes
    from e2h_pipeline.training.batches import Example
    from e2h_pipeline.training.trainer import Objective, TrainingStep


class IterativePreference:
    """Training on pairs, better over worse."""

    name = "DPO"
    reads: tuple[str, ...] = ()
    samples = True
    distributed = True

    def train(self, job: RlJob[PreferenceRl]) -> dict[str, Any]:
        """See `Algorithm.train`."""
        from e2h_pipeline.rl.rounds.loop import train_in_rounds

        return train_in_rounds(self, job)

    def start(self, job: RlJob[PreferenceRl], current: Path) -> Path:
        """See `RoundsAlgorithm.start`: the policy that drew."""
        return current

    def choose(
        self, solved: Sequence[Rollout], classes: Classes, options: PreferenceRl, seed: int, number: int
    ) -> tuple[list[Example], Mapping[str, int]]:
        """See `RoundsAlgorithm.choose`: an example is a pair."""
        from e2h_pipeline.rl.rounds.pairs import preference_pairs
        from e2h_pipeline.training.batches import together

        pairs, counts = preference_pairs(solved, classes, options, seed, number)
        return [together(_document(p.chosen, 1.0), _document(p.rejected, 0.0)) for p in pairs], counts

    def objective(self, options: PreferenceRl) -> Objective:
        """See `RoundsAlgorithm.objective`: mean over pairs of the loss that the recipe names."""

        def loss(model: PreTrainedModel, batch: dict[str, Any], step: TrainingStep) -> Tensor:
            from e2h_pipeline.rl.rounds.preference_losses import sequence_logprobs
            from e2h_pipeline.training.next_token import IGNORED

            sums = sequence_logprobs(model, batch["input_ids"], batch["attention_mask"], batch["mask"])
            losses = pair_losses(sums, batch["reference"].sum(1), batch["mask"], options)
            real = (batch["labels"] != IGNORED).any(1)[0::2]  # others fill up the batches of some processes
            return losses[real].sum() / (step.total / 2)  # a label in each solution of a pair

        return loss


def pair_losses(sums: Tensor, reference: Tensor, mask: Tensor, options: PreferenceRl) -> Tensor:
    """Loss of each pair, (batch / 2,).

    Args:
        sums, reference: (batch,) log-probabilities of completions under the policy and its
            reference; chosen, rejected, chosen, rejected.
        mask: (batch, length), 1 on completion tokens.
    """
    from e2h_pipeline.rl.rounds import preference_losses as preference

    if options.loss in ("dpo", "sppo"):
        ratios = sums - reference
        loss = preference.dpo if options.loss == "dpo" else preference.sppo
        return loss(ratios[0::2], ratios[1::2], options.beta)
    means = preference.mean_logprobs(sums, mask)
    if options.loss == "simpo":
        return preference.simpo(means[0::2], means[1::2], options.beta, options.gamma)
    return preference.orpo(means[0::2], means[1::2], options.odds_weight)


def _document(rollout: Rollout, better: float) -> Example:
    """A solution with a mask of its completion.

    Its last token carries the label, and the log-probability that the policy gave when it drew the
    solution.
    """
    from e2h_pipeline.training.next_token import IGNORED

    prompt, completion = rollout.prompt_ids, rollout.sample.token_ids
    before = len(prompt) + len(completion) - 1
    return {
        "input_ids": [*prompt, *completion],
        "labels": [*[float(IGNORED)] * before, better],
        "mask": [*[0.0] * len(prompt), *[1.0] * len(completion)],
        "reference": [*[0.0] * before, rollout.sample.logprob],
    }
