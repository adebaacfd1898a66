r"""Implicit process reward models (Yuan et al. 2024, arXiv 2412.01981; EurusPRM of PRIME).

The reward of a solution up to a step is beta times the sum over its tokens of log pi / pi_ref, of two
language models: the evaluator and the one that it was trained from. Its sigmoid is the probability that
the evaluator was trained on. The tokens are those of the model's chat template with the steps joined by
blank lines.

As in the script of EurusPRM's model card, the sum begins with the last token of the assistant's
heading, and goes one token beyond the step: the first of the next step, or the end of turn. So a score
knows a little of what follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.rewards.outside.layout import Layout, LayoutError, Loaded, chat_text, encode_text
from e2h_pipeline.solutions import EncodedSolution

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BETA = 0.001  # of the model card
_BETWEEN = "\n\n"


class Implicit(Layout):
    """The log ratio of two language models.

    Attributes:
        reference: folder or Hub name of the model that the evaluator was trained from.
        beta: coefficient of the log ratio.
    """

    def __init__(self, reference: str, beta: float = BETA) -> None:
        self.reference, self.beta = reference, beta

    def folders(self) -> tuple[str, ...]:
        """See `Layout.folders`."""
        return (self.reference,)

    def load(self, folder: Path, others: Sequence[Path]) -> Loaded:
        """See `Layout.load`."""
        from e2h_pipeline.models.load import load_policy

        model, tokenizer = load_policy(folder)
        reference, own = load_policy(others[0])
        if own.get_vocab() != tokenizer.get_vocab():
            raise LayoutError(
                f"{others[0]}: another vocabulary than {folder}, so there is no ratio of tokens"
            )
        return Loaded(model, tokenizer, reference)

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, question: str, steps: Sequence[str]
    ) -> EncodedSolution:
        """See `Layout.encode`; `prompt_tokens` are those up to the first step."""
        asked = [{"role": "user", "content": question}]
        heading = chat_text(tokenizer, asked, add_generation_prompt=True)
        content = _BETWEEN.join(steps)
        text = chat_text(tokenizer, [*asked, {"role": "assistant", "content": content}])
        if not text.startswith(heading + content):
            raise LayoutError(f"{tokenizer.name_or_path}: its chat template changes the text of a solution")
        ends, at = [], len(heading)
        for step in steps:
            at = min(at + len(step) + len(_BETWEEN), len(heading) + len(content))
            ends.append(at)
        found = encode_text(tokenizer, text, [len(heading), *ends], special=False)
        return EncodedSolution(found.input_ids, found.segment_ends[0] + 1, found.segment_ends[1:])

    def logits(
        self, loaded: Loaded, encoded: Sequence[EncodedSolution], batch_tokens: int
    ) -> list[list[float]]:
        """See `Layout.logits`. One solution at a time: the logits of a whole vocabulary are large."""
        return [self._ratios(loaded, one) for one in encoded]

    def _ratios(self, loaded: Loaded, one: EncodedSolution) -> list[float]:
        import torch

        if not one.segment_ends:
            return []
        reference = loaded.extra
        if reference is None:
            raise LayoutError("an implicit evaluator is read beside the model that it was trained from")
        with torch.inference_mode():
            ids = torch.tensor([one.input_ids], device=loaded.model.device)
            ratio = _log_probabilities(loaded.model, ids) - _log_probabilities(reference, ids)
            # Item i is of token i + 1; the sum begins with the last token of the heading.
            sums = (self.beta * ratio[one.prompt_tokens - 2 :]).cumsum(0)
        last = len(ratio) - 1
        return [float(sums[min(end, last) - one.prompt_tokens + 2]) for end in one.segment_ends]


def _log_probabilities(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Log probability of each token but the first, (length - 1,), in float32."""
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    found: Tensor = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return found
