"""Short runs of a model that show what its config does not say.

Whether attention is causal, and whether a model can do without a mask, is not written in a config.
A few tokens tell, in less than a second for a small model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

TOKENS = (3, 5, 2, 7, 4, 6)  # of a probe; any will do, and every vocabulary has them
# Arguments by which a model asks for more than plain attention.
MORE_THAN_PLAIN = ("softcap", "s_aux", "position_bias")
# Of a copy in float32.
_PROBED_LAYERS = 2
# Largest difference that is rounding, as a share of the largest value.
_ROUNDING, _ROUNDING_OF_HALVES = 1e-3, 5e-2


def agree(found: Tensor, expected: Tensor) -> bool:
    """Whether two results are equal but for rounding; NaN never is."""
    room = _ROUNDING if expected.element_size() > 2 else _ROUNDING_OF_HALVES
    difference, size = (found - expected).abs().max(), expected.abs().max()
    return bool(difference <= room * size)


def in_float32(model: PreTrainedModel) -> PreTrainedModel:
    """A float32 copy of the lowest layers of a model in 16 bits; a float32 model itself.

    Over thirty layers, the rounding of 16 bits can grow to a third of the result (SmolLM2-135M), and
    a probe could not tell it from another kind of attention.
    """
    import copy

    from torch.nn import ModuleList

    from e2h_pipeline.models.adapters import decoder_layers

    if model.dtype.itemsize > 2:
        return model
    try:
        layers = decoder_layers(model)
    except ValueError:  # no one list: a probe of the whole model must do
        return model
    parent, name = next(
        (m, name) for m in model.modules() for name, child in m.named_children() if child is layers
    )
    setattr(parent, name, ModuleList(layers[:_PROBED_LAYERS]))
    try:
        small = copy.deepcopy(model)
    finally:
        setattr(parent, name, layers)
    small.config.get_text_config().num_hidden_layers = len(layers[:_PROBED_LAYERS])
    return small.float()


def reads_ahead(model: PreTrainedModel) -> bool:
    """Whether outputs depend on later tokens, as in BERT: no such model can write a text, and no
    score of a step would be the same once another step follows."""
    import torch

    half = len(TOKENS) // 2
    ids = torch.tensor([TOKENS], device=model.device)
    with torch.inference_mode():
        short = model(input_ids=ids[:, :half], use_cache=False).logits
        whole = model(input_ids=ids, use_cache=False).logits
    return not agree(whole[:, :half], short)


def window(config: PretrainedConfig) -> int | None:
    """Tokens that the narrowest layer attends to; None where all layers attend to everything."""
    config = config.get_text_config()
    width = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    slides = getattr(config, "use_sliding_window", True) and (kinds is None or "sliding_attention" in kinds)
    return width if width and slides else None


def learned_positions(model: PreTrainedModel) -> int | None:
    """Positions that a model has learned a vector for, and beyond which it fails (GPT-2, OPT); None
    where positions are computed."""
    from torch.nn import Embedding

    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    words = model.get_input_embeddings()
    tables = [m for m in model.modules() if isinstance(m, Embedding) and m is not words]
    return most if any(m.num_embeddings - getattr(m, "offset", 0) == most for m in tables) else None
