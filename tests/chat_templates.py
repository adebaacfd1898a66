"""Chat templates in the manner of three families, and a small tokenizer that has their tokens."""

from math_texts import MATH_TEXTS

QWEN = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou help.<|im_end|>\n' }}{%- endif %}"
    "{%- for m in messages %}{%- if m.role != 'system' %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)
LLAMA = (
    "{{- bos_token }}{%- for m in messages %}"
    "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
FAMILIES = {
    "qwen": (QWEN, "<|endoftext|>", "<|im_end|>"),
    "llama": (LLAMA, "<|end_of_text|>", "<|eot_id|>"),
    "gemma": (GEMMA, "<eos>", "<end_of_turn>"),
}
"""Template, the end token of the tokenizer, and the end of turn."""
_SPECIAL = (
    "<pad>",
    "<bos>",
    *(end for _, *ends in FAMILIES.values() for end in ends),
    "<|im_start|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<start_of_turn>",
)
_WORDS = ("<think>", "</think>")  # added tokens, and not special, as in Qwen 3


def chat_tokenizer(family: str):  # type: ignore[no-untyped-def]
    """A byte-level BPE with the special tokens and the template of a family."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    template, end, _ = FAMILIES[family]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=list(_SPECIAL), initial_alphabet=letters)
    core.train_from_iterator(MATH_TEXTS * 2, trainer)
    core.add_tokens([AddedToken(word, normalized=False) for word in _WORDS])
    if family != "qwen":  # a tokenizer that begins every text with a token, as theirs do
        bos = [("<bos>", core.token_to_id("<bos>"))]
        core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=bos)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token=end, model_max_length=1024
    )
    tokenizer.chat_template = template
    return tokenizer
