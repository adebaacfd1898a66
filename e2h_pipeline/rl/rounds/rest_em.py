"""ReST-EM: fine-tuning the base model on right solutions of the last round's policy.

Singh et al. 2023, arXiv 2312.06585; paper section 4.2 and appendix C.3.

The loss is cross-entropy of the completion's tokens. Each round starts again from the base model,
so that it does not keep what earlier rounds overfitted. At most `per_question` right solutions of a
question are kept, each text once; otherwise easy questions would dominate. It assumes that a right
answer marks a good solution. A question without a gold answer keeps the solutions that win the vote
weighted by the evaluator; the paper has no such row.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.rl.algorithms import BASE_MODEL

if TYPE_CHECKING:
    from e2h_pipeline.recipe import RestEmRl
    from e2h_pipeline.rl.algorithms import RlJob
    from e2h_pipeline.rl.rollouts import Rollout
    from e2h_pipeline.rl.rounds.protocol import Classes
    from e2h_pipeline.training.batches import Example
    from e2h_pipeline.training.trainer import Objective


class RestEm:
    """Fine-tuning on right solutions."""

    name = "ReST-EM"
    reads = (BASE_MODEL,)
    samples = True
    distributed = True

    def train(self, job: RlJob[RestEmRl]) -> dict[str, Any]:
        """See `Algorithm.train`."""
        from e2h_pipeline.rl.rounds.loop import train_in_rounds

        return train_in_rounds(self, job)

    def start(self, job: RlJob[RestEmRl], current: Path) -> Path:
        """See `RoundsAlgorithm.start`: the base model, in each round."""
        return job.inputs[BASE_MODEL]

    def choose(
        self, solved: Sequence[Rollout], classes: Classes, options: RestEmRl, seed: int, number: int
    ) -> tuple[list[Example], Mapping[str, int]]:
        """See `RoundsAlgorithm.choose`: right solutions, at most `per_question` of each, drawn
        evenly."""
        from e2h_pipeline.rl.rounds.pairs import better_sides, by_question

        groups = by_question(solved)
        sides = better_sides(groups, classes)
        examples: list[Example] = []
        unsolved = 0
        for problem_id, group in groups.items():
            better = sides[problem_id] or [False] * len(group)
            right = {r.sample.completion: r for r, good in zip(group, better, strict=True) if good}
            texts = sorted(right)
            rng = random.Random(f"rl/rest/{seed}/{number}/{problem_id}")
            drawn = rng.sample(texts, min(options.per_question, len(texts)))
            examples += [solution_example(right[text]) for text in drawn]
            unsolved += not texts
        return examples, {"questions": len(groups), "questions_without_right": unsolved}

    def objective(self, options: RestEmRl) -> Objective:
        """See `RoundsAlgorithm.objective`: cross-entropy of completion tokens, as in SFT."""
        from e2h_pipeline.training.taught import TaughtTokens

        return TaughtTokens()


def solution_example(rollout: Rollout) -> Example:
    """A solution as it was drawn, end-of-sequence token included; the prompt carries no loss."""
    from e2h_pipeline.training.next_token import IGNORED

    prompt, completion = rollout.prompt_ids, rollout.sample.token_ids
    return {"input_ids": [*prompt, *completion], "labels": [*[IGNORED] * len(prompt), *completion]}
