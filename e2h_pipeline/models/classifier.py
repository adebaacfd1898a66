"""The class of an evaluator: a causal model's body with one score per token.

transformers has `*ForTokenClassification` for some architectures. For the others we make the same
class from its own parts: the body that `AutoModel` makes, and `GenericForTokenClassification`. So
the saved folder is an ordinary one, and a few lines load it without this project (docs/models.md).

The head is called `score` in most classes and `classifier` in GPT-2's, so nothing here or elsewhere
asks for it by name.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear
    from transformers import PretrainedConfig, PreTrainedModel


LABEL = "right"


class NoEvaluator(ValueError):
    """An architecture that no evaluator can be made of; the message says why."""


def classifier_class(config: PretrainedConfig) -> Any:
    """The token-classification class of an architecture: its own, or one made of its parts.

    Raises:
        NoEvaluator: transformers has no body of this architecture.
    """
    from transformers import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING

    if type(config) in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING:
        return MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING[type(config)]
    kind: Any = type(config)
    return _made_class(kind)


@cache
def _made_class(config: Any) -> Any:
    from transformers import MODEL_MAPPING, PreTrainedModel
    from transformers.modeling_layers import GenericForTokenClassification
    from transformers.modeling_outputs import TokenClassifierOutput

    if config not in MODEL_MAPPING:
        raise NoEvaluator(f"{config.__name__}: transformers has no model of this kind without its own code")
    body = MODEL_MAPPING[config]
    # The family's own ancestor: it knows how weights are initialised and which names they have.
    family = next(parent for parent in body.__mro__[1:] if issubclass(parent, PreTrainedModel))

    def forward(self: Any, input_ids: Tensor, **inputs: Any) -> TokenClassifierOutput:
        # Unlike the generic one, for bodies whose output has no attentions too (Mamba).
        found = getattr(self, self.base_model_prefix)(input_ids, **inputs)
        return TokenClassifierOutput(
            logits=self.score(found.last_hidden_state), hidden_states=found.get("hidden_states")
        )

    own = {
        "base_model_prefix": family.base_model_prefix,
        "config_class": config,
        "forward": forward,
        "__module__": body.__module__,  # transformers reads what a model can do from its module
    }
    name = f"{config.__name__.removesuffix('Config')}ForTokenClassification"
    return type(name, (GenericForTokenClassification, family), own)


def score_head(model: PreTrainedModel) -> Linear:
    """The layer that makes scores of hidden states."""
    return getattr(model, score_head_name(model))


def score_head_name(model: PreTrainedModel) -> str:
    """The name of `score_head`.

    Raises:
        NoEvaluator: the model has no such layer, or several.
    """
    from torch.nn import Linear

    heads = [name for name, module in model.named_children() if isinstance(module, Linear)]
    if len(heads) != 1:
        raise NoEvaluator(f"{type(model).__name__} has {len(heads)} linear heads, not one")
    return heads[0]


def classifier(source: PreTrainedModel, weight: Tensor, bias: Tensor) -> PreTrainedModel:
    """An evaluator of the body of another model, which is used up, and a head of its own.

    Args:
        weight: (1, width) of the head.
        bias: (1,) of the head; left out where heads of this architecture have none.

    Raises:
        NoEvaluator: no evaluator can be made of this architecture.
    """
    from torch.nn import Parameter

    config = source.config
    config.num_labels, config.classifier_dropout, config.token_classification_bias = 1, 0.0, True
    name_label(config)
    model = skeleton(config)
    if type(model.base_model) is not type(source.base_model):
        raise NoEvaluator(
            f"{type(source).__name__}: its body is a {type(source.base_model).__name__}, and a token classifier "
            f"would have a {type(model.base_model).__name__}"
        )
    setattr(model, model.base_model_prefix, source.base_model)
    model.config = config  # one for head and body, so that a change of the attention reaches both
    head = score_head(model)
    head.weight = Parameter(weight.to(source.dtype))
    if head.bias is not None:
        head.bias = Parameter(bias.to(source.dtype))
    return model


def name_label(config: PretrainedConfig) -> None:
    """Say in a config what its one score is of; transformers would call it LABEL_0."""
    config.id2label, config.label2id = {0: LABEL}, {LABEL: 0}


def scoring_over(model: PreTrainedModel) -> PreTrainedModel:
    """A classifier with a head of zeros over the body of a model, which both share from then on.

    Raises:
        NoEvaluator: no evaluator can be made of this architecture.
    """
    import torch

    source = copy.copy(model)
    source.config = copy.deepcopy(model.config)  # the model's own still says what the model is
    width = model.config.get_text_config().hidden_size
    return classifier(
        source, torch.zeros(1, width, device=model.device), torch.zeros(1, device=model.device)
    ).eval()


def skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """The token-classification model of an architecture without memory for its weights.

    Raises:
        NoEvaluator: as `classifier_class`.
    """
    import torch

    with torch.device("meta"):
        return classifier_class(config)._from_config(config)
