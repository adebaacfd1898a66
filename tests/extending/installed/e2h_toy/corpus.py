"""The corpus for training a base model of this domain from nothing: solved words, with slips."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from e2h_toy.domain import LETTERS, TEXT, ReversalProblems

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from e2h_pipeline.recipe import Base

PAD, END, UNKNOWN = "<|pad|>", "<|end|>", "<|unk|>"
MARKERS = (TEXT.question_heading, TEXT.solution_heading, TEXT.answer_marker, TEXT.separator)


class ReversalCorpus:
    """The domain's `Corpus`. No model is shipped."""

    shipped: str | None = None

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token per letter and per marker."""
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        words = [PAD, END, UNKNOWN, *MARKERS, *LETTERS]
        core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
        core.pre_tokenizer = pre_tokenizers.Split(Regex("|".join([*MARKERS, r"[\s\S]"])), behavior="isolated")
        core.decoder = decoders.Fuse()
        return PreTrainedTokenizerFast(
            tokenizer_object=core, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, model_max_length=128
        )

    def document(self, options: Base, problems: ReversalProblems, name: str) -> Iterator[tuple[str, bool]]:
        """A word with its solution; sometimes a letter is wrong."""
        rng = random.Random(f"reversal/corpus/{options.seed}/{name}")
        word = "".join(rng.choice(LETTERS) for _ in range(rng.randint(3, 5)))
        letters = [rng.choice(LETTERS) if rng.random() < options.slips else letter for letter in word[::-1]]
        yield TEXT.prompt(word), False
        yield TEXT.completion(letters, "".join(letters)), True

    def knobs(self, options: Base, problems: ReversalProblems) -> dict[str, dict[str, Any]]:
        """The base section. Nothing is compared with it, because no model is shipped."""
        return {"base": options.model_dump(mode="json")}
