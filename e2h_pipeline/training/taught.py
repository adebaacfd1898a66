"""The next-token loss, with logits at taught positions only.

A small model with a vocabulary of 151,000 words spends most of its time and memory on logits, and
those of prompts and padding are thrown away. So hidden states are picked just before the output
head. What a model does with its logits afterwards (scaling, soft-capping) stays its own code.

That is only right where the head and what follows treat each position alone. No config says so: a
short run tells (`_picks`), and other models make all logits as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from e2h_pipeline.models.probes import TOKENS, agree
from e2h_pipeline.training.batches import collate, run_model
from e2h_pipeline.training.next_token import IGNORED, token_loss

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel

    from e2h_pipeline.training.trainer import TrainingStep


class TaughtTokens:
    """The objective of fine-tuning: cross-entropy of each labelled token given what stands before
    it in its document."""

    def __init__(self) -> None:
        self._picks: bool | None = None

    def __call__(self, model: PreTrainedModel, batch: Mapping[str, Any], step: TrainingStep) -> Tensor:
        """The loss of a batch; see `trainer.Objective`."""
        if self._picks is None:
            self._picks = _picks(model, batch)
        wanted = next_tokens(batch)
        logits = _logits_at(model, batch, wanted != IGNORED, self._picks)
        return token_loss(logits, wanted[wanted != IGNORED], step.total)


class LogitsAt:
    """Logits at some positions of a batch, picked before the head where the model lets it."""

    def __init__(self) -> None:
        self._picks: bool | None = None

    def __call__(self, model: PreTrainedModel, batch: Mapping[str, Any], keep: Tensor) -> Tensor:
        """(kept positions, vocabulary) logits, row by row.

        Args:
            keep: (rows, length) the positions.
        """
        if self._picks is None:
            self._picks = _picks(model, batch)
        return _logits_at(model, batch, keep, self._picks)


def next_tokens(batch: Mapping[str, Any]) -> Tensor:
    """(rows, length) the token that each position is to predict, -100 where none.

    The last token of a document predicts nothing: behind it comes padding, or another document.
    """
    import torch

    labels = batch["labels"]
    found = torch.full_like(labels, IGNORED)
    found[:, :-1] = labels[:, 1:]
    if "position_ids" in batch:
        found[:, :-1][batch["position_ids"][:, 1:] == 0] = IGNORED
    return found


def _logits_at(model: PreTrainedModel, batch: Mapping[str, Any], keep: Tensor, picking: bool) -> Tensor:
    """(kept positions, vocabulary) logits, row by row.

    Args:
        keep: (rows, length) the positions.
        picking: whether to pick them before the head.
    """
    if not picking:
        return run_model(model, batch).logits[keep]
    with _head_sees(model, keep):
        return run_model(model, batch).logits[0]


@contextmanager
def _head_sees(model: Module, keep: Tensor) -> Iterator[None]:
    """Within it the output head gets the hidden states at `keep` alone, as one row."""

    def pick(_: Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not inputs or inputs[0].shape[:2] != keep.shape:
            return None
        return (inputs[0][keep][None], *inputs[1:])

    head = _output_head(model)
    hook = head.register_forward_pre_hook(pick) if head is not None else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


def _output_head(model: Module) -> Module | None:
    """The layer that makes logits, within whatever adapters or processes wrap the model."""
    from transformers import PreTrainedModel

    inner = next((m for m in model.modules() if isinstance(m, PreTrainedModel)), None)
    return None if inner is None else inner.get_output_embeddings()


def _picks(model: PreTrainedModel, batch: Mapping[str, Any]) -> bool:
    """Whether picking positions before the head gives their logits. Nothing is learned from it.

    Args:
        batch: as the model is about to get.
    """
    import torch

    example = {"input_ids": TOKENS, "labels": TOKENS}
    probe = collate(0, "document_lengths" in batch)([example])
    device = batch["labels"].device
    probe = {name: value.to(device) if hasattr(value, "to") else value for name, value in probe.items()}
    keep = torch.tensor([[position % 2 == 0 for position in range(len(TOKENS))]], device=device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            plain = _logits_at(model, probe, keep, picking=False)
            with _head_sees(model, keep):
                picked = run_model(model, probe).logits
    finally:
        model.train(training)
    # bfloat16: products of other shapes may round otherwise, and a wrong head is far off
    return picked.shape == plain[None].shape and agree(picked[0].float(), plain.bfloat16())
