"""The arithmetic of a model: floating-point operations for each token that it reads or draws."""

from __future__ import annotations

from pathlib import Path


def flops_per_token(folder: Path) -> int:
    """Two for each weight that a token is multiplied with (Kaplan et al. 2020, arXiv 2001.08361): all
    but the input embeddings, which are looked up. Attention over earlier tokens is left out: it is
    small for texts that are shorter than the model is wide times its layers.

    Args:
        folder: of a policy, or of an evaluator: a model with a head of its own, or several models in
            folders, which all read a token.
    """
    if (folder / "config.json").is_file():
        return _of_model(folder)
    return sum(_of_model(file.parent) for file in sorted(folder.glob("*/config.json")))


def _of_model(folder: Path) -> int:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    body = model.base_model.num_parameters() - model.get_input_embeddings().weight.numel()
    classifies = any("TokenClassification" in name for name in config.architectures or ())
    head = 0 if classifies else model.get_output_embeddings().weight.numel()
    return 2 * (body + head)
