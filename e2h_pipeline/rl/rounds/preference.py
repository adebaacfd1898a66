"""Iterative preference training: pairs of drawn solutions, and DPO, SimPO, ORPO or SPPO on them (paper section 4.2).

A round goes on from the last one's policy, which is also the reference that DPO and SPPO hold it to: the
log-probabilities of its own draws are known from the sampler. Which solution is better, `pairs` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.rl.rounds.pairs import Classes, preference_pairs
from e2h_pipeline.training.batches import together
from e2h_pipeline.training.next_token import IGNORED

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from e2h_pipeline.recipe import Preference, Rl
    from e2h_pipeline.rl.rollouts import Rollout
    from e2h_pipeline.training.batches import Example
    from e2h_pipeline.training.trainer import Objective


class IterativePreference:
    """Training on pairs, better over worse."""

    name = "DPO"

    def rounds(self, options: Rl) -> Preference:
        """See `Method.rounds`."""
        return options.preference

    def start(self, base: Path, current: Path) -> Path:
        """See `Method.start`: the policy that drew."""
        return current

    def choose(
        self, solved: Sequence[Rollout], classes: Classes, options: Rl, seed: int, number: int
    ) -> tuple[list[Example], Mapping[str, int]]:
        """See `Method.choose`. Where step rewards have no weight, the answer alone says which is better."""
        pairs, counts = preference_pairs(
            solved,
            classes,
            per_question=options.preference.per_question,
            margin=options.preference.margin,
            easy_margin=0.0 if options.process_scale > 0 else None,
            seed=seed,
            iteration=number,
        )
        return [together(_document(p.chosen, 1.0), _document(p.rejected, 0.0)) for p in pairs], counts

    def objective(self, options: Rl) -> Objective:
        """See `Method.objective`: the mean over pairs of the loss that the recipe names."""

        def loss(model: PreTrainedModel, batch: dict[str, Any], total: Tensor) -> Tensor:
            from e2h_pipeline.rl.rounds.preference_losses import sequence_logprobs

            sums = sequence_logprobs(model, batch["input_ids"], batch["attention_mask"], batch["mask"])
            losses = pair_losses(sums, batch["reference"].sum(1), batch["mask"], options.preference)
            return losses.sum() / (total / 2)  # a label in each solution of a pair

        return loss


def pair_losses(sums: Tensor, reference: Tensor, mask: Tensor, options: Preference) -> Tensor:
    """Loss of each pair, (batch / 2,).

    Args:
        sums, reference: (batch,) log-probabilities of completions under the policy and its reference; chosen,
            rejected, chosen, rejected.
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
    """A solution with a mask of its completion; on its last token the label, and what the policy that drew it gave."""
    prompt, completion = rollout.prompt_ids, rollout.sample.token_ids
    before = len(prompt) + len(completion) - 1
    return {
        "input_ids": [*prompt, *completion],
        "labels": [*[float(IGNORED)] * before, better],
        "mask": [*[0.0] * len(prompt), *[1.0] * len(completion)],
        "reference": [*[0.0] * before, rollout.sample.logprob],
    }
