"""The protocol of evaluator kinds: the labels of a kind, their place in a solution, and its loss.

The rest is the same for all kinds: a causal model with one score per token, its training, scoring
and validation. A new kind is one file here, one line in `registry.EVALUATOR_KINDS`, and its own
section of the recipe. Modules of kinds are imported by planning, so torch and transformers are
imported inside functions only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.rewards.examples import Rows
    from e2h_pipeline.solutions import TextFormat
    from e2h_pipeline.training.batches import Example
    from e2h_pipeline.training.trainer import Objective

LabelKind = Literal["steps", "outcomes"]
"""`steps`: a label for each segment of a solution; `outcomes`: whether its answer is right."""


class EvaluatorKind(Protocol):
    """One kind of evaluator. Subclasses inherit the usual: use all examples, and save only the
    model.

    Attributes:
        reads: the labels that it is trained on.
        solution_aggregation: how step scores become the score of a solution. `last` is for
            evaluators that are trained on whole solutions, with the score at the last position.
        unit: name of an example in the counts of training summaries.
        maker: `module:Name` of what makes the evaluator, as `rewards.train.train_reward_model`.
        reader: `module:Name` of what opens its folder, as `rewards.evaluators.open_evaluator` calls
            it; None for one model with a score per token.
    """

    reads: ClassVar[tuple[LabelKind, ...]]
    solution_aggregation: ClassVar[Literal["product", "last"]] = "product"
    unit: ClassVar[Literal["solutions", "pairs"]] = "solutions"
    maker: ClassVar[str] = "e2h_pipeline.rewards.train:train_reward_model"
    reader: ClassVar[str | None] = None

    def examples(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Mapping[str, Rows],
        options: Any,
        seed: int,
        text: TextFormat,
    ) -> dict[str, list[Example]]:
        """Training examples of labelled solutions.

        Args:
            rows: training rows of each kind of label in `reads`.
            options: the kind's section of the recipe.
            text: how prompt and solution are written, with the evaluator's own heading.

        Returns:
            Lists of examples, by a name for training summaries. The caller drops and counts
            examples that have no label or are too long.

        Raises:
            NotImplementedError: the kind has a maker of its own, which asks for none.
        """
        raise NotImplementedError(f"{type(self).__name__} is made by {self.maker}")

    def choose(self, examples: dict[str, list[Example]], options: Any, seed: int) -> dict[str, list[Example]]:
        """The usable examples to train on; here all of them."""
        return examples

    def objective(self, options: Any, seed: int) -> Objective:
        """The loss over batches of these examples.

        Raises:
            NotImplementedError: see `examples`.
        """
        raise NotImplementedError(f"{type(self).__name__} is made by {self.maker}")

    def sources(self, options: Any) -> Sequence[str]:
        """Files, folders and Hub models outside of the store that it is made of; here none.

        Args:
            options: the kind's section of the recipe.
        """
        return ()

    def finish(self, folder: Path, examples: Sequence[Example]) -> None:
        """Write files of the kind beside the saved model; here none.

        Args:
            folder: of the evaluator, as others will load it.
            examples: the training examples.
        """
