"""GGUF files as base models: converted as the file says, or refused where that goes wrong in silence."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_files import POSITIONS, WIDTH, taught, text_tokenizer, untaught, write_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from assets.base_model import _fingerprint, _sources
from e2h_pipeline.artifacts.reads import Reads, enforced
from e2h_pipeline.models.base import ModelError, get_base_model
from e2h_pipeline.models.load import load_policy
from e2h_pipeline.models.reading import TEXT, read_text
from e2h_pipeline.models.shapes import published_config
from e2h_pipeline.models.watch import look_at_model
from e2h_pipeline.recipe import Base, LadderProblems, Recipe

Taught = tuple[LlamaForCausalLM, PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def model_and_tokenizer() -> Taught:
    tokenizer = text_tokenizer()
    return taught(tokenizer), tokenizer


@pytest.fixture(scope="module")
def file(model_and_tokenizer: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", *model_and_tokenizer)


def _made(path: Path, out: Path, **options: Any) -> dict[str, Any]:
    return get_base_model(Base(model=str(path), **options), LadderProblems(), out)


def test_a_file_becomes_an_ordinary_folder(model_and_tokenizer: Taught, file: Path, tmp_path: Path) -> None:
    source, tokenizer = model_and_tokenizer
    summary = _made(file, tmp_path / "out")
    model, read = load_policy(tmp_path / "out")
    ids = tokenizer(TEXT)["input_ids"]
    assert read(TEXT)["input_ids"] == ids
    assert ids[0] == read.bos_token_id
    assert read("a b")["input_ids"][1:] == read("a b", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits, expected = (m(input_ids=torch.tensor([ids])).logits for m in (model, source))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert summary["architecture"] == "llama"
    assert summary["weights"] == {"F32": 20}
    assert summary["reading"]["bits"] < 0.5
    assert not {"tiny.gguf", "origin.gguf"} & {p.name for p in (tmp_path / "out").iterdir()}


def test_special_tokens_are_those_of_the_file(
    model_and_tokenizer: Taught, file: Path, tmp_path: Path
) -> None:
    """transformers' own config of it has the ids 1 and 2 of Llama 2, and its tokenizer begins texts with nothing."""
    _made(file, tmp_path / "out")
    model, tokenizer = load_policy(tmp_path / "out")
    ids = (0, 1, 2)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == ids
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == ids
    assert tokenizer.decode([1], skip_special_tokens=True) == ""
    assert max(tokenizer("<|endoftext|>")["input_ids"]) < len(tokenizer) == model.config.vocab_size


def test_files_beside_it_are_not_even_opened(model_and_tokenizer: Taught, tmp_path: Path) -> None:
    """They are no part of the model, nor of its fingerprint; transformers would look into them."""
    path = write_gguf(tmp_path / "home" / "a.gguf", *model_and_tokenizer)
    for name in ("tokenizer_config.json", "config.json", "generation_config.json", "chat_template.jinja"):
        (path.parent / name).write_text('{"chat_template": "x"}')
    with enforced(Reads.of("base_model", [path, tmp_path / "out"], [tmp_path])):
        _made(path, tmp_path / "out")
    assert not load_policy(tmp_path / "out")[1].chat_template


def test_an_end_token_stands_in_for_padding(model_and_tokenizer: Taught, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", *model_and_tokenizer, {"tokenizer.ggml.padding_token_id": None})
    _made(path, tmp_path / "out")
    assert load_policy(tmp_path / "out")[1].pad_token_id == 1


def test_weights_of_few_bits_are_told_and_converted(model_and_tokenizer: Taught, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", *model_and_tokenizer, eight_bits=True)
    summary = _made(path, tmp_path / "out", dtype="bfloat16")
    assert summary["weights"] == {"Q8_0": 15, "F32": 5}
    model, _ = load_policy(tmp_path / "out")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not hasattr(model.config, "quantization_config")


@pytest.mark.parametrize("flag", [None, False])
def test_a_beginning_that_the_model_cannot_do_without_is_missed(
    flag: bool | None, model_and_tokenizer: Taught, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "a.gguf", *model_and_tokenizer, {"tokenizer.ggml.add_bos_token": flag})
    with pytest.raises(
        ModelError, match=r"without '<s>' before it.*set tokenizer\.ggml\.add_bos_token to true"
    ):
        _made(path, tmp_path / "out")


@pytest.mark.parametrize("cut", ["default", "llama-bpe"])
def test_a_silent_file_begins_texts_as_llama_cpp_does(
    cut: str, model_and_tokenizer: Taught, tmp_path: Path
) -> None:
    """Llama 3's way of cutting texts goes with a beginning."""
    silent = {"tokenizer.ggml.add_bos_token": None, "tokenizer.ggml.pre": cut}
    path = write_gguf(tmp_path / "a.gguf", *model_and_tokenizer, silent)
    if cut == "default":
        with pytest.raises(ModelError, match="without '<s>' before it"):
            _made(path, tmp_path / "out")
    else:
        _made(path, tmp_path / "out")
        assert load_policy(tmp_path / "out")[1]("a")["input_ids"][0] == 0


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"tokenizer.ggml.eos_token_id": 40}, r"eos_token_id is 40, which is ordinary text"),
        ({"tokenizer.ggml.bos_token_id": 41}, r"bos_token_id is 41, which is ordinary text"),
        ({"tokenizer.ggml.eos_token_id": 9999}, r"eos_token_id is 9999, and it has \d+ tokens"),
        ({"tokenizer.ggml.eos_token_id": None}, r"names no end token"),
        ({"llama.rope.scaling.factor": 8.0}, r"does not read llama\.rope\.scaling\.factor=8"),
        ({"llama.attention.sliding_window": 77}, r"does not read llama\.attention\.sliding_window=77"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    metadata: dict[str, Any], message: str, model_and_tokenizer: Taught, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "a.gguf", *model_and_tokenizer, metadata)
    with pytest.raises(ModelError, match=message) as caught:
        _made(path, tmp_path / "out")
    assert str(path) in str(caught.value)


def test_weights_that_transformers_leaves_out_are_missed(model_and_tokenizer: Taught, tmp_path: Path) -> None:
    stretched = {"rope_freqs.weight": np.ones(8, np.float32)}
    path = write_gguf(tmp_path / "a.gguf", *model_and_tokenizer, tensors=stretched)
    with pytest.raises(ModelError, match=r"leaves out 8 of its [\d,]+ weights \(rope_freqs\.weight\)"):
        _made(path, tmp_path / "out")


def test_weights_in_another_order_are_noticed(model_and_tokenizer: Taught, tmp_path: Path) -> None:
    """Queries as Hugging Face has them: every shape fits, and every number is there."""
    model, tokenizer = model_and_tokenizer
    plain = {
        f"blk.{i}.attn_q.weight": layer.self_attn.q_proj.weight.detach().numpy()
        for i, layer in enumerate(model.model.layers)
    }
    path = write_gguf(tmp_path / "a.gguf", model, tokenizer, tensors=plain)
    with pytest.raises(ModelError, match=r"reads English at .* bits per character"):
        _made(path, tmp_path / "out")


def test_an_untrained_model_is_refused(tmp_path: Path) -> None:
    tokenizer = text_tokenizer()
    path = write_gguf(tmp_path / "a.gguf", untaught(tokenizer), tokenizer)
    with pytest.raises(ModelError, match=r"a trained model needs less than 1\.75: the file is damaged"):
        _made(path, tmp_path / "out")


def test_numbers_that_are_not_finite_are_refused(model_and_tokenizer: Taught, tmp_path: Path) -> None:
    broken = {"output_norm.weight": np.full(WIDTH, np.nan, np.float32)}
    path = write_gguf(tmp_path / "a.gguf", *model_and_tokenizer, tensors=broken)
    with pytest.raises(ModelError, match=r"a\.gguf: model\.norm\.weight holds values that are not finite"):
        _made(path, tmp_path / "out")


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_torn_file_is_refused(share: float, file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    (tmp_path / "torn.gguf").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match=r"torn\.gguf"):
        _made(tmp_path / "torn.gguf", tmp_path / "out")


def test_a_file_in_a_folder_is_named_by_a_field_of_its_own(file: Path, tmp_path: Path) -> None:
    options = Base(model=str(file.parent), file=file.name)
    summary = get_base_model(options, LadderProblems(), tmp_path / "out")
    assert summary["origin"] == str(file)
    assert summary["reading"]["bits"] < 0.5
    with pytest.raises(ValidationError, match="is no GGUF file"):
        Base(model="some/model", file="model.safetensors")
    with pytest.raises(ValidationError, match="leave out file or train"):
        Base(train=True, file="a.gguf")
    missing = Base(model=str(file.parent), file="other.gguf")
    with pytest.raises(ModelError, match=r"other\.gguf"):
        get_base_model(missing, LadderProblems(), tmp_path / "none")


def test_a_file_is_watched_and_is_in_the_key(model_and_tokenizer: Taught, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", *model_and_tokenizer)
    (tmp_path / "other.txt").write_text("no part of the model")
    recipe = Recipe.model_validate({"name": "x", "base": {"model": str(path)}})
    assert list(_sources(recipe)) == [path]
    before, seen = _fingerprint(recipe), look_at_model(recipe.base)
    assert set(before) == set(seen.parts) == {"a.gguf"}
    with path.open("r+b") as edited:
        edited.seek(-4, os.SEEK_END)
        edited.write(b"edit")
    assert _fingerprint(recipe) != before
    assert look_at_model(recipe.base).version != seen.version
    path.unlink()
    assert look_at_model(recipe.base).error == f"base.model {path}: no such file; put it back or name another"


def test_the_shapes_of_a_file_are_known_without_its_weights(file: Path) -> None:
    config = published_config(Base(model=str(file)))
    assert (config.hidden_size, config.max_position_embeddings) == (WIDTH, POSITIONS)


# Reading


def test_a_model_that_knows_nothing_needs_the_bits_of_its_vocabulary() -> None:
    tokenizer = text_tokenizer()
    model = untaught(tokenizer)
    torch.nn.init.zeros_(model.lm_head.weight)
    tokens = len(tokenizer(TEXT, add_special_tokens=False)["input_ids"])
    found = read_text(model, tokenizer)
    assert found.perplexity == pytest.approx(len(tokenizer), rel=1e-4)
    assert found.bits == pytest.approx((tokens - 1) * math.log2(len(tokenizer)) / len(TEXT), rel=1e-4)
    assert found.other_bits == pytest.approx(found.bits)


def test_both_beginnings_are_read_in_the_same_tokens(model_and_tokenizer: Taught) -> None:
    model, begins = model_and_tokenizer
    bare = text_tokenizer()
    bare.backend_tokenizer.post_processor = None
    first, second = read_text(model, begins), read_text(model, bare)
    assert (first.bits, first.other_bits) == (second.other_bits, second.bits)
    assert first.bits < second.bits
    bare.bos_token = None
    third = read_text(model, bare)
    assert third.bits == third.other_bits == second.bits


# Real models, by hand: E2H_GGUF_DIR=folder pytest tests/models/test_gguf.py


@pytest.mark.slow
def test_real_files_are_converted(tmp_path: Path) -> None:
    """Every file of the folder; none is downloaded."""
    folder = os.environ.get("E2H_GGUF_DIR")
    if not folder:
        pytest.skip("E2H_GGUF_DIR is not set: no GGUF files of real models here")
    files = sorted(Path(folder).glob("*.gguf"))
    assert files, f"{folder} holds no GGUF file"
    for path in files:
        summary = _made(path, tmp_path / path.stem)
        print(path.name, summary)
        assert summary["reading"]["bits"] < 1.5
