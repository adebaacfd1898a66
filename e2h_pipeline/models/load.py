"""Load policies and evaluators from Hugging Face folders onto the device at hand.

An evaluator is a causal model with one raw score per token, `*ForTokenClassification` with one
label. Two other kinds of checkpoint are turned into one while they are loaded, and none of their
code is run:

- Two labels, wrong and right (TRL and others). The log odds are a linear head too: row 1 - row 0.
- A language-model head whose rows repeat the score over the vocabulary (the released
  `llemma-7b-prm-*`, whose score is the mean of the logits). The mean of the rows is the head.

What cannot be told from a folder stands in a file `evaluator.json` in it, see `EvaluatorFormat`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from e2h_pipeline.models.classifier import classifier, classifier_class, name_label, score_head
from e2h_pipeline.models.strict import load_strictly

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

FORMAT_FILE = "evaluator.json"
# Fields of the evaluator's config.json, so that a saved evaluator is read in the same way:
HEADING_FIELD = "prompt_heading"  # the heading it was trained with
STEP_END_FIELD = "step_end"  # the token of a step that it was trained to score
BOTH_WAYS_FIELD = "reads_both_ways"  # a labeller of whole solutions, which is no evaluator

Head = Literal["auto", "tiled"]
StepEnd = Literal["last", "first_newline"]
_CHOICES: dict[str, tuple[str, ...]] = {"head": get_args(Head), "step_end": get_args(StepEnd)}


@dataclass(frozen=True)
class EvaluatorFormat:
    """`evaluator.json`: how a checkpoint that was not made here is to be read.

    The released easy-to-hard checkpoints need `{"head": "tiled", "step_end": "first_newline",
    "tokenizer": "..."}` with the tokenizer of the model they were trained from.

    Attributes:
        head: "auto": the token-classification head of the checkpoint; "tiled": the score is the mean
            of the language-model logits.
        heading: first line of the prompt, where it is not the default.
        step_end: position that scores a step: its last token, or the first newline of the two that
            end it.
        tokenizer: folder or Hub name of the tokenizer, where the checkpoint has none.
    """

    head: Head = "auto"
    heading: str | None = None
    step_end: StepEnd = "last"
    tokenizer: str | None = None


def read_format(folder: Path) -> EvaluatorFormat:
    """The folder's `evaluator.json`; the defaults where it has none.

    Raises:
        ValueError: not JSON, an unknown field, or a value that is not allowed; names file and
            field.
    """
    file = Path(folder) / FORMAT_FILE
    if not file.is_file():
        return EvaluatorFormat()
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}: not JSON ({error.msg})") from None
    known = [f.name for f in fields(EvaluatorFormat)]
    if not isinstance(values, dict):
        raise ValueError(f"{file}: must be an object with fields {', '.join(known)}")
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{file}: no such field '{name}'; there are {', '.join(known)}")
        if not isinstance(value, str) or value not in _CHOICES.get(name, (value,)):
            allowed = ", ".join(_CHOICES.get(name, ("a text",)))
            raise ValueError(f"{file}: '{name}' is {value!r}; allowed: {allowed}")
    return EvaluatorFormat(**values)


def device() -> str:
    """ "cuda" where there is a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_policy(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer, in eval mode.

    Raises:
        WeightsError: its weights do not fit.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = load_strictly(AutoModelForCausalLM, folder)
    return model.to(device()).eval(), AutoTokenizer.from_pretrained(folder)


def load_evaluator(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A token-classification model with one score per token, and its tokenizer, in eval mode.

    Weights keep the number format they are stored in.

    Raises:
        ValueError: no head, a head that is not one linear score, or a bad `evaluator.json`.
        WeightsError: its weights do not fit.
    """
    from transformers import AutoConfig, AutoTokenizer

    form = read_format(folder)
    config = AutoConfig.from_pretrained(folder)
    if getattr(config, BOTH_WAYS_FIELD, False):
        raise ValueError(
            f"{folder}: this labeller reads later steps too, so it cannot judge a solution that goes on; take the "
            "evaluator that was trained on its labels"
        )
    if form.head == "tiled":
        model = _with_head(folder, _tiled_head)
    elif not _is_classifier(config):
        raise ValueError(
            f"{folder}: a language model without a head that scores tokens is no evaluator; train one from it "
            f"(reward.training.init), or name its head in {FORMAT_FILE}"
        )
    elif config.num_labels == 1:
        model = load_classifier(folder, 1)
    elif config.num_labels == 2:
        model = _with_head(folder, _odds_head)
    else:
        raise ValueError(
            f"{folder}: a head of {config.num_labels} labels is not one score per token; 1 (raw score) and "
            "2 (wrong, right) are"
        )
    if form.heading is not None:
        setattr(model.config, HEADING_FIELD, form.heading)
    if form.step_end != "last":
        setattr(model.config, STEP_END_FIELD, form.step_end)
    return model.to(device()).eval(), AutoTokenizer.from_pretrained(form.tokenizer or folder)


def new_evaluator(
    folder: Path, random_seed: int | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """An evaluator to be trained: the body of a causal language model and a head of zeros.

    Args:
        random_seed: draw the body's weights anew, by the architecture's own rule: a control that
            knows nothing of what the model has learned. None keeps its weights.

    Raises:
        NoEvaluator: no evaluator can be made of this architecture.
        WeightsError: its weights do not fit.
    """
    from transformers import AutoTokenizer

    model = _with_head(folder, _zero_head)
    if random_seed is not None:
        model.base_model.load_state_dict(_random_body(model, random_seed))
    return model.to(device()).eval(), AutoTokenizer.from_pretrained(folder)


def _random_body(model: PreTrainedModel, seed: int) -> dict[str, Tensor]:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = type(model.base_model)(copy.deepcopy(model.config))
    return {name: value.to(model.dtype) for name, value in fresh.state_dict().items()}


def load_classifier(folder: Path, labels: int = 1) -> PreTrainedModel:
    """The token-classification model of a folder, whatever its architecture."""
    config = _scoring_config(folder, labels)
    return load_strictly(classifier_class(config), folder, config=config)


def _is_classifier(config: PretrainedConfig) -> bool:
    return any("TokenClassification" in name or _WHOLE in name for name in config.architectures or ())


_WHOLE = "SequenceClassification"  # a head that was trained on whole texts; it has no bias


def _scoring_config(folder: Path, labels: int) -> PretrainedConfig:
    from transformers import AutoConfig

    # num_labels alone: a copied id2label of another length warns. The generic head has a dropout of
    # 0.1 by default.
    config = AutoConfig.from_pretrained(folder, num_labels=labels)
    config.classifier_dropout = 0.0
    if labels == 1:
        name_label(config)
    if any(_WHOLE in name for name in config.architectures or ()):
        config.token_classification_bias = False
    return config


def _with_head(
    folder: Path, make: Callable[[Path], tuple[PreTrainedModel, Tensor, Tensor]]
) -> PreTrainedModel:
    """An evaluator with the body of another model and a head of one row made from its head."""
    source, weight, bias = make(folder)
    return classifier(source, weight, bias)


def _zero_head(folder: Path) -> tuple[PreTrainedModel, Tensor, Tensor]:
    """A language model, and a head that scores everything 0."""
    import torch
    from transformers import AutoModelForCausalLM

    source = load_strictly(AutoModelForCausalLM, folder)
    return source, torch.zeros(1, source.config.get_text_config().hidden_size), torch.zeros(1)


def _tiled_head(folder: Path) -> tuple[PreTrainedModel, Tensor, Tensor]:
    """Mean of the rows of a language-model head: the mean of the logits is linear in the hidden
    state.

    Raises:
        ValueError: the rows do not repeat, so this is a language model and no evaluator.
    """
    import torch
    from transformers import AutoModelForCausalLM

    source = load_strictly(AutoModelForCausalLM, folder)
    head: Any = source.get_output_embeddings()
    weight = head.weight.data.float()
    if len(weight.unique(dim=0)) > _TILES:
        raise ValueError(
            f"{Path(folder) / FORMAT_FILE}: 'head' is tiled, but the rows of the language-model head differ from "
            "each other; this is not an evaluator of that kind"
        )
    bias = torch.zeros(1) if head.bias is None else head.bias.data.float().mean(0, keepdim=True)
    return source, weight.mean(0, keepdim=True), bias


_TILES = 2  # different rows in a tiled head (easy-to-hard, reward_model)


def _odds_head(folder: Path) -> tuple[PreTrainedModel, Tensor, Tensor]:
    """Log odds of "right" of a head with the labels wrong and right: difference of the two rows."""
    import torch

    source = load_classifier(folder, 2)
    head = score_head(source)
    weight = head.weight.data.float()
    bias = torch.zeros(2) if head.bias is None else head.bias.data.float()
    return source, weight[1:] - weight[:1], bias[1:] - bias[:1]
