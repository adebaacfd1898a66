"""What the ladder's base model is trained on from nothing: its flawed corpus, with its
tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from e2h_pipeline.problems.ladder.corpus import corpus_document
from e2h_pipeline.problems.ladder.tokenizer import ladder_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from e2h_pipeline.recipe import Base, LadderProblems

_NO_KNOBS = {
    "train",
    "model",
    "file",
    "revision",
    "dtype",
    "trust_remote_code",
    "chat",
    "system_prompt",
    "thinking",
}  # where a ready-made model comes from


class LadderCorpus:
    """The ladder's `Corpus`."""

    shipped = "ladder-base"

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token per character, one per marker."""
        return ladder_tokenizer()

    def document(self, options: Base, problems: LadderProblems, name: str) -> Iterator[tuple[str, bool]]:
        """See `corpus_document`."""
        return corpus_document(options, problems.world, name)

    def knobs(self, options: Base, problems: LadderProblems) -> dict[str, dict[str, Any]]:
        """All fields of `base` but those that name a ready-made model, and the world."""
        return {
            "base": options.model_dump(mode="json", exclude=_NO_KNOBS),
            "world": problems.world.model_dump(mode="json"),
        }
