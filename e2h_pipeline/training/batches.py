"""Examples as batches, padded or packed, and the forward pass over either.

An example is one document, or several that must stay together (the two solutions of a pair): its
columns hold the documents end to end, `lengths` says where they end. Padded, each document is a
row. Packed, all documents of a micro-batch stand in one row, positions start again with each, and
attention stays within a document (`packed_attention`), so the loss is that of the padded batch.

The packing trap: transformers keeps packed documents apart only where it is given no mask and no
cache; the plain call `model(input_ids=..., position_ids=...)` with a cache lets each document read
the ones before it, without a warning. Here attention does not depend on a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from e2h_pipeline.models.probes import MORE_THAN_PLAIN, TOKENS, agree, in_float32, window
from e2h_pipeline.training.next_token import IGNORED

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from transformers.utils import ModelOutput

Example = Mapping[str, Sequence[float]]
WEIGHTS = "weights"  # column of examples: weight of each label; left out where all count alike
BOUNDARY = "boundary"  # column of examples: states of the frozen layers, a vector for each token
_PACKED = "e2h_packed"  # the name of our attention in transformers' registry
_MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids", "document_lengths")


def run_model(model: PreTrainedModel, batch: Mapping[str, Any], **options: Any) -> ModelOutput:
    """The forward pass over a batch of `collate`; `options` go to the model
    (`output_hidden_states=True`)."""
    inputs = {name: batch[name] for name in _MODEL_INPUTS if name in batch}
    with from_boundary(batch.get(BOUNDARY)):
        return model(**inputs, use_cache=False, **options)


_STATES: ContextVar[torch.Tensor | None] = ContextVar("states of the frozen layers", default=None)


@contextmanager
def from_boundary(states: torch.Tensor | None) -> Iterator[None]:
    """Inside the block, a model that passes through its frozen layers takes these states (rows,
    length, width)."""
    token = _STATES.set(states)
    try:
        yield
    finally:
        _STATES.reset(token)


def given_states() -> torch.Tensor | None:
    """The states of `from_boundary`."""
    return _STATES.get()


def documents(example: Example) -> list[dict[str, Sequence[float]]]:
    """The documents of an example, each with all its columns."""
    found, start = [], 0
    columns = {name: values for name, values in example.items() if name != "lengths"}
    for length in example.get("lengths", (len(example["input_ids"]),)):
        stop = start + int(length)
        found.append({name: values[start:stop] for name, values in columns.items()})
        start = stop
    return found


def together(*examples: Example) -> dict[str, Sequence[float]]:
    """One example whose documents always share a micro-batch, in this order."""
    joined: dict[str, Sequence[float]] = {
        name: [value for example in examples for value in example[name]] for name in examples[0]
    }
    return {**joined, "lengths": [len(example["input_ids"]) for example in examples]}


def collate(pad_id: int, packing: bool) -> Callable[[Sequence[Example]], dict[str, Any]]:
    """A function that makes a batch of examples.

    Returns {"input_ids", "labels", other columns: (rows, length)} with "attention_mask" where
    padded, and "position_ids" and "document_lengths" where packed (one row).
    """
    return _pack if packing else lambda examples: _pad(examples, pad_id)


def _pad(examples: Sequence[Example], pad_id: int) -> dict[str, Any]:
    import torch

    rows = [document for example in examples for document in documents(example)]
    longest = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": pad_id, "labels": IGNORED}
    batch = {
        name: torch.tensor([[*row[name], *[fill.get(name, 0)] * (longest - len(row[name]))] for row in rows])
        for name in rows[0]
        if name != BOUNDARY
    }
    if BOUNDARY in rows[0]:
        states = [torch.as_tensor(row[BOUNDARY]) for row in rows]
        batch[BOUNDARY] = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
    lengths = [len(row["input_ids"]) for row in rows]
    mask = torch.tensor([[1] * length + [0] * (longest - length) for length in lengths])
    return {**batch, "attention_mask": mask}


def _pack(examples: Sequence[Example]) -> dict[str, Any]:
    import torch

    rows = [document for example in examples for document in documents(example)]
    lengths = [len(row["input_ids"]) for row in rows]
    batch = {
        name: torch.tensor([[value for row in rows for value in row[name]]])
        for name in rows[0]
        if name != BOUNDARY
    }
    if BOUNDARY in rows[0]:
        batch[BOUNDARY] = torch.cat([torch.as_tensor(row[BOUNDARY]) for row in rows])[None]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    return {**batch, "position_ids": positions, "document_lengths": lengths}


@contextmanager
def packed_attention(model: PreTrainedModel, wanted: bool = True) -> Iterator[None]:
    """Inside the block the model's attention keeps packed documents apart; `wanted=False` changes
    nothing.

    Raises:
        ValueError: the model's attention does not keep packed documents apart, or has sliding windows.
    """
    if not wanted:
        yield
        return
    from transformers import AttentionInterface

    if window(model.config):
        raise _no_packing(model, "has sliding-window attention")
    before = model.config._attn_implementation
    AttentionInterface.register(_PACKED, _document_attention)
    model.set_attn_implementation(_PACKED)
    try:
        if not _kept_apart(model):
            raise _no_packing(model, "has an attention of its own")
        yield
    finally:
        model.set_attn_implementation(before)


def _no_packing(model: PreTrainedModel, reason: str) -> ValueError:
    return ValueError(
        f"{type(model).__name__} {reason}, which packing does not support: set packing=false in its section of the "
        "recipe"
    )


def _kept_apart(model: PreTrainedModel) -> bool:
    """Whether the second of two packed documents comes out as it does alone. Models that make their
    own attention ignore ours, and models with ALiBi ignore positions; neither says so."""
    import torch

    if any(parameter.is_meta for parameter in model.parameters()):
        return True  # weights come later, from the process that has them
    documents = [{"input_ids": TOKENS}, {"input_ids": TOKENS[::-1]}]
    training = model.training
    try:
        model = in_float32(model)
        model.eval()
        with torch.inference_mode():
            both, alone = (_last_hidden(model, _pack(some)) for some in (documents, documents[1:]))
    except (RuntimeError, TypeError, ValueError):  # it has no place for what we hand to attention
        return False
    finally:
        model.train(training)
    return agree(both[:, len(TOKENS) :], alone)


def _last_hidden(model: PreTrainedModel, batch: Mapping[str, Any]) -> torch.Tensor:
    on_device = {
        name: value if name == "document_lengths" else value.to(model.device) for name, value in batch.items()
    }
    return run_model(model, on_device, output_hidden_states=True).hidden_states[-1]


def _document_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    document_lengths: Sequence[int] = (),
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document of one row.

    A document at a time needs no mask of length x length, costs nothing between documents, and runs
    the fused kernel on every device.

    Args:
        query: (1, heads, tokens, width); key and value may have fewer heads.
        document_lengths: tokens of each document, in order.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    if asked := [name for name in MORE_THAN_PLAIN if more.get(name) is not None]:
        raise ValueError(f"{type(module).__name__} attends with {', '.join(asked)}")
    parts = zip(*(t.split(list(document_lengths), 2) for t in (query, key, value)), strict=True)
    attended = [
        scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=q.shape[1] != k.shape[1]
        )
        for q, k, v in parts
    ]
    return torch.cat(attended, 2).transpose(1, 2), None
