from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    GPT2Config,
    GPT2ForTokenClassification,
    GPTNeoXConfig,
    GPTNeoXForTokenClassification,
    LlamaConfig,
    LlamaForTokenClassification,
    PreTrainedModel,
)

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.training.batches import collate, packed_attention, run_model
from e2h_pipeline.training.boundary import (
    Boundary,
    WithBoundary,
    _without_beginnings,
    keep_boundary,
    passing,
)

SIZE: dict[str, Any] = {"vocab_size": 50, "num_labels": 1, "bos_token_id": 1, "eos_token_id": 2}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForTokenClassification(
        LlamaConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            **SIZE,
        )
    ),
    "gpt2": lambda: GPT2ForTokenClassification(GPT2Config(n_embd=32, n_layer=4, n_head=4, **SIZE)),
    "gpt_neox": lambda: GPTNeoXForTokenClassification(
        GPTNeoXConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4, **SIZE
        )
    ),
}
EXAMPLES = [
    {"input_ids": [1, 2, 3, 4, 5], "labels": [0.0, 1.0, -100.0, 1.0, 1.0]},
    {"input_ids": [1, 2, 3], "labels": [0.0, 1.0, -100.0]},
    {"input_ids": [7, 2, 3, 9], "labels": [0.0, 1.0, -100.0, 1.0]},
]


def _model(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return MODELS[name]().eval()


def _kept(model: PreTrainedModel, folder: Path, layers: int = 2) -> Boundary:
    return keep_boundary(model, layers, EXAMPLES, folder, Reporter())


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_goes_on_from_kept_states_as_if_it_had_computed_them(
    name: str, packing: bool, tmp_path: Path
) -> None:
    model = _model(name)
    examples = WithBoundary(EXAMPLES, _kept(model, tmp_path))
    batch = collate(0, packing)([examples[i] for i in range(3)])
    plain = collate(0, packing)(EXAMPLES)
    with torch.no_grad(), packed_attention(model, packing):
        expected = run_model(model, plain).logits
        with passing(model, 2):
            found = run_model(model, batch).logits
        again = run_model(model, plain).logits
    real = plain.get("attention_mask", torch.ones(expected.shape[:2])).bool()
    assert torch.allclose(found[real], expected[real], atol=1e-6)
    assert torch.equal(again, expected)  # outside the block the model is as it was


def test_only_what_is_above_learns(tmp_path: Path) -> None:
    model = _model("llama")
    examples = WithBoundary(EXAMPLES, _kept(model, tmp_path))
    with passing(model, 2):
        run_model(model, collate(0, False)([examples[0]])).logits.sum().backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any(".layers.2." in name for name in learned)
    assert not any(".layers.0." in name or ".layers.1." in name for name in learned)


def test_a_batch_without_states_is_refused(tmp_path: Path) -> None:
    model = _model("llama")
    with passing(model, 2), pytest.raises(ValueError, match="no states of the frozen layers"):
        run_model(model, collate(0, False)(EXAMPLES))


def test_states_are_computed_once_and_torn_files_again(tmp_path: Path) -> None:
    model = _model("llama")
    before = [_kept(model, tmp_path).of(e) for e in EXAMPLES]
    (file,) = tmp_path.glob("*.npy")
    written = file.stat().st_mtime_ns
    _kept(model, tmp_path)
    assert file.stat().st_mtime_ns == written
    file.rename(file.with_suffix(".tmp"))  # a kill while it was written
    after = [_kept(model, tmp_path).of(e) for e in EXAMPLES]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert np.array_equal(before[1], before[0][:3])  # a beginning has its part of the longer document


@pytest.mark.parametrize("layers", [0, 4, 7])
def test_a_layer_must_be_left_above(layers: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"frozen_layers is .* between 1 and 3"):
        _kept(_model("llama"), tmp_path, layers)


def test_a_model_that_would_not_go_on_the_same_is_refused(tmp_path: Path) -> None:
    """A layer that adds what it saw in the layer below would be passed through."""
    model = _model("llama")
    layers = model.base_model.layers
    plain = layers[3].forward

    def forward(hidden_states: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
        seen, layers[0].input_layernorm.seen = layers[0].input_layernorm.seen, 0.0
        return plain(hidden_states + seen, *more, **named)

    layers[0].input_layernorm.register_forward_hook(
        lambda module, _, output: setattr(module, "seen", output.detach())
    )
    layers[3].forward = forward
    run_model(model, collate(0, False)(EXAMPLES[:1]))
    with pytest.raises(ValueError, match="set cache_frozen=false"):
        _kept(model, tmp_path)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), max_size=12))
def test_every_document_is_whole_or_inside_one(texts: Sequence[Sequence[int]]) -> None:
    whole, inside = _without_beginnings(texts)
    assert {tuple(text) for text in texts} == {*whole, *inside}
    assert all(long in whole and long[: len(short)] == short for short, long in inside.items())
    assert not any(a != b and b[: len(a)] == a for a in whole for b in whole)
