"""Whether a tokenizer can carry the text format: a round trip of one example, in milliseconds.

Else the mistake shows late and elsewhere: prompts that end in the end token give empty samples, a
tokenizer that joins white space makes one step of all, and one without an end token never ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.models.base import ModelError
from e2h_pipeline.problems.domain import Domain
from e2h_pipeline.solutions import encode, encode_completion, prompt_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.solutions import TextFormat

_OTHER = "use another model"
_SHOWN = 40
_SPELLED = (
    "1+2*2",
    "First, 12.5 * 40 = 500.\n\nSo  \\frac{1}{2}x^2 = 3,\n\tand x > 0.\n\n# Answer\n\n500",
    "Für jedes \u03b5 > 0: \u6c42\u548c",
)


def require_carries(folder: Path, domain: Domain) -> None:
    """Refuse a base model whose tokenizer cannot carry a domain's prompts and solutions.

    Raises:
        ModelError: the message says what is lost, and the mend.
    """
    from transformers import AutoConfig, AutoTokenizer

    rows = AutoConfig.from_pretrained(folder).get_text_config().vocab_size
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.is_fast:
        raise _refused("it has no character offsets, which say where steps end", "save it as tokenizer.json")
    _check_end(tokenizer)
    example = domain.example
    completion = domain.text.completion(example.steps, example.answer)
    _check_prompt(tokenizer, example.question, domain.text)
    _check_text(tokenizer, completion, domain.text)
    encoded = encode(tokenizer, example.question, completion, text=domain.text)
    beyond = [i for i in (*encoded.input_ids, tokenizer.pad_token_id) if i is not None and i >= rows]
    if beyond:
        raise _refused(
            f"token {beyond[0]} ({tokenizer.decode(beyond[:1])!r}) is beyond the model's {rows} embeddings",
            "take tokenizer and model of one source",
        )


def same_tokens(policy: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether a model of the other tokenizer can read the policy's token ids: all of them mean the
    same there, and text is spelled alike."""
    known = other.get_vocab()
    if any(known.get(token) != i for token, i in policy.get_vocab().items()):
        return False
    return all(
        policy(text, add_special_tokens=False)["input_ids"]
        == other(text, add_special_tokens=False)["input_ids"]
        for text in _SPELLED
    )


def _check_end(tokenizer: PreTrainedTokenizerBase) -> None:
    end = tokenizer.eos_token_id
    if end is None or end == tokenizer.unk_token_id:
        raise _refused(
            "it has no end token, so no sample would end", "set eos_token in tokenizer_config.json"
        )
    if tokenizer.decode([end], skip_special_tokens=True):
        raise _refused(
            f"its end token {tokenizer.eos_token!r} is ordinary text and would stay in every completion",
            "mark it special in tokenizer.json",
        )


def _check_prompt(tokenizer: PreTrainedTokenizerBase, question: str, text: TextFormat) -> None:
    """Special tokens may stand before a prompt, never behind it: the solution comes there."""
    prompt = prompt_tokens(tokenizer, question, text)
    if prompt[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.cls_token_id):
        raise _refused(
            f"it ends every text with {tokenizer.decode(prompt[-1:])!r}, so a prompt ends before its solution begins",
            "take that token out of the post_processor in tokenizer.json (and add_eos_token in tokenizer_config.json)",
        )
    read = tokenizer.decode(prompt, skip_special_tokens=True)
    if question.strip() not in read:
        raise _refused(f"a prompt comes back changed: {_difference(question.strip(), read)}", _OTHER)


def _check_text(tokenizer: PreTrainedTokenizerBase, completion: str, text: TextFormat) -> None:
    """A solution comes back as it was, whole and after each of its steps."""
    ids, offsets = encode_completion(tokenizer, completion, finished=True, text=text)
    read = tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True)
    if read != completion:
        raise _refused(f"a solution comes back changed: {_difference(completion, read)}", _OTHER)
    for start, stop in text.parse(completion).spans:
        held = sum(begin < stop for begin, _ in offsets)
        if not tokenizer.decode(ids[:held]).startswith(completion[:stop].rstrip()):
            lost = completion[start:stop].strip()
            raise _refused(f"its character offsets do not say where the step {lost[:_SHOWN]!r} ends", _OTHER)


def _difference(sent: str, read: str) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(sent, read, strict=False)) if a != b), min(len(sent), len(read))
    )
    first = max(0, at - _SHOWN // 4)
    return f"{sent[first : first + _SHOWN]!r} reads {read[first : first + _SHOWN]!r}"


def _refused(reason: str, mend: str) -> ModelError:
    return ModelError(f"base.model: its tokenizer cannot carry the text format: {reason}; {mend}")
