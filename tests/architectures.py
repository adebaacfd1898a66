"""Tiny random causal models of many architectures, for tests of what must hold for all of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_USUAL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
_ALL_FULL = {"layer_types": ["full_attention"] * 2}
_OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    # transformers has a token-classification class of their own
    "gpt2": {**_OLD, "bos_token_id": 1, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0},
    "gpt_neox": {**_USUAL, "hidden_dropout": 0.0},
    "llama": _USUAL,
    "qwen2": _USUAL,
    "qwen3": {**_USUAL, "head_dim": 8},
    "mistral": {**_USUAL, "sliding_window": None},
    "phi": _USUAL,
    "phi3": {**_USUAL, "sliding_window": None},
    "falcon": {**_USUAL, "alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon-alibi": {**_USUAL, "alibi": True},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2, "max_seq_len": 256},
    "stablelm": _USUAL,
    "smollm3": {**_USUAL, "use_sliding_window": False},
    "starcoder2": {**_USUAL, "sliding_window": None},
    "gemma2": {**_USUAL, "head_dim": 8, "query_pre_attn_scalar": 8, **_ALL_FULL},
    "qwen3_moe": {
        **_USUAL,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    },
    # it has none
    "gemma3_text": {**_USUAL, "head_dim": 8, "query_pre_attn_scalar": 8, **_ALL_FULL},
    "opt": {**_USUAL, "ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0},
    "gptj": {**_OLD, "rotary_dim": 4},
    "olmo2": _USUAL,
    "granite": _USUAL,
    "cohere": _USUAL,
}
OWN_CLASS = tuple(ARCHITECTURES)[: tuple(ARCHITECTURES).index("gemma3_text")]
ALIBI = ("falcon-alibi", "bloom", "mpt")


def tiny_model(name: str, tokenizer: "PreTrainedTokenizerFast", **options: Any) -> "PreTrainedModel":
    """A random causal language model over a tokenizer. Weights are larger than usual, so that
    positions and order tell."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    values = {
        "initializer_range": 0.3,
        **ends,
        "vocab_size": len(tokenizer),
        **ARCHITECTURES[name],
        **options,
    }
    torch.manual_seed(11)
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(name.removesuffix("-alibi"), **values)
    ).eval()


def save_tiny(name: str, tokenizer: "PreTrainedTokenizerFast", folder: Path, **options: Any) -> Path:
    """`tiny_model` as a Hugging Face folder."""
    tiny_model(name, tokenizer, **options).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
