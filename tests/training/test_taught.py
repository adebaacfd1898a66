"""Logits at taught positions only: the loss and the gradients are those of the model's own loss."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from e2h_pipeline.training.batches import Example, collate, packed_attention
from e2h_pipeline.training.next_token import IGNORED
from e2h_pipeline.training.taught import TaughtTokens
from e2h_pipeline.training.trainer import TrainingStep


def _example(length: int, prompt: int, first: int) -> Example:
    ids = [first + i for i in range(length)]
    return {"input_ids": ids, "labels": [*[IGNORED] * prompt, *ids[prompt:]]}


EXAMPLES = [_example(9, 5, 3), _example(6, 2, 20), _example(7, 7, 40), _example(3, 1, 60)]
TAUGHT = 4 + 4 + 0 + 2


def _own_loss(model: PreTrainedModel, examples: Sequence[Example]) -> torch.Tensor:
    batch = collate(0, packing=False)(examples)
    found: Any = model(**batch, use_cache=False)
    return found.loss


def _loss(model: PreTrainedModel, examples: Sequence[Example], packing: bool = False) -> torch.Tensor:
    taught = sum(label != IGNORED for example in examples for label in example["labels"][1:])
    return TaughtTokens()(model, collate(0, packing)(examples), TrainingStep(torch.tensor(float(taught))))


def _gradients(model: PreTrainedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _positions_seen(head: torch.nn.Module) -> list[int]:
    """Filled with the positions that the head gets in each call."""
    seen: list[int] = []
    head.register_forward_hook(lambda _module, _inputs, logits: seen.append(logits.flatten(0, -2).shape[0]))
    return seen


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_loss_and_gradients_are_those_of_the_models_own_loss(
    name: str, bpe_tok: PreTrainedTokenizerFast
) -> None:
    """Soft-capped (Gemma 2) and scaled logits (Cohere, Granite) among them."""
    model = tiny_model(name, bpe_tok)
    own = _own_loss(model, EXAMPLES)
    expected = _gradients(model, own)
    seen = _positions_seen(model.get_output_embeddings())
    loss = _loss(model.train(), EXAMPLES)
    assert seen[-1] == TAUGHT < 4 * 9
    assert loss.item() == pytest.approx(own.item(), abs=1e-6, rel=1e-6)
    torch.testing.assert_close(_gradients(model, loss), expected, rtol=1e-4, atol=1e-5)


class _Mixing(torch.nn.Linear):
    """A head that looks at neighbours."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden.cumsum(1) / 3)


class _ByPosition(LlamaForCausalLM):
    """Logits that the model changes by position after its head."""

    def forward(self, *inputs: Any, labels: Any = None, **more: Any) -> Any:
        found = super().forward(*inputs, **more)
        found.logits = found.logits / (1 + torch.arange(found.logits.shape[1]))[None, :, None]
        if labels is not None:
            found.loss = self.loss_function(found.logits, labels, self.config.vocab_size)
        return found


class _HeadUnused(LlamaForCausalLM):
    """Logits by the head's weights, without calling it."""

    def forward(self, input_ids: Any, attention_mask: Any = None, labels: Any = None, **more: Any) -> Any:
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        found.logits = found.last_hidden_state @ self.lm_head.weight.T
        if labels is not None:
            found.loss = self.loss_function(found.logits, labels, self.config.vocab_size)
        return found


class _Headless(_HeadUnused):
    """The same without saying which layer is the head."""

    def get_output_embeddings(self) -> Any:
        return None


def _llama(kind: type[LlamaForCausalLM] = LlamaForCausalLM, **options: Any) -> LlamaForCausalLM:
    torch.manual_seed(4)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return kind(LlamaConfig(vocab_size=90, initializer_range=0.5, **small, **options))


@pytest.mark.parametrize("kind", [_ByPosition, _HeadUnused, _Headless, LlamaForCausalLM])
def test_other_heads_get_all_positions(kind: type[LlamaForCausalLM]) -> None:
    model = _llama(kind)
    if kind is LlamaForCausalLM:
        model.lm_head = _Mixing(16, 90, bias=False)
    own = _own_loss(model, EXAMPLES)
    assert _loss(model, EXAMPLES).item() == pytest.approx(own.item(), abs=1e-6)


def test_the_look_at_the_head_leaves_no_trace() -> None:
    """Only the first call looks; with dropout, a draw of its own would change the loss."""
    model = _llama(attention_dropout=0.5).train()
    objective, batch = TaughtTokens(), collate(0, packing=False)(EXAMPLES)
    losses = []
    for _ in range(2):
        torch.manual_seed(9)
        losses.append(objective(model, batch, TrainingStep(torch.tensor(10.0))).item())
    assert losses[0] == losses[1]
    assert model.training
    assert not model.lm_head._forward_pre_hooks


def test_nothing_taught_is_zero_with_a_gradient() -> None:
    model = _llama()
    batch = collate(0, packing=False)([_example(5, 5, 3)])
    loss = TaughtTokens()(model, batch, TrainingStep(torch.tensor(1.0)))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


_ROW = st.lists(st.integers(0, 89), min_size=2, max_size=6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(_ROW, st.integers(0, 6)), min_size=2, max_size=4))
def test_packed_documents_do_not_predict_each_other(rows: list[tuple[list[int], int]]) -> None:
    """Also where a document is taught from its first token, which nothing can predict."""
    model = _llama()
    examples = [{"input_ids": ids, "labels": [*[IGNORED] * p, *ids[p:]][: len(ids)]} for ids, p in rows]
    padded = _loss(model, examples)
    with packed_attention(model):
        packed = _loss(model, examples, packing=True)
    assert torch.allclose(packed, padded, atol=1e-5, equal_nan=True)
