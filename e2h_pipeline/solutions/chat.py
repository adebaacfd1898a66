"""The prompt of a chat model: its own template, kept with its tokenizer.

How a model is asked belongs to the model and not to the domain: an evaluator and a policy of one
experiment may differ. So `base.chat` is written into the tokenizer's config, under `CHAT_FIELD`, and
every model trained from it has it too. Steps and answer stay as the domain writes them; the end
token of such a tokenizer is the template's end of turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHAT_FIELD = "e2h_chat"  # of tokenizer_config.json: {"system", "system_role", "thinking"}


def chat_of(tokenizer: PreTrainedTokenizerBase) -> Mapping[str, Any] | None:
    """How a tokenizer's model is asked by its chat template; None where it is asked by plain text."""
    found: Mapping[str, Any] | None = tokenizer.init_kwargs.get(CHAT_FIELD)
    return found


def chat_messages(question: str, chat: Mapping[str, Any]) -> list[dict[str, str]]:
    """The conversation before a solution. The system prompt stands before the question where the
    template has no system role."""
    system, question = chat["system"], question.strip()
    if system is None:
        return [{"role": "user", "content": question}]
    if not chat["system_role"]:
        return [{"role": "user", "content": f"{system}\n\n{question}".strip()}]
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def template_options(chat: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the template besides the conversation."""
    return {} if chat["thinking"] is None else {"enable_thinking": chat["thinking"]}


def chat_tokens(tokenizer: PreTrainedTokenizerBase, question: str, chat: Mapping[str, Any]) -> list[int]:
    """Token ids of the conversation, up to where the solution begins."""
    ids: list[int] = tokenizer.apply_chat_template(
        chat_messages(question, chat),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
        **template_options(chat),
    )
    return ids
