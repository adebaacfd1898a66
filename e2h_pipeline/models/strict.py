"""Strict loading of weights: a checkpoint that does not fit its config is an error.

transformers fills missing tensors with random weights and only logs a warning, and it reads
tensors that are not numbers. Here both are errors that name file and tensor. Tied weights, which
are stored once, and buffers that a model computes itself are not missing (transformers knows both).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_NAMED = 3  # tensors that an error lists, at most
_MEND = "fetch the model again, or save it with the config.json that fits its weights"


class WeightsError(ValueError):
    """Weights that do not fit the model; the message names the file, the tensors and the mend."""


def load_strictly(kind: Any, source: str | Path, **options: Any) -> PreTrainedModel:
    """`kind.from_pretrained(source)`, where every tensor fits.

    Args:
        kind: a model class, or an Auto class of transformers.
        source: folder or Hub name.
        options: of `from_pretrained`.

    Raises:
        WeightsError: a tensor is missing, unexpected, of another shape, or not finite.
    """
    model, found = kind.from_pretrained(
        source, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    shapes = {
        name: f" {list(stored)} instead of {list(wanted)}"
        for name, stored, wanted in found["mismatched_keys"]
    }
    problems = {
        "is missing": found["missing_keys"],
        "is not part of the model": found["unexpected_keys"],
        "has another shape": {name + shape for name, shape in shapes.items()},
        "cannot be read": found["error_msgs"],
    }
    place = Path(source, options["gguf_file"]).resolve() if "gguf_file" in options else source
    for problem, names in problems.items():
        _require_none(place, problem, names)
    _require_none(place, "holds values that are not finite", _not_finite(model))
    return model


def _not_finite(model: PreTrainedModel) -> list[str]:
    """Names of weights with a NaN or an infinity. Weights without memory are not looked at."""
    return [
        name
        for name, tensor in model.named_parameters()
        if tensor.is_floating_point() and not tensor.is_meta and tensor.numel() and not _finite(tensor)
    ]


def _finite(tensor: Tensor) -> bool:
    """Whether all values are finite, by the extremes: both are NaN if any value is. Ten times as
    fast as a look at each value, which took longer than loading."""
    least, most = tensor.aminmax()
    return bool(least.isfinite() and most.isfinite())


def _require_none(source: str | Path, problem: str, names: Iterable[str]) -> None:
    found = sorted(names)
    if not found:
        return
    listed = ", ".join(found[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    raise WeightsError(f"{_file_of(source, found[0])}: {listed}{more} {problem}: {_MEND}")


def _file_of(source: str | Path, name: str) -> str:
    """The file with a tensor of a local model; where none has it, the only one, or the folder."""
    from safetensors import safe_open

    files = sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else []
    for file in files:
        with safe_open(file, "pt") as tensors:
            if name.split(" ")[0] in tensors.keys():  # noqa: SIM118 (not a mapping)
                return str(file)
    return str(files[0] if len(files) == 1 else source)
