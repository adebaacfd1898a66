"""GGUF files as base models: converted once, and looked at, because conversions go wrong in silence.

transformers makes model and tokenizer of a file of llama.cpp, and leaves out some of what the file
says. Here the file has the last word on special tokens and on how a text begins (transformers'
Gemma tokenizer loses the beginning-of-sequence token, and a perplexity of 6 on English becomes 73).
Numbers of the file that the model does not have are an error. What no number tells, such as weights
in another order, shows when the model reads a text (`reading.py`).

The weights went through the few bits of the file: they are not the published ones.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from e2h_pipeline.models.reading import Reading, read_text
from e2h_pipeline.models.strict import load_strictly

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

    from e2h_pipeline.recipe import Base

SUFFIX = ".gguf"
MOST_BITS = 1.75
"""Bits per character of a trained model, at most. SmolLM2-135M and Gemma-3-270M need 0.9 in 4 bits, and
2.1 or more where the rows of queries or keys are in another order."""
MOST_WORSE = 1.25
"""Bits with the tokenizer's own beginning of a text, against the other beginning: Gemma needs 1.6 times
as many without its first token."""
_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
_CONTROL = 3  # llama.cpp's type of tokens that are no text
_CUTS_THAT_BEGIN = {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "lfm2", "tekken"}
_STATED = (
    "rope.freq_base",
    "rope.scaling.factor",
    "attention.layer_norm_rms_epsilon",
    "attention.layer_norm_epsilon",
    "attention.sliding_window",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
)
"""Numbers of an architecture that no shape of a weight tells."""


class GgufError(ValueError):
    """A GGUF file that cannot be used; the message says why, and the mend."""


@dataclass(frozen=True)
class GgufFacts:
    """What a GGUF file says of itself.

    Attributes:
        architecture: llama.cpp's name.
        special: role, as transformers calls it, to token id.
        kinds: llama.cpp's type of each token; empty where the file does not say.
        words: tokens of the vocabulary.
        begins: whether texts begin with the beginning-of-sequence token; None where it does not say.
        byte_level: whether tokens are bytes, else they are SentencePiece's.
        cut: llama.cpp's name for the way texts are cut into words.
        stated: numbers that no shape of a weight tells.
        tensors: elements of each tensor.
        formats: tensors in each number format.
    """

    architecture: str
    special: Mapping[str, int]
    kinds: Sequence[int]
    words: int
    begins: bool | None
    byte_level: bool
    cut: str
    stated: Mapping[str, float]
    tensors: Mapping[str, int]
    formats: Mapping[str, int]


def gguf_of(options: Base) -> tuple[str, str] | None:
    """Folder or Hub name, and file in it, of a base model in GGUF; None for other models."""
    if options.file is not None:
        return options.model, options.file
    path = Path(options.model)
    return (str(path.parent), path.name) if path.suffix == SUFFIX else None


def full_name(options: Base) -> str:
    """A base model by name, with the file in it."""
    return "/".join(filter(None, (options.model, options.file)))


def load_gguf(path: Path, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, dict[str, Any]]:
    """Model and tokenizer of a GGUF file, and what to tell of it.

    Raises:
        GgufError: the file cannot be read, or model and tokenizer are not what it says.
        WeightsError: its weights do not fit.
    """
    from transformers import AutoModelForCausalLM, GgufConfig

    facts = read_facts(path)
    _check_special(facts)
    with _alone(path) as folder:
        model = load_strictly(
            AutoModelForCausalLM,
            folder,
            gguf_file=path.name,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = _tokenizer(folder / path.name, facts)
    _check_numbers(model, facts)
    _make_plain(model, facts)
    return model, tokenizer, {"architecture": facts.architecture, "weights": dict(facts.formats)}


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """A folder with this file alone: transformers also reads a tokenizer_config.json beside a GGUF
    file, which is no part of the model."""
    with TemporaryDirectory() as folder:
        (Path(folder) / path.name).symlink_to(path.absolute())
        yield Path(folder)


def check_reading(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Reading:
    """Let a converted model read a text.

    Args:
        tokenizer: as later stages load it.

    Raises:
        GgufError: it reads like an untrained model, or much better with another beginning.
    """
    found = read_text(model, tokenizer)
    if found.bits > MOST_WORSE * found.other_bits:
        begins = tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
        raise GgufError(
            f"it reads English at {found.bits:.2f} bits per character {'with' if begins else 'without'} "
            f"{tokenizer.bos_token!r} before it, and at {found.other_bits:.2f} {'without' if begins else 'with'}: set "
            f"tokenizer.ggml.add_bos_token to {str(not begins).lower()} in the file"
        )
    if not found.bits <= MOST_BITS:
        raise GgufError(
            f"it reads English at {found.bits:.2f} bits per character, and a trained model needs less than "
            f"{MOST_BITS}: the file is damaged, or transformers converts it wrongly: take the model's safetensors"
        )
    return found


def read_facts(path: Path) -> GgufFacts:
    """What a GGUF file says of itself.

    Raises:
        GgufError: it is no whole GGUF file, or says too little.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        return _facts(reader)
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        # The reader trusts lengths in the file: a torn file fails anywhere.
        raise GgufError(f"not a whole GGUF file ({error}): fetch it again") from None


def _facts(reader: GGUFReader) -> GgufFacts:
    def value(key: str, default: Any = None) -> Any:
        field = reader.get_field(key)
        return default if field is None else field.contents()

    architecture = value("general.architecture")
    special = {role: value(f"tokenizer.ggml.{name}_token_id") for role, name in _SPECIAL.items()}
    tokens = reader.get_field("tokenizer.ggml.tokens")
    stated = {name: value(f"{architecture}.{name}") for name in _STATED}
    return GgufFacts(
        architecture=str(architecture),
        special={role: int(token) for role, token in special.items() if token is not None},
        kinds=value("tokenizer.ggml.token_type", ()),
        words=0 if tokens is None else len(tokens.data),
        begins=value("tokenizer.ggml.add_bos_token"),
        byte_level=value("tokenizer.ggml.model") == "gpt2",
        cut=value("tokenizer.ggml.pre", ""),
        stated={name: number for name, number in stated.items() if isinstance(number, (int, float))},
        tensors={tensor.name: int(tensor.n_elements) for tensor in reader.tensors},
        formats=Counter(tensor.tensor_type.name for tensor in reader.tensors),
    )


def _check_special(facts: GgufFacts) -> None:
    if "eos_token" not in facts.special:
        raise GgufError("it names no end token (tokenizer.ggml.eos_token_id): set it in the file")
    for role, token in facts.special.items():
        key = f"tokenizer.ggml.{_SPECIAL[role]}_token_id"
        if not 0 <= token < facts.words:
            raise GgufError(f"{key} is {token}, and it has {facts.words} tokens: set it in the file")
        if role in ("bos_token", "eos_token") and facts.kinds and facts.kinds[token] != _CONTROL:
            raise GgufError(f"{key} is {token}, which is ordinary text: set it in the file")


def _check_numbers(model: PreTrainedModel, facts: GgufFacts) -> None:
    """All numbers of the file must be in the model and its config."""
    read = sum(parameter.numel() for parameter in model.parameters())
    left = sum(facts.tensors.values()) - read
    if left:
        likely = [name for name, count in facts.tensors.items() if count == left]
        named = f" ({likely[0]})" if len(likely) == 1 else ""
        raise GgufError(
            f"transformers leaves out {left:,} of its {left + read:,} weights{named}: take the model's safetensors"
        )
    config = model.config.get_text_config().to_dict()
    for name, number in facts.stated.items():
        known = _numbers(config.get("rope_parameters") if name.startswith("rope.") else config)
        if not any(abs(number - other) <= 1e-5 * abs(number) for other in known):
            raise GgufError(
                f"transformers does not read {facts.architecture}.{name}={number:g}: take the model's safetensors"
            )


def _numbers(value: Any) -> Iterator[float]:
    """All numbers of a config."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def _make_plain(model: PreTrainedModel, facts: GgufFacts) -> None:
    """A model like any other: not quantized, and with the file's special tokens."""
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    settings: list[PretrainedConfig] = [model.config, model.config.get_text_config(), model.generation_config]
    for role in ("bos_token", "eos_token", "pad_token"):
        for config in settings:
            setattr(config, f"{role}_id", facts.special.get(role))


def _tokenizer(path: Path, facts: GgufFacts) -> PreTrainedTokenizerFast:
    """The file's tokenizer, with its special tokens and its beginning of a text.

    Raises:
        GgufError: transformers reads other tokens.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    read = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    described = json.loads(read.backend_tokenizer.to_str())
    # transformers adds GPT-2's end token where the file has none, and no embedding has its number.
    described["added_tokens"] = [t for t in described["added_tokens"] if t["id"] < facts.words]
    core = Tokenizer.from_str(json.dumps(described))
    if core.get_vocab_size() != facts.words:
        raise GgufError(f"transformers reads {core.get_vocab_size()} of its {facts.words} tokens")
    texts = {role: str(core.id_to_token(token)) for role, token in facts.special.items()}
    for role, text in texts.items():
        if core.token_to_id(text) != facts.special[role]:
            raise GgufError(
                f"its {role} {text!r} is two tokens, {facts.special[role]} and {core.token_to_id(text)}"
            )
    begins = facts.begins
    if begins is None:  # as llama.cpp does where the file is silent
        begins = not facts.byte_level or facts.cut in _CUTS_THAT_BEGIN
    bos = ("bos_token",) if begins and "bos_token" in texts else ()
    core.post_processor = _beginning(facts, [(texts[role], facts.special[role]) for role in bos])
    return PreTrainedTokenizerFast(tokenizer_object=core, chat_template=read.chat_template, **texts)


def _beginning(facts: GgufFacts, first: Sequence[tuple[str, int]]) -> Any:
    """What a tokenizer does to a text that is cut into tokens: nothing, or begin it with a token.

    An end token that the file adds is left out: solutions get theirs when they are finished.

    Args:
        first: text and id of that token, or nothing.
    """
    from tokenizers import processors

    steps: list[Any] = [processors.ByteLevel(trim_offsets=False)] if facts.byte_level else []
    for bos, token in first:
        steps.append(processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos} $B", [(bos, token)]))
    return processors.Sequence(steps)
