"""Models of the Hub: which base models are there, and whether this machine has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.models.base import local_source
from e2h_pipeline.models.gguf import gguf_of

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Base

_LOCAL = ("/", ".")  # how the name of a folder begins that is no Hub's
_WEIGHTS = (".safetensors", ".bin", ".gguf")


def hub_name(base: Base) -> str:
    """The name of a recipe's base model on the Hub; empty where it comes from elsewhere."""
    elsewhere = base.train or local_source(base) is not None or gguf_of(base) is not None
    return "" if elsewhere or not may_be_hub(base.model) else base.model


def may_be_hub(name: str) -> bool:
    """Whether a name is not that of a file or folder."""
    return not name.startswith(_LOCAL) and not Path(name).exists()


def cached(name: str, revision: str | None) -> bool:
    """Whether the Hub's cache has a model: its config, and weights of any format."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    return isinstance(config, str) and any(file.suffix in _WEIGHTS for file in Path(config).parent.iterdir())
