"""What a kind of evaluator says: the labels it reads, where they stand in a solution, and the loss
over them.

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
    """One kind of evaluator. Subclasses inherit what most kinds do: use all examples, and keep
    nothing but the model.

    Attributes:
        reads: the labels that it is trained on.
        solution_aggregation: how step scores become the score of a solution. `last` is for
            evaluators that are trained on whole solutions and speak at the last position.
        unit: what an example is, as training summaries count it.
    """

    reads: ClassVar[tuple[LabelKind, ...]]
    solution_aggregation: ClassVar[Literal["product", "last"]] = "product"
    unit: ClassVar[Literal["solutions", "pairs"]] = "solutions"

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
            Lists of examples by a name that training summaries show. Examples without a label, and
            those that are too long, are dropped by the caller, which counts them.
        """
        ...

    def choose(self, examples: dict[str, list[Example]], options: Any, seed: int) -> dict[str, list[Example]]:
        """The examples that are trained on, of those that can be used: all of them."""
        return examples

    def objective(self, options: Any, seed: int) -> Objective:
        """The loss over batches of these examples."""
        ...

    def finish(self, folder: Path, examples: Sequence[Example]) -> None:
        """Write what the kind keeps beside the saved model: nothing.

        Args:
            folder: of the evaluator, as others will load it.
            examples: those it was trained on.
        """
