"""A tiny real model that has learned one text, written as GGUF the way llama.cpp's converter does."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from e2h_pipeline.models.reading import TEXT

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

HEADS, GROUPS, WIDTH, LAYERS, POSITIONS = 4, 2, 64, 2, 1024
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.layers.": "blk.",
}


def text_tokenizer() -> "PreTrainedTokenizerFast":
    """A byte-level BPE of the text; a text begins with <s>."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import ByteLevel, Sequence, TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    core = ByteLevelBPETokenizer()
    core.train_from_iterator([TEXT] * 2, vocab_size=360, special_tokens=["<s>", "</s>", "<pad>"])
    begin = TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 0)])
    core._tokenizer.post_processor = Sequence([ByteLevel(trim_offsets=False), begin])
    return PreTrainedTokenizerFast(
        tokenizer_object=core._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def untaught(tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    """A random Llama with grouped heads and a tied head."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    shape = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": GROUPS}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        **shape,
        **heads,
    )
    return LlamaForCausalLM(config)


def taught(tokenizer: "PreTrainedTokenizerFast", updates: int = 120) -> "LlamaForCausalLM":
    """The same after it has learned the text by heart, always behind <s>."""
    import torch

    model = untaught(tokenizer)
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(updates):
        loss: Any = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def write_gguf(
    path: Path,
    model: "LlamaForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    metadata: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    eight_bits: bool = False,
) -> Path:
    """Write a GGUF file.

    Args:
        metadata: values by key, other than the model's own; None leaves a key out.
        tensors: tensors by GGUF name, other than the model's own or beside them.
        eight_bits: matrices in Q8_0.
    """
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "llama")
    for key, value in {**_metadata(model, tokenizer), **(metadata or {})}.items():
        _add(writer, key, value)
    for name, tensor in {**_tensors(model), **(tensors or {})}.items():
        if eight_bits and tensor.ndim == 2:
            packed = quantize(tensor, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _metadata(model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast") -> dict[str, Any]:
    import json

    core = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    words = sorted(core["vocab"], key=core["vocab"].get)
    config = model.config
    return {
        "general.name": "tiny",
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.block_count": config.num_hidden_layers,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": len(words),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": [3 if word in tokenizer.all_special_tokens else 1 for word in words],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in core["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
    }


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)


def _tensors(model: "LlamaForCausalLM") -> dict[str, np.ndarray]:
    found = {}
    for name, parameter in model.named_parameters():
        for theirs, ggml in _NAMES.items():
            name = name.replace(theirs, ggml)
        array = parameter.detach().numpy()
        if ".attn_q." in name or ".attn_k." in name:
            array = interleaved(array, HEADS if ".attn_q." in name else GROUPS)
        found[name] = np.ascontiguousarray(array)
    return found


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key matrix in llama.cpp's order: rotated pairs side by side."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)
