"""The ladder's tokenizer: one token per character, one per marker of the text format.

A number is one token and a step is six, so a tiny model spends its capacity on arithmetic. It is
saved as an ordinary fast tokenizer, and the rest of the project treats it as one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2h_pipeline.problems.ladder.corpus import HOMEWORK_HEADER, RIGHT_MARK, WRONG_MARK
from e2h_pipeline.problems.ladder.world import DIGITS, OPERATORS, TEXT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<|pad|>", "<|end|>", "<|unk|>"
_MARKERS = (
    TEXT.question_heading,
    TEXT.solution_heading,
    TEXT.answer_marker,
    HOMEWORK_HEADER,
    TEXT.separator,
)


def ladder_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer from nothing; the same every time."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [PAD, END, UNKNOWN, *_MARKERS, *DIGITS, *OPERATORS, "=", RIGHT_MARK, WRONG_MARK]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("|".join([*_MARKERS, r"[\s\S]"])), behavior="isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
