"""Tiny evaluators in the layouts of others, with random weights, as published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from math_texts import MATH_TEXTS
from safetensors.torch import save_file
from tokenizers import AddedToken, ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Qwen2Model

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ADDED = [
    "<extra_0>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start|>",
    "<|stop|>",
    "<|eot_id|>",
    "<s>",
    "\n\n",
    "ки",
]


def layout_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with the tokens of all layouts; `+ -` is two tokens as in Llama's vocabulary."""
    core = ByteLevelBPETokenizer()
    core.train_from_iterator(MATH_TEXTS * 3, vocab_size=400, special_tokens=["<pad>", "</s>"])
    found = PreTrainedTokenizerFast(
        tokenizer_object=core._tokenizer, pad_token="<pad>", eos_token="</s>", model_max_length=1024
    )
    found.add_tokens([AddedToken(text, special=text.startswith("<")) for text in ADDED])
    found.add_tokens([AddedToken(sign, lstrip=True) for sign in "+-"])
    return found


def tiny(kind: Any, vocabulary: int, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    return kind(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        **options,
    )


def write(
    folder: Path, tokenizer: PreTrainedTokenizerFast, model: Any, architecture: str, **head: torch.Tensor
) -> Path:
    """A folder as published: weights of body and head in one file, and a config that names the class."""
    folder.mkdir()
    tokenizer.save_pretrained(folder)
    tensors = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file({**tensors, **head}, folder / "model.safetensors", {"format": "pt"})
    config = {
        **model.config.to_dict(),
        "architectures": [architecture],
        "auto_map": {"AutoModel": "modeling.X"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def save_qwen_prm(
    folder: Path, tokenizer: PreTrainedTokenizerFast, seed: int = 0
) -> tuple[Path, Qwen2Model, torch.nn.Linear, torch.nn.Linear]:
    """A folder in the layout of Qwen2.5-Math-PRM; also its body and the two layers of its head."""
    tokenizer.chat_template = CHATML
    body = Qwen2Model(tiny(Qwen2Config, len(tokenizer), seed)).eval()
    first, last = torch.nn.Linear(32, 32), torch.nn.Linear(32, 2)
    for layer in (first, last):
        torch.nn.init.normal_(layer.weight)
    causal = Qwen2ForCausalLM(tiny(Qwen2Config, len(tokenizer), seed))
    causal.model = body
    write(
        folder,
        tokenizer,
        causal,
        "Qwen2ForProcessRewardModel",
        **{"score.0.weight": first.weight.data, "score.0.bias": first.bias.data},
        **{"score.2.weight": last.weight.data, "score.2.bias": last.bias.data},
    )
    return folder, body, first, last
