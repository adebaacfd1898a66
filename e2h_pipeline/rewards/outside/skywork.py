"""Skywork-o1-Open-PRM (SkyworkAI/skywork-o1-prm-inference).

A language model with a value head (`v_head.summary`, one number per token) as in TRL's PPO. Tokens are
those of the beginning-of-sequence token, the problem and a line break, then of each step and a line
break, piece by piece (`prepare_input`); the sigmoid of the value at the line break is the step's reward
(`derive_step_rewards`). A line break inside a step would end it, so it becomes a blank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.rewards.outside.layout import Layout, Loaded, load_body
from e2h_pipeline.solutions import EncodedSolution

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_HEAD = ("v_head.summary.weight", "v_head.summary.bias")
_END = "\n"


class Skywork(Layout):
    """A value at the line break behind each step."""

    @classmethod
    def fits(cls, config: Mapping[str, Any]) -> bool:
        """See `Layout.fits`."""
        return any(str(name).endswith("ForPrmModel") for name in config.get("architectures") or ())

    def load(self, folder: Path, others: Sequence[Path]) -> Loaded:
        """See `Layout.load`."""
        from transformers import AutoTokenizer

        from e2h_pipeline.models.classifier import classifier
        from e2h_pipeline.models.load import device

        body, head = load_body(folder, _HEAD, causal=True)
        model = classifier(body, *(head[name] for name in _HEAD))
        return Loaded(model.to(device()).eval(), AutoTokenizer.from_pretrained(folder))

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, question: str, steps: Sequence[str]
    ) -> EncodedSolution:
        """See `Layout.encode`."""
        end = tokenizer.encode(_END)[-1]
        ids = list(tokenizer.encode(f"{tokenizer.bos_token or ''}{question}{_END}"))
        ends = []
        for step in steps:
            ids += [*tokenizer.encode(" ".join(step.splitlines())), end]
            ends.append(len(ids) - 1)
        return EncodedSolution(tuple(ids), 0, tuple(ends))
