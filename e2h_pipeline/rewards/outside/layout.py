"""The protocol of layouts: how an evaluator that others have trained reads a solution, and its score.

A layout is one file here and one line of the registry. It reads the published files of the model, and
runs none of their code (`trust_remote_code` stays off): a head that only such code can make is made
here again from its tensors. All steps of a solution are scored by one forward pass. Scores are log
odds that a step is right, so that the sigmoid of a score is what the published code calls the step's
reward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.solutions import EncodedSolution

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


AUTO = "auto"
"""Instead of a layout's word: the one that config.json tells (`detected`)."""


class LayoutError(ValueError):
    """A model whose files do not fit the layout; the message says what is missing."""


@dataclass(frozen=True)
class Loaded:
    """An evaluator of others in memory.

    Attributes:
        model: a classifier with one score per token, as `score_all` wants it.
        extra: a further model that the layout needs.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    extra: PreTrainedModel | None = None

    @property
    def models(self) -> tuple[PreTrainedModel, ...]:
        """All of them."""
        return (self.model,) if self.extra is None else (self.model, self.extra)


class Layout(ABC):
    """How one family of evaluators is read. Options are those of its specification."""

    @classmethod
    def fits(cls, config: Mapping[str, Any]) -> bool:
        """Whether a config.json can be of no other layout; most layouts cannot be told so."""
        return False

    def folders(self) -> tuple[str, ...]:
        """Folders or Hub names of further models that it needs."""
        return ()

    @abstractmethod
    def load(self, folder: Path, others: Sequence[Path]) -> Loaded:
        """The model of a folder.

        Args:
            others: folders of `folders()`.

        Raises:
            LayoutError: the files do not fit.
        """

    @abstractmethod
    def encode(
        self, tokenizer: PreTrainedTokenizerBase, question: str, steps: Sequence[str]
    ) -> EncodedSolution:
        """Tokens of a solution, and the positions whose score is that of each step."""

    def logits(
        self, loaded: Loaded, encoded: Sequence[EncodedSolution], batch_tokens: int
    ) -> list[list[float]]:
        """The log odds of each step of each solution."""
        from e2h_pipeline.rewards.scoring import score_all

        return score_all(loaded.model, encoded, batch_tokens)


def encode_text(
    tokenizer: PreTrainedTokenizerBase, text: str, ends: Sequence[int], special: bool
) -> EncodedSolution:
    """A text as tokens, with the tokens that hold the last character before each of `ends`.

    Args:
        special: let the tokenizer add its tokens at the beginning and end.
    """
    from e2h_pipeline.solutions import segment_ends

    found = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    offsets = [(start, stop) for start, stop in found["offset_mapping"]]
    # Tokens that stand for no text, at the ends, have the range (0, 0).
    last = max((i for i, (start, stop) in enumerate(offsets) if stop > start), default=-1)
    positions = segment_ends(offsets[: last + 1], [(0, end) for end in ends])
    return EncodedSolution(tuple(found["input_ids"]), 0, tuple(positions))


def chat_text(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], **options: Any
) -> str:
    """A conversation as the model's own template writes it.

    Raises:
        LayoutError: the tokenizer has no template.
    """
    if not tokenizer.chat_template:
        raise LayoutError(f"{tokenizer.name_or_path}: no chat template, which this layout writes with")
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **options))


def one_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """The id of a text that must be one token.

    Raises:
        LayoutError: it is none, or several.
    """
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise LayoutError(f"{tokenizer.name_or_path}: {text!r} is {len(ids)} tokens, and must be one")
    return int(ids[0])


def without(text: str, tag: str) -> str:
    """A text without a tag that marks steps: in a model's own words it would be one more step."""
    while tag in text:
        text = text.replace(tag, "")
    return text


def load_body(
    folder: Path, head: Sequence[str], causal: bool = False
) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """A model without the head that transformers does not know, and the tensors of that head.

    Raises:
        LayoutError: a tensor is missing, of another shape, or of neither body nor head.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    kind = AutoModelForCausalLM if causal else AutoModel
    model, found = kind.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True)
    surplus = {name for name in found["unexpected_keys"] if name not in head and name != "lm_head.weight"}
    wrong = sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"]), *surplus})
    tensors = _tensors(folder, head)
    wrong += [name for name in head if name not in tensors]
    if wrong:
        raise LayoutError(
            f"{folder}: {', '.join(wrong[:5])} missing, of another shape, or not of this layout"
        )
    return model, tensors


def _tensors(folder: Path, names: Sequence[str]) -> dict[str, Tensor]:
    from safetensors import safe_open

    found: dict[str, Tensor] = {}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise LayoutError(f"{folder}: no *.safetensors file; convert the weights, pickles are not read")
    for file in files:
        with safe_open(file, "pt") as tensors:
            found |= {name: tensors.get_tensor(name) for name in names if name in tensors.keys()}  # noqa: SIM118
    return found
