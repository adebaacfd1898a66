"""Opens a model with the engine of a word."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from e2h_pipeline.generation.engines.protocol import Engine, EngineEntry
from e2h_pipeline.registry import ENGINES


def load_engine(word: str, model: Path) -> Engine:
    """The engine of a word, with the model of a Hugging Face folder.

    Raises:
        RegistryError: there is no such engine.
    """
    entry: EngineEntry = ENGINES.load(word)()
    return entry.open(model)


@lru_cache(maxsize=1)
def cached_engine(word: str, model: Path) -> Engine:
    """`load_engine` once for all shards that a process draws from one model, one after the
    other."""
    return load_engine(word, model)
