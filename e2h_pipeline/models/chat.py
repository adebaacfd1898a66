"""Set a tokenizer up for `base.chat`: the settings, the role of the system prompt, the end of turn.

What a template can do is found by rendering it, since templates differ and say nothing about
themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2h_pipeline.solutions.chat import CHAT_FIELD, chat_messages, template_options

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.recipe import Base

_QUESTION, _ANSWER = "What is 3+4?", "It is 7, says e2h."


class ChatError(ValueError):
    """A chat template that cannot be used as the recipe says."""


def set_up_chat(tokenizer: PreTrainedTokenizerBase, options: Base) -> None:
    """Make a tokenizer ask by its chat template, and end solutions as the template ends a turn.

    Raises:
        ChatError: there is no template, or it cannot do what the recipe asks for.
    """
    if not tokenizer.chat_template:
        raise ChatError("base.chat needs a chat template, and this tokenizer has none: set base.chat=false")
    chat: dict[str, Any] = {
        "system": options.system_prompt,
        "system_role": True,
        "thinking": options.thinking,
    }
    if (
        options.thinking is not None
        and len({_rendered(tokenizer, {**chat, "thinking": t}) for t in (True, False)}) < 2
    ):
        raise ChatError("base.thinking: the chat template has no switch enable_thinking: leave it unset")
    if options.system_prompt is not None:
        chat["system_role"] = options.system_prompt.strip() in (_rendered(tokenizer, chat) or "")
    if _rendered(tokenizer, chat) is None:
        raise ChatError("base.chat: the chat template cannot render one question: set base.chat=false")
    tokenizer.eos_token = _end_of_turn(tokenizer, chat)
    tokenizer.init_kwargs[CHAT_FIELD] = chat


def _rendered(
    tokenizer: PreTrainedTokenizerBase, chat: dict[str, Any], answer: str | None = None
) -> str | None:
    """The conversation as text, with an answer or up to it; None where the template refuses it."""
    from jinja2 import TemplateError

    turns = chat_messages(_QUESTION, chat)
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
    try:
        text: str = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=answer is None, **template_options(chat)
        )
    except TemplateError:
        return None
    return text


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, chat: dict[str, Any]) -> str:
    """The special token behind an answer.

    Raises:
        ChatError: something else comes there.
    """
    _, found, behind = (_rendered(tokenizer, chat, _ANSWER) or "").rpartition(_ANSWER)
    ids = tokenizer(behind.lstrip(), add_special_tokens=False)["input_ids"] if found else []
    added = tokenizer.added_tokens_decoder
    if not ids or ids[0] not in added or not added[ids[0]].special:
        raise ChatError(
            f"base.chat: the chat template ends an answer with {behind[:20]!r}, which is no special token, so no "
            "sample would end: set base.chat=false"
        )
    return str(added[ids[0]].content)
