"""TODO: docstring."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.generation.engines.protocol import Engine

if TYPE_CHECKING:
    pass


def load_engine(name: str, model: Path) -> Engine:
    """The engine named by the recipe or the resource, over a Hugging Face folder.

    Raises:
        ValueError: there is no such engine.
    """
    if name == "transformers":
        from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
        from e2h_pipeline.models.load import load_policy

        return TransformersEngine(*load_policy(model))
    if name == "vllm":
        from e2h_pipeline.generation.engines.vllm_engine import VllmEngine

        return VllmEngine(model)
    raise ValueError(f"no engine '{name}': there are transformers and vllm")


@lru_cache(maxsize=1)
def cached_engine(name: str, model: Path) -> Engine:
    """`load_engine` once for all shards that a process draws from one model, one after the other."""
    return load_engine(name, model)
