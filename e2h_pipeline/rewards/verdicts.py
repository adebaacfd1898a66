"""The log odds of two tokens as the score of a classifier: a language model that says right or wrong.

The difference of two logits is linear in the hidden state, with the difference of two rows of the
language-model head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2h_pipeline.models.classifier import score_head, scoring_over
from e2h_pipeline.models.probes import TOKENS, agree, in_float32

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def verdict_scorer(model: PreTrainedModel, right: int, wrong: int) -> PreTrainedModel:
    """A classifier over the body of a language model, which both share: the log odds of one token over
    another.

    Args:
        right, wrong: ids of the tokens.

    Raises:
        ValueError: the model changes its logits behind the head, so that no linear head gives them.
    """
    import torch

    scorer = scoring_over(model)
    head, source = score_head(scorer), model.get_output_embeddings()
    weight, bias = _difference(source, right, wrong)
    with torch.no_grad():
        head.weight.copy_(weight[None])
        if head.bias is not None:
            head.bias.copy_(bias[None])
        if not _linear(model, right, wrong):
            raise ValueError(
                f"{type(model).__name__} changes its logits behind the head (scaling or capping), so the verdict has "
                "no linear score; take another model"
            )
    return scorer


def _difference(head: Any, right: int, wrong: int) -> tuple[Tensor, Tensor]:
    """Weights (width,) and bias of the log odds."""
    import torch

    bias = getattr(head, "bias", None)
    both = torch.zeros(2) if bias is None else bias[[right, wrong]]
    return head.weight[right] - head.weight[wrong], both[0] - both[1]


def _linear(model: PreTrainedModel, right: int, wrong: int) -> bool:
    """Whether the log odds are those of the head alone, on a few tokens."""
    import torch

    probed = in_float32(model)
    ids = torch.tensor([TOKENS], device=model.device)
    logits = probed(input_ids=ids, use_cache=False).logits
    states = probed.base_model(input_ids=ids, use_cache=False).last_hidden_state
    weight, bias = _difference(probed.get_output_embeddings(), right, wrong)
    return agree(states @ weight + bias.to(states), logits[..., right] - logits[..., wrong])
