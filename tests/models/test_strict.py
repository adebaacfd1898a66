"""A checkpoint that does not fit is an error that names file and tensor, wherever it is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from architectures import save_tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from e2h_pipeline.models.base import SHIPPED, ModelError, get_base_model, save_model
from e2h_pipeline.models.load import load_evaluator, load_policy, new_evaluator
from e2h_pipeline.models.strict import WeightsError, _not_finite
from e2h_pipeline.recipe import Base, LadderProblems

Tensors = dict[str, torch.Tensor]


def _drop_layer(tensors: Tensors) -> None:
    for name in [name for name in tensors if ".1." in name]:
        del tensors[name]


def _add_layer(tensors: Tensors) -> None:
    tensors |= {name.replace(".1.", ".2."): t.clone() for name, t in tensors.items() if ".1." in name}


def _drop_norm(tensors: Tensors) -> None:
    del tensors["model.norm.weight"]


def _cut(tensors: Tensors) -> None:
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].clone()


def _nan(tensors: Tensors) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")


def _infinity(tensors: Tensors) -> None:
    tensors["model.embed_tokens.weight"][0, 0] = -float("inf")


DAMAGES = [
    (_drop_layer, r"model\.safetensors: model\.layers\.1\..* and 6 more is missing"),
    (_add_layer, r"model\.safetensors: model\.layers\.2\..* and 6 more is not part of the model"),
    (_drop_norm, r"model\.safetensors: model\.norm\.weight is missing"),
    (_cut, r"model\.safetensors: model\.norm\.weight \[31\] instead of \[32\] has another shape"),
    (_nan, r"model\.safetensors: model\.layers\.1\.mlp\.up_proj\.weight holds values that are not finite"),
    (_infinity, r"model\.safetensors: model\.embed_tokens\.weight holds values that are not finite"),
]


def damage(folder: Path, change: Callable[[Tensors], None]) -> Path:
    """Change the tensors of a model's file."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def policy(ladder_policy: Path, tmp_path: Path) -> Path:
    save_model(*load_policy(ladder_policy), tmp_path / "policy")
    return tmp_path / "policy"


@pytest.fixture
def evaluator(ladder_evaluator: Path, tmp_path: Path) -> Path:
    save_model(*load_evaluator(ladder_evaluator), tmp_path / "evaluator")
    return tmp_path / "evaluator"


@pytest.mark.parametrize(("change", "message"), DAMAGES)
def test_a_damaged_checkpoint_is_refused_and_named(
    policy: Path, evaluator: Path, tmp_path: Path, change: Callable[[Tensors], None], message: str
) -> None:
    damage(policy, change)
    damage(evaluator, change)
    for load, folder in ((load_policy, policy), (new_evaluator, policy), (load_evaluator, evaluator)):
        with pytest.raises(WeightsError, match=message) as caught:
            load(folder)
        assert str(folder) in str(caught.value)
    with pytest.raises(ModelError, match=f"base.model .*{message}"):
        get_base_model(Base(model=str(policy)), LadderProblems(), tmp_path / "out")


@settings(deadline=None)
@given(
    size=st.integers(1, 300),
    place=st.integers(0, 299),
    value=st.sampled_from([float("nan"), float("inf"), -float("inf"), 3.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_one_value_that_is_not_finite_is_seen_anywhere(
    size: int, place: int, value: float, dtype: torch.dtype
) -> None:
    model = torch.nn.Module()
    weight = torch.linspace(-9, 9, size).to(dtype)
    weight[place % size] = value
    model.weight = torch.nn.Parameter(weight)
    model.empty = torch.nn.Parameter(torch.zeros(0, dtype=dtype))
    assert _not_finite(model) == ([] if value == 3.0 else ["weight"])


def test_an_evaluator_without_its_head_is_refused(evaluator: Path) -> None:
    with pytest.raises(WeightsError, match=r"model\.safetensors: score\.bias, score\.weight is missing"):
        load_evaluator(
            damage(evaluator, lambda tensors: (tensors.pop("score.weight"), tensors.pop("score.bias")))
        )


def test_a_language_model_is_no_evaluator(policy: Path) -> None:
    with pytest.raises(ValueError, match="without a head that scores tokens"):
        load_evaluator(policy)


def test_the_file_of_a_sharded_model_is_named(policy: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(policy).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    files = sorted((tmp_path / "shards").glob("*.safetensors"))
    assert len(files) > 1
    load_policy_of = tmp_path / "shards"
    broken = next(f for f in files if "model.layers.1.mlp.up_proj.weight" in load_file(f))
    tensors = load_file(broken)
    _nan(tensors)
    save_file(tensors, broken, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=broken.name):
        load_policy(load_policy_of)


def test_what_is_stored_once_or_made_by_the_model_is_not_missing(
    bpe_tok: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Tied heads, rotary frequencies and GPT-2's masks, which old files hold."""
    assert load_policy(SHIPPED / "ladder-base")
    gpt2 = save_tiny("gpt2", bpe_tok, tmp_path / "gpt2")
    names = load_file(gpt2 / "model.safetensors").keys()
    assert "lm_head.weight" not in names
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 4, 4) for i in range(2)}
    assert load_policy(damage(gpt2, lambda tensors: tensors.update(masks)))
    llama = save_tiny("llama", bpe_tok, tmp_path / "llama")
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    assert load_policy(damage(llama, lambda tensors: tensors.update(old)))
