"""Qwen2.5-Math-PRM (Zhang et al. 2025, arXiv 2501.07301).

The conversation ends with an answer whose steps are each followed by `<extra_0>`. The head is two
linear layers with a ReLU between, on that token; of its two labels the second is "right", and the
softmax of both is the step's reward (`make_step_rewards` of the model card). The released code makes
the head in a file of its own, which is not run here: the body is an ordinary Qwen2, and the head is
made of the tensors `score.0` and `score.2`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.rewards.outside.layout import (
    Layout,
    LayoutError,
    Loaded,
    chat_text,
    encode_text,
    load_body,
    one_token,
    without,
)
from e2h_pipeline.solutions import EncodedSolution

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TAG = "<extra_0>"
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
_HEAD = ("score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias")


class QwenPrm(Layout):
    """Two labels on a step tag, and a head of two layers.

    Attributes:
        system: the system prompt.
    """

    def __init__(self, system: str = SYSTEM) -> None:
        self.system = system

    @classmethod
    def fits(cls, config: Mapping[str, Any]) -> bool:
        """See `Layout.fits`."""
        return "Qwen2ForProcessRewardModel" in (config.get("architectures") or ())

    def load(self, folder: Path, others: Sequence[Path]) -> Loaded:
        """See `Layout.load`."""
        from transformers import AutoTokenizer

        from e2h_pipeline.models.classifier import classifier
        from e2h_pipeline.models.load import device

        tokenizer = AutoTokenizer.from_pretrained(folder)
        one_token(tokenizer, TAG)
        body, head = load_body(folder, _HEAD)
        last, bias = head["score.2.weight"], head["score.2.bias"]
        if len(last) != 2:
            raise LayoutError(f"{folder}: the head has {len(last)} labels; wrong and right are expected")
        model = classifier(body, last[1:] - last[:1], bias[1:] - bias[:1])
        _insert(model, head["score.0.weight"], head["score.0.bias"])
        return Loaded(model.to(device()).eval(), tokenizer)

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, question: str, steps: Sequence[str]
    ) -> EncodedSolution:
        """See `Layout.encode`."""
        content, ends = "", []
        for step in steps:
            content += without(step, TAG) + TAG
            ends.append(len(content))
        messages = [
            {"role": "system", "content": self.system},
            {"role": "user", "content": without(question, TAG)},
            {"role": "assistant", "content": content},
        ]
        text = chat_text(tokenizer, messages)
        start = text.rfind(content.lstrip())
        if start < 0:
            raise LayoutError(f"{tokenizer.name_or_path}: its chat template changes the text of a solution")
        start -= len(content) - len(content.lstrip())
        return encode_text(tokenizer, text, [start + end for end in ends], special=False)


def _insert(model: PreTrainedModel, weight: Tensor, bias: Tensor) -> None:
    """Put the head's first layer and its ReLU behind the body, so that one linear layer remains."""
    from torch import nn

    first = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    first.weight.data, first.bias.data = weight, bias
    body: Any = model.base_model
    body.add_module("score_first", first)

    def behind(module: Any, _: Any, output: Any) -> Any:
        hidden = module.score_first(output.last_hidden_state.to(module.score_first.weight.dtype))
        output.last_hidden_state = nn.functional.relu(hidden)
        return output

    body.register_forward_hook(behind)
