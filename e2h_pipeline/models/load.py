"""Load policies and evaluators from Hugging Face folders onto the device at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def device() -> str:
    """ "cuda" where there is a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_policy(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer, in eval mode."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    return model.to(device()).eval(), AutoTokenizer.from_pretrained(folder)


def load_evaluator(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A token-classification model with one score per token, and its tokenizer, in eval mode."""
    from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer

    # num_labels alone: a copied id2label of another length warns. The generic head drops out 0.1 by default.
    config = AutoConfig.from_pretrained(folder, num_labels=1)
    config.classifier_dropout = 0.0
    model = AutoModelForTokenClassification.from_pretrained(folder, config=config)
    return model.to(device()).eval(), AutoTokenizer.from_pretrained(folder)
