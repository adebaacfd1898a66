"""How well a language model reads a fixed text: what it loses by a bad conversion shows here.

A trained model of 100 million weights needs about one bit for a character of plain English. One whose
weights were put in a wrong order, or whose text begins in another way than it learned, needs far
more. Bits per character compare models with different tokenizers; perplexity counts tokens, which
differ in length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEXT = """\
The town lies where the river meets the sea. Early in the morning the fishing boats come back to the
harbour, and people walk down to the quay to buy what was caught in the night. Most of the houses are
built of stone, because there are few trees in that part of the country and the winter storms are
strong. In summer many visitors come to swim, to look at the old church, and to eat in one of the
small restaurants near the market.

Problem: A rectangle is three times as long as it is wide, and its perimeter is 48. What is its area?

Solution: Let $w$ be the width of the rectangle. Then the length is $3w$, and the perimeter is
$2(w + 3w) = 8w$. Since $8w = 48$, we have $w = 6$. The length is $3 \\cdot 6 = 18$, so the area is
$6 \\cdot 18 = 108$. The answer is $\\boxed{108}$.
"""
"""A paragraph of English and a worked solution, written for this project."""


@dataclass(frozen=True)
class Reading:
    """How a model reads the text, in the same tokens each time.

    Attributes:
        bits: per character, as the tokenizer begins a text.
        other_bits: per character, with the beginning-of-sequence token where the tokenizer sets
            none, or without it where it does; as `bits` where there is no such token.
        perplexity: per token, as the tokenizer begins a text.
    """

    bits: float
    other_bits: float
    perplexity: float


def read_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Reading:
    """How a model reads the text. The first token of it does not count: nothing may be before it."""
    tokens = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    whole = tokenizer(TEXT)["input_ids"]
    before = whole[: len(whole) - len(tokens)]
    bos = tokenizer.bos_token_id
    other = [] if before else [bos]
    own = _nats(model, before, tokens)
    others = own if bos is None else _nats(model, other, tokens)
    characters = len(TEXT) * math.log(2)
    return Reading(own / characters, others / characters, math.exp(own / (len(tokens) - 1)))


def _nats(model: PreTrainedModel, before: list[int], tokens: list[int]) -> float:
    """Nats that a model needs for all tokens but the first."""
    import torch
    from torch.nn.functional import cross_entropy

    ids = torch.tensor([[*before, *tokens]], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(before) : -1].float()
    return float(cross_entropy(logits, ids[0, len(before) + 1 :], reduction="sum"))
