"""What drawing and scoring take on a card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2h_pipeline.generation.engines.protocol import SamplingOptions
from e2h_pipeline.models.memory import CACHE, PROMPT_TOKENS, cache_bytes, measured, tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def drawing(
    model: PreTrainedModel, options: SamplingOptions, rows: int, prompt: int = PROMPT_TOKENS
) -> dict[str, int]:
    """What the embedded engine adds to the weights, within `shapes.unreal`: the cache of keys and
    values of its whole budget, and the logits of a token.

    Args:
        rows: samples that are asked for at once.
        prompt: tokens of the longest prompt.
    """
    import torch

    from e2h_pipeline.generation.engines.transformers_engine import choose

    budget = min(options.batch_tokens, rows * (prompt + options.max_new_tokens))
    rows = min(rows, max(1, options.batch_tokens // prompt))
    vocabulary = model.config.get_text_config().vocab_size

    def draw(_: object) -> None:
        logits = torch.zeros(rows, vocabulary, dtype=model.dtype)
        choose(logits, torch.zeros(rows, dtype=torch.float64), options)

    return {CACHE: budget * cache_bytes(model), **measured([model], draw)}


def scoring(model: PreTrainedModel, batch_tokens: int, longest: int) -> dict[str, int]:
    """What a forward pass of an evaluator over finished solutions adds to its weights."""
    import torch

    ids = tokens(max(1, batch_tokens // longest), longest)

    def score(_: object) -> None:
        with torch.no_grad():
            model.base_model(input_ids=ids, use_cache=False)

    return measured([model], score)
