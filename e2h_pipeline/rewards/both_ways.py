"""A step labeller that reads in both directions: the body of a causal model without its causal mask.

The idea is that of inverse dynamics models (Baker et al. 2022, VPT): to name what happened at a step
is easier with the steps after it at hand. Such a model can label solutions that are there to their
end; it is no evaluator, because the score of a step would change once another step follows. So its
folder says so, and `models.load` refuses it.

The mask is four-dimensional: transformers takes one as it is, in every architecture that makes its
masks by the common functions. Whether an architecture does is not written down anywhere, so a probe
runs a few tokens (`require_both_ways`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.models.classifier import score_head
from e2h_pipeline.models.load import BOTH_WAYS_FIELD, device, load_classifier
from e2h_pipeline.models.probes import TOKENS, agree, in_float32
from e2h_pipeline.rewards.kinds.prm import Prm
from e2h_pipeline.training.batches import WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.solutions import EncodedSolution
    from e2h_pipeline.training.trainer import Objective, TrainingStep


class BothWaysPrm(Prm):
    """A step labeller; trained like a process reward model, on the same examples."""

    def objective(self, options: Any, seed: int) -> Objective:
        """See `EvaluatorKind.objective`."""
        from e2h_pipeline.rewards.kinds.stepwise import step_loss

        def loss(model: PreTrainedModel, batch: Mapping[str, Any], step: TrainingStep) -> Tensor:
            mask = both_ways(batch["attention_mask"], model.dtype)
            logits = model(input_ids=batch["input_ids"], attention_mask=mask, use_cache=False).logits
            return step_loss(logits, batch["labels"], step.total, batch.get(WEIGHTS))

        return loss


def both_ways(present: Tensor, dtype: Any) -> Tensor:
    """The mask by which every token attends to all tokens of its row.

    Args:
        present: (rows, length) 1 for tokens, 0 for padding.

    Returns:
        (rows, 1, length, length), to be added to scores: 0 towards tokens, very low towards padding.
    """
    import torch

    rows, length = present.shape
    hidden = torch.zeros(rows, 1, length, length, dtype=dtype, device=present.device)
    return hidden.masked_fill(present[:, None, None, :] == 0, torch.finfo(dtype).min)


def require_both_ways(model: PreTrainedModel) -> None:
    """Check on a few tokens that the model follows the mask.

    Raises:
        ValueError: with it, a token does not see later ones, or sees padding.
    """
    import torch

    training = model.training
    try:
        probed = in_float32(model).eval()
        ids = torch.tensor([TOKENS, TOKENS], device=probed.device)
        changed = ids.clone()
        changed[:, -1] = ids[0, 0]
        whole, ones = torch.ones_like(ids), torch.ones_like(ids)
        whole[1, -1] = 0  # in the second row the last token is padding
        with torch.inference_mode():
            before, after = (_hidden(probed, tokens, whole) for tokens in (ids, changed))
            alone = _hidden(probed, ids[:, :-1], ones[:, :-1])
        sees_later = not agree(before[0, :-1], after[0, :-1])
        blind_to_padding = agree(before[1, :-1], after[1, :-1]) and agree(before[1, :-1], alone[1])
    except (RuntimeError, TypeError, ValueError, IndexError):
        sees_later = blind_to_padding = False
    finally:
        model.train(training)
    if not (sees_later and blind_to_padding):
        raise ValueError(
            f"{type(model).__name__} makes its own attention mask, so it cannot read in both directions: set "
            "labels.causal=true, or take another base model"
        )


def _hidden(model: PreTrainedModel, ids: Tensor, present: Tensor) -> Tensor:
    mask = both_ways(present, model.dtype)
    found: Tensor = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return found


def load_both_ways(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A labeller that was trained here, in eval mode."""
    from transformers import AutoTokenizer

    return load_classifier(folder).to(device()).eval(), AutoTokenizer.from_pretrained(folder)


def mark_both_ways(model: PreTrainedModel) -> None:
    """Say in the model's config that it reads in both directions."""
    setattr(model.config, BOTH_WAYS_FIELD, True)


def score_both_ways(
    model: PreTrainedModel, encoded: Sequence[EncodedSolution], batch_tokens: int = 16384
) -> list[list[float]]:
    """Raw logit of each segment of each solution.

    Args:
        batch_tokens: upper bound on rows x length of a forward pass.
    """
    found: list[list[float]] = [[] for _ in encoded]
    for batch in _batches(encoded, batch_tokens):
        for i, logits in zip(batch, _scores(model, [encoded[i] for i in batch]), strict=True):
            found[i] = logits
    return found


def _batches(encoded: Sequence[EncodedSolution], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of solutions with segments, longest first."""
    batch: list[int] = []
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].input_ids))
    for i in (i for i in order if encoded[i].segment_ends):
        if batch and (len(batch) + 1) * len(encoded[batch[0]].input_ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _scores(model: PreTrainedModel, batch: Sequence[EncodedSolution]) -> list[list[float]]:
    import torch

    longest = max(len(e.input_ids) for e in batch)
    spare = [longest - len(e.input_ids) for e in batch]
    ids = torch.tensor([[*e.input_ids, *[0] * s] for e, s in zip(batch, spare, strict=True)])
    present = torch.tensor([[1] * (longest - s) + [0] * s for s in spare])
    with torch.inference_mode():
        hidden = _hidden(model, ids.to(model.device), present.to(model.device))
        scores = score_head(model)(hidden).squeeze(-1).float()
    return [scores[row, list(e.segment_ends)].tolist() for row, e in enumerate(batch)]
