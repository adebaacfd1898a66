"""Evaluators that answer `+` or `-`: language models whose reward is the softmax over these two tokens.

- `math-shepherd` (Wang et al. 2024, arXiv 2312.08935): each step ends with the tag `ки`, and the two
  tokens are compared at the tag. Model card of peiyi9979/math-shepherd-mistral-7b-prm:
  `logits[:, :, candidate_tokens].softmax(-1)[:, :, 0]` where `input_id == step_tag_id`.
- `rlhflow` (Xiong et al. 2024, RLHFlow/RLHF-Reward-Modeling): each step is a user's turn, and the
  assistant answers `+`. The two tokens are compared where that answer is predicted: position -3 of
  the conversation up to it in Llama 3.1's template (`prm_evaluate.py`). A conversation with all answers
  has the same beginnings, so one pass does.

The log odds are a linear head (`rewards.verdicts`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.rewards.outside.layout import (
    Layout,
    LayoutError,
    Loaded,
    chat_text,
    encode_text,
    without,
)
from e2h_pipeline.solutions import EncodedSolution

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NUMBERED = re.compile(r"Step \d{1,4}:")


class MathShepherd(Layout):
    """Signs at a tag behind each step. Steps are numbered `Step 1:` and so on, as it was trained.

    Attributes:
        tag: the text that ends a step.
    """

    def __init__(self, tag: str = "ки") -> None:
        self.tag = tag

    def load(self, folder: Path, others: Sequence[Path]) -> Loaded:
        """See `Layout.load`."""
        return _language_model(folder, signs_apart=False)

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, question: str, steps: Sequence[str]
    ) -> EncodedSolution:
        """See `Layout.encode`."""
        text, ends = f"{without(question, self.tag)} ", []
        for number, step in enumerate(steps, start=1):
            step = without(step, self.tag)
            head = "" if _NUMBERED.match(step) else f"Step {number}: "
            text += f"{head}{step} {self.tag}"
            ends.append(len(text))
            text += "\n" if number < len(steps) else ""
        return encode_text(tokenizer, text, ends, special=True)


class RlhFlow(Layout):
    """Signs as the assistant's turns of a conversation."""

    def load(self, folder: Path, others: Sequence[Path]) -> Loaded:
        """See `Layout.load`."""
        return _language_model(folder, signs_apart=True)

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, question: str, steps: Sequence[str]
    ) -> EncodedSolution:
        """See `Layout.encode`."""
        messages: list[dict[str, str]] = []
        beginnings = []
        for number, step in enumerate(steps):
            messages.append({"role": "user", "content": step if number else f"{question} {step}"})
            beginnings.append(chat_text(tokenizer, messages, add_generation_prompt=True))
            messages.append({"role": "assistant", "content": "+"})
        if not steps:
            return EncodedSolution((), 0, ())
        text = chat_text(tokenizer, messages)
        if not all(text.startswith(f"{beginning}+") for beginning in beginnings):
            raise LayoutError(f"{tokenizer.name_or_path}: its chat template writes turns in another way")
        return encode_text(tokenizer, text, [len(beginning) for beginning in beginnings], special=False)


def _language_model(folder: Path, signs_apart: bool) -> Loaded:
    """A language model as a classifier of `+` over `-`.

    Args:
        signs_apart: take the two tokens of the texts `+` and `-` alone, not of `+ -`.
    """
    from e2h_pipeline.models.load import load_policy
    from e2h_pipeline.rewards.verdicts import verdict_scorer

    model, tokenizer = load_policy(folder)
    return Loaded(verdict_scorer(model, *_signs(tokenizer, signs_apart)), tokenizer)


def _signs(tokenizer: PreTrainedTokenizerBase, apart: bool) -> tuple[int, int]:
    """Ids of the two signs, as the published code finds them."""
    if apart:
        plus, minus = (tokenizer("+", add_special_tokens=False), tokenizer("-", add_special_tokens=False))
        return int(plus["input_ids"][-1]), int(minus["input_ids"][-1])
    ids = tokenizer("+ -", add_special_tokens=False)["input_ids"]
    if len(ids) != 2:
        raise LayoutError(f"{tokenizer.name_or_path}: '+ -' is {len(ids)} tokens, and must be two")
    return int(ids[0]), int(ids[1])
