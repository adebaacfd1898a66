"""Frozen lower layers, computed once: their output is kept on disk and read in every epoch.

Below the lowest trained layer, a document gives the same hidden states in every epoch, in every fold
and at every learning rate. So the boundary, the input of the lowest trained layer, is computed once
for each document and kept in the stage's work folder. In training the layers below are passed
through, and the stored states take the place of their output, at the model's own lowest trained
layer: its positions, masks and layer numbers stay as they are.

Attention is causal, so a document that is the beginning of another has the same states: it takes
its part of the longer one's (PRM800K's rows share prefixes).

States are float32 files of numpy (tokens x width x 4 bytes), written whole or not at all; after a
kill, the missing ones are computed.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.models.adapters import decoder_layers
from e2h_pipeline.models.probes import TOKENS, agree
from e2h_pipeline.training.batches import BOUNDARY, Example, documents, from_boundary, given_states

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel

    from e2h_pipeline.artifacts.reporter import Reporter

_SHARD_TOKENS = 65_536  # of a file
BATCH_TOKENS = 4096
"""Rows x length of a forward pass over documents."""
_NAME = "boundary-{:05d}.npy"


@dataclass(frozen=True)
class Boundary:
    """The kept states of documents.

    Attributes:
        places: of each document, by the hash of its tokens: file, and first and last row in it.
    """

    places: Mapping[bytes, tuple[Path, int, int]]

    def of(self, example: Example) -> NDArray[np.float32]:
        """The states of an example, (tokens, width); of several documents end to end."""
        parts = []
        for document in documents(example):
            file, start, stop = self.places[_hash(document["input_ids"])]
            parts.append(np.load(file, mmap_mode="r", allow_pickle=False)[start:stop])
        return np.concatenate(parts)


class WithBoundary:
    """Examples with their states in the column `BOUNDARY`, read when an example is asked for."""

    def __init__(self, examples: Sequence[Example], boundary: Boundary) -> None:
        self._examples, self._boundary = examples, boundary

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._examples[index]
        return {**example, BOUNDARY: self._boundary.of(example)}


def keep_states(
    model: PreTrainedModel,
    examples: Sequence[Example],
    folder: Path,
    reporter: Reporter,
    mixed_precision: bool = False,
) -> Boundary:
    """The states that a head reads, of every document: what comes out of the model's body. As
    `keep_boundary`."""
    return _keep(model, None, examples, folder, reporter, mixed_precision)


def keep_boundary(
    model: PreTrainedModel,
    layers: int,
    examples: Sequence[Example],
    folder: Path,
    reporter: Reporter,
    mixed_precision: bool = False,
) -> Boundary:
    """Compute the states below layer `layers` (from 0) for every document, where `folder` lacks them.

    Args:
        model: before training, in eval mode.
        folder: holds the states of this model and these examples only.
        mixed_precision: multiply in bfloat16, as the training will (`trainer.multiplies_in_bfloat16`).

    Raises:
        ValueError: no layer is left above, or the model cannot go on from its own states.
    """
    _require_split(model, layers)
    return _keep(model, layers, examples, folder, reporter, mixed_precision)


def _keep(
    model: PreTrainedModel,
    layers: int | None,
    examples: Sequence[Example],
    folder: Path,
    reporter: Reporter,
    mixed_precision: bool,
) -> Boundary:
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    texts = [document["input_ids"] for example in examples for document in documents(example)]
    whole, inside = _without_beginnings(texts)
    shards = _shards(whole)
    total, done = sum(map(len, whole)), 0
    places: dict[bytes, tuple[Path, int, int]] = {}
    for number, shard in enumerate(shards):
        file = folder / _NAME.format(number)
        if not file.is_file():
            with torch.autocast(model.device.type, torch.bfloat16, enabled=mixed_precision):
                _write(file, _states(model, layers, shard))
        start = 0
        for text in shard:
            places[_hash(text)] = (file, start, start + len(text))
            start += len(text)
        done += start
        reporter.progress(
            done, total, "tokens through the model" if layers is None else "tokens through the frozen layers"
        )
    for short, long in inside.items():
        file, start, _ = places[_hash(long)]
        places[_hash(short)] = (file, start, start + len(short))
    return Boundary(places)


@contextmanager
def passing(model: PreTrainedModel, layers: int) -> Iterator[None]:
    """Inside the block, the model's lowest `layers` layers do nothing, and the layer above them takes
    the states of `from_boundary`. Nothing changes with `layers` 0."""
    if not layers:
        yield
        return
    found = decoder_layers(model)
    kept = [layer.forward for layer in found[:layers]]
    for layer in found[:layers]:
        layer.forward = _pass_through(layer)

    def give(_layer: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        states = given_states()
        if states is None:
            raise ValueError("this batch has no states of the frozen layers")
        given = args[0] if args else kwargs["hidden_states"]
        states = states.to(given.device, given.dtype)
        return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

    hook = found[layers].register_forward_pre_hook(give, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        for layer, forward in zip(found[:layers], kept, strict=True):
            layer.forward = forward


def _pass_through(layer: Module) -> Any:
    """A forward that returns its input, in the form in which the layer returns its output."""
    import inspect

    returns = str(inspect.signature(type(layer).forward).return_annotation)
    alone = "uple" not in returns

    def forward(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return hidden_states if alone else (hidden_states,)

    return forward


def _require_split(model: PreTrainedModel, layers: int) -> None:
    """Refuse a model that does not give the same from its own states.

    Raises:
        ValueError: see `keep_boundary`.
    """
    import torch

    count = len(decoder_layers(model))
    if not 0 < layers < count:
        raise ValueError(
            f"cache_frozen: frozen_layers is {layers}, and must be between 1 and {count - 1} "
            f"({type(model).__name__} has {count} layers)"
        )
    ids = torch.tensor([TOKENS], device=model.device)
    with torch.inference_mode():
        states = torch.from_numpy(_states(model, layers, [TOKENS]))[None]
        plain = model(input_ids=ids, use_cache=False).logits
        try:
            with passing(model, layers), from_boundary(states):
                found = model(input_ids=ids, use_cache=False).logits
        except (KeyError, RuntimeError, TypeError, ValueError, IndexError) as error:
            raise ValueError(_refusal(model)) from error
    # A new head scores everything 0, which proves nothing: hidden states are compared too.
    if not agree(found, plain) or not _same_hidden(model, layers, ids, states):
        raise ValueError(_refusal(model))


def _same_hidden(model: PreTrainedModel, layers: int, ids: Tensor, states: Tensor) -> bool:
    import torch

    with torch.inference_mode():
        plain = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        with passing(model, layers), from_boundary(states):
            found = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return agree(found, plain)


def _refusal(model: PreTrainedModel) -> str:
    return f"{type(model).__name__} cannot go on from the output of its frozen layers: set cache_frozen=false"


def _states(
    model: PreTrainedModel, layers: int | None, texts: Sequence[Sequence[float]]
) -> NDArray[np.float32]:
    """The input of layer `layers`, or what comes out of the body where None, for documents, end to
    end, (tokens, width). Longest first, padded on the right; causal attention never looks there."""
    import torch

    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    found: dict[int, NDArray[np.float32]] = {}
    while order:
        rows = max(1, BATCH_TOKENS // len(texts[order[0]]))
        batch, order = order[:rows], order[rows:]
        longest = len(texts[batch[0]])
        ids = torch.tensor([[*map(int, texts[i]), *[0] * (longest - len(texts[i]))] for i in batch])
        with torch.inference_mode():
            states = _input_of(model, layers, ids.to(model.device)).float().cpu().numpy()
        for row, i in enumerate(batch):
            found[i] = states[row, : len(texts[i])]
    return np.concatenate([found[i] for i in range(len(texts))])


class _Reached(Exception):
    """The forward pass has come to the layer that was asked for."""


def _input_of(model: PreTrainedModel, layer: int | None, ids: Tensor) -> Tensor:
    """The input of a decoder layer, and what is above it is not computed; of the head where None."""
    if layer is None:
        return model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    caught: list[Tensor] = []

    def catch(_layer: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    hook = decoder_layers(model)[layer].register_forward_pre_hook(catch, with_kwargs=True)
    try:
        model.base_model(input_ids=ids, use_cache=False)
    except _Reached:
        pass
    finally:
        hook.remove()
    return caught[0]


def _without_beginnings(
    texts: Sequence[Sequence[float]],
) -> tuple[list[tuple[int, ...]], dict[tuple[int, ...], tuple[int, ...]]]:
    """Distinct documents that are no beginning of another, longest first, and for each other
    document one that begins with it."""
    distinct = sorted({tuple(map(int, text)) for text in texts})
    whole: list[tuple[int, ...]] = []
    inside: dict[tuple[int, ...], tuple[int, ...]] = {}
    longer: tuple[int, ...] = ()
    for text in reversed(distinct):  # what begins with a text comes right before it
        if longer[: len(text)] == text:
            inside[text] = longer
        else:
            whole.append(text)
            longer = text
    return sorted(whole, key=lambda text: (-len(text), text)), inside


def _shards(texts: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Documents of like length together, about `_SHARD_TOKENS` in each."""
    shards: list[list[tuple[int, ...]]] = []
    room = 0
    for text in texts:
        if room < len(text):
            shards.append([])
            room = _SHARD_TOKENS
        shards[-1].append(text)
        room -= len(text)
    return shards


def _write(file: Path, states: NDArray[np.float32]) -> None:
    temporary = file.with_suffix(".tmp")
    with temporary.open("wb") as out:
        np.save(out, states, allow_pickle=False)
        out.flush()
        os.fsync(out.fileno())
    temporary.rename(file)


def _hash(text: Sequence[float]) -> bytes:
    return hashlib.blake2b(array("q", map(int, text)).tobytes(), digest_size=16).digest()
