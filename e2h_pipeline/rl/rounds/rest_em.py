"""ReST-EM: the base model fine-tuned on right solutions that the last round's policy drew (Singh et al. 2023, arXiv
2312.06585; paper section 4.2 and appendix C.3).

Each round starts again from the base model, so that what it learns is not what earlier rounds overfitted. Of a
question a few right solutions are kept, each text once, or easy questions would drown the others. A question whose
answer nobody may look at keeps the solutions that win the vote weighted by the evaluator: the paper has no such row.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.rl.rounds.pairs import Classes, better_sides, by_question
from e2h_pipeline.training.next_token import IGNORED, next_token_loss

if TYPE_CHECKING:
    from e2h_pipeline.recipe import RestEm as Options
    from e2h_pipeline.recipe import Rl
    from e2h_pipeline.rl.rollouts import Rollout
    from e2h_pipeline.training.batches import Example
    from e2h_pipeline.training.trainer import Objective


class RestEm:
    """Fine-tuning on what is right."""

    name = "ReST-EM"

    def rounds(self, options: Rl) -> Options:
        """See `Method.rounds`."""
        return options.rest

    def start(self, base: Path, current: Path) -> Path:
        """See `Method.start`: the base model, in each round."""
        return base

    def choose(
        self, solved: Sequence[Rollout], classes: Classes, options: Rl, seed: int, number: int
    ) -> tuple[list[Example], Mapping[str, int]]:
        """See `Method.choose`: right solutions, at most `per_question` of a question, drawn evenly."""
        groups = by_question(solved)
        sides = better_sides(groups, classes)
        examples: list[Example] = []
        unsolved = 0
        for problem_id, group in groups.items():
            better = sides[problem_id] or [False] * len(group)
            right = {r.sample.completion: r for r, good in zip(group, better, strict=True) if good}
            texts = sorted(right)
            rng = random.Random(f"rl/rest/{seed}/{number}/{problem_id}")
            drawn = rng.sample(texts, min(options.rest.per_question, len(texts)))
            examples += [solution_example(right[text]) for text in drawn]
            unsolved += not texts
        return examples, {"questions": len(groups), "questions_without_right": unsolved}

    def objective(self, options: Rl) -> Objective:
        """See `Method.objective`: cross-entropy of completion tokens, as in SFT."""
        return lambda model, batch, total: next_token_loss(
            model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
            ).logits,
            batch["labels"],
            total,
        )


def solution_example(rollout: Rollout) -> Example:
    """A solution as it was drawn, its end-of-sequence token included; the prompt carries no loss."""
    prompt, completion = rollout.prompt_ids, rollout.sample.token_ids
    return {"input_ids": [*prompt, *completion], "labels": [*[IGNORED] * len(prompt), *completion]}
