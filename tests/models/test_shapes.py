"""Models without data: they take what models with data take, and keep no memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, PretrainedConfig

from e2h_pipeline.models.adapters import add_adapter
from e2h_pipeline.models.base import ModelError
from e2h_pipeline.models.memory import cache_bytes, tokens
from e2h_pipeline.models.shapes import (
    ACTIVATIONS,
    GRADIENTS,
    LOGITS,
    Meter,
    evaluator,
    language_model,
    largest_layer,
    meta,
    outside_layers,
    published_config,
    unreal,
    weight_bytes,
    weight_count,
)
from e2h_pipeline.recipe import Base, Recipe, recipe_names

WORDS = 257  # no other width of the models is that


def config(name: str) -> PretrainedConfig:
    return AutoConfig.for_model(name, **{**ARCHITECTURES[name], "vocab_size": WORDS})


def pass_over(meter: Meter, model: torch.nn.Module, earlier: bool) -> dict[str, int]:
    """A forward and a backward pass; returns what the tensors take that live on."""
    with meter:
        if earlier:
            meter.keep_gradients()
        ids = tokens(3, 20)
        mask = torch.ones_like(ids)
        mask[0, -2:] = 0  # otherwise transformers looks at the values and makes no mask
        loss = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.sum()
        loss.backward()
        del loss, ids, mask
    return dict(+meter.live)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "gpt_neox", "olmo2", "granite"])
def test_a_pass_without_data_takes_what_a_real_one_takes(name: str, checkpointing: bool) -> None:
    real = language_model(config(name), torch.float32)
    with meta():
        shape = language_model(config(name), torch.float32)
    mode = unreal(shape)
    for model in (real, shape):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()
    counted, reckoned = Meter(real), Meter(shape)
    left = pass_over(counted, real, earlier=False)
    with mode:
        assert pass_over(reckoned, shape, earlier=False) == left
    assert reckoned.peak == counted.peak
    assert left == {GRADIENTS: weight_bytes(shape)}
    assert counted.total > weight_bytes(real)


def test_logits_are_told_from_activations() -> None:
    with meta():
        model = language_model(config("llama"), torch.float32)
    with unreal(model), Meter(model) as meter:
        kept = model(input_ids=tokens(3, 20), use_cache=False).logits
        assert meter.live[LOGITS] == kept.nbytes == 4 * 3 * 20 * WORDS
        assert meter.live[ACTIVATIONS] > 0


def test_gradients_of_an_earlier_pass_count_from_the_start() -> None:
    with meta():
        model = language_model(config("llama"), torch.float32)
    first, later, sharded = (Meter(model, gradient_share=share) for share in (1.0, 1.0, 0.25))
    with unreal(model):
        pass_over(first, model, earlier=False)
        assert later.peak == {}
        pass_over(later, model, earlier=True)
        assert later.peak[GRADIENTS] >= weight_bytes(model) > first.peak.get(GRADIENTS, 0)
        model.zero_grad()
        assert pass_over(sharded, model, earlier=True)[GRADIENTS] == weight_bytes(model) // 4


def test_seven_billion_weights_take_no_memory() -> None:
    """Llemma's published size, with adapters and as an evaluator; counts of adapters by hand."""
    shape = published_config(Recipe.from_key("llemma-7b").base)
    with meta():
        policy, judge = language_model(shape, torch.bfloat16), evaluator(shape, torch.bfloat16)
        assert weight_count(policy) == 6_738_546_688
        assert weight_bytes(judge) == 2 * (6_738_546_688 - 32_016 * 4096 + 4096 + 1)
        add_adapter(policy, "policy", 16, (), 0)
    ends = 4 * (4096 + 4096) + 3 * (4096 + 11008)  # q, k, v, o; gate, up, down
    assert weight_count(policy, learning=True) == 32 * 16 * ends
    assert weight_bytes(policy, learning=True) == 4 * 32 * 16 * ends  # float32
    assert all(parameter.is_meta for parameter in policy.parameters())
    with unreal(policy):
        assert cache_bytes(policy) == 32 * 2 * 4096 * 2


def test_tied_weights_count_once() -> None:
    with meta():
        tied = language_model(published_config(Base(model="Qwen/Qwen2.5-1.5B")), torch.bfloat16)
        unreal(tied)
    assert round(weight_count(tied) / 1e6) == 1544  # published: 1.54 billion


@pytest.mark.parametrize("name", [name for name in recipe_names() if not Recipe.from_key(name).base.train])
def test_the_plan_knows_the_models_of_shipped_recipes(name: str) -> None:
    assert published_config(Recipe.from_key(name).base).hidden_size


def test_a_model_that_is_not_here_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        ModelError, match=r"'nobody/nothing': its config\.json is not on this machine; fetch it: hf"
    ):
        published_config(Base(model="nobody/nothing"))
    with pytest.raises(ModelError, match=r"base\.train: .* set base\.train=false"):
        published_config(Base(train=True))
    config("llama").save_pretrained(tmp_path)
    assert published_config(Base(model=str(tmp_path))).vocab_size == WORDS


def test_lists_inside_a_layer_count_once() -> None:
    """Experts are a list of modules inside a layer; they are part of it, and of no other."""
    config = LlamaConfig(
        vocab_size=10, hidden_size=8, intermediate_size=8, num_hidden_layers=3, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    plain, outside = largest_layer(model), outside_layers(model)
    assert outside == 4 * (10 * 8 + 8 + 10 * 8)
    experts = torch.nn.ModuleList(torch.nn.Linear(8, 8, bias=False) for _ in range(3))
    model.model.layers[1].experts = experts
    assert largest_layer(model) == plain + 3 * 4 * 64
    assert outside_layers(model) == outside
