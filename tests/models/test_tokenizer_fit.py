"""Tokenizers that lose some of the text format are refused with the reason; good ones are not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from math_texts import MATH_TEXTS
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from e2h_pipeline.models.base import SHIPPED, ModelError
from e2h_pipeline.models.tokenizer_fit import require_carries
from e2h_pipeline.problems.domain import PROSE
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.math.domain import MATH
from e2h_pipeline.solutions import MARKED

ENDS = ["<pad>", "</s>", "<unk>", "<s>"]
NAMED = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
TEXTS = [*MATH_TEXTS, MARKED.completion(PROSE.steps, PROSE.answer), PROSE.question]


def _byte_level() -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=450, special_tokens=ENDS, initial_alphabet=letters)
    )
    return core


def _sentence_piece() -> Tokenizer:
    """As Llama 2: spaces as underscores, bytes for what it does not know."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=600, special_tokens=ENDS, initial_alphabet=[])
    )
    return core


def _starts_with_bos(core: Tokenizer) -> Tokenizer:
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    return core


def _ends_with_eos(core: Tokenizer) -> Tokenizer:
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return core


def _splits_at_white_space(core: Tokenizer) -> Tokenizer:
    """As BERT, T5 and word-level tokenizers: one space is what is left of any white space."""
    core = Tokenizer(models.WordLevel(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.train_from_iterator(TEXTS, trainers.WordLevelTrainer(special_tokens=ENDS))
    return core


def _lower_case(core: Tokenizer) -> Tokenizer:
    core.normalizer = normalizers.Lowercase()
    return core


def _joins_lines(core: Tokenizer) -> Tokenizer:
    from tokenizers import Regex

    core.normalizer = normalizers.Replace(Regex(r"\n+"), "\n")
    return core


def _joins_spaces(core: Tokenizer) -> Tokenizer:
    from tokenizers import Regex

    core.normalizer = normalizers.Replace(Regex(" +"), " ")
    return core


def _no_digits(core: Tokenizer) -> Tokenizer:
    from tokenizers import Regex

    core.normalizer = normalizers.Replace(Regex("[0-9]"), "")
    return core


def _saved(folder: Path, core: Tokenizer, rows: int = 600, **names: str | None) -> Path:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **{**NAMED, **names})
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": rows}))
    return folder


@pytest.mark.parametrize("make", [_byte_level, _sentence_piece])
@pytest.mark.parametrize("change", [lambda core: core, _starts_with_bos])
def test_usual_tokenizers_fit(
    make: Callable[[], Tokenizer], change: Callable[[Tokenizer], Tokenizer], tmp_path: Path
) -> None:
    require_carries(_saved(tmp_path, change(make())), MATH)


def test_the_shipped_tokenizer_fits_its_domain_and_no_prose() -> None:
    require_carries(SHIPPED / "ladder-base", LADDER)
    with pytest.raises(ModelError, match="comes back changed"):
        require_carries(SHIPPED / "ladder-base", MATH)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_ends_with_eos, r"ends every text with '</s>'.*take that token out of the post_processor"),
        (_splits_at_white_space, "comes back changed"),
        (_lower_case, "comes back changed"),
        (_joins_lines, "a solution comes back changed"),
        (_joins_spaces, "a prompt comes back changed"),
        (_no_digits, "comes back changed"),
    ],
)
def test_what_loses_text_is_refused_with_the_reason(
    change: Callable[[Tokenizer], Tokenizer], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=f"tokenizer cannot carry the text format: .*{reason}"):
        require_carries(_saved(tmp_path, change(_byte_level())), MATH)


def test_an_end_token_is_needed_and_must_be_special(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no end token.*set eos_token"):
        require_carries(_saved(tmp_path / "none", _byte_level(), eos_token=None), MATH)
    with pytest.raises(ModelError, match="no end token"):
        require_carries(_saved(tmp_path / "unknown", _byte_level(), eos_token="<unk>"), MATH)


def test_ids_beyond_the_embedding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is beyond the model's 40 embeddings"):
        require_carries(_saved(tmp_path, _byte_level(), rows=40), MATH)
