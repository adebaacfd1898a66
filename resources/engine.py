"""The engine that samples on this host. All engines write the same artifacts."""

from __future__ import annotations

import os

import dagster as dg
from pydantic import field_validator

from e2h_pipeline.registry import ENGINES


class EngineResource(dg.ConfigurableResource):
    """The engine of the sampling stages, by its name in the registry."""

    name: str = "transformers"

    @classmethod
    def from_environment(cls) -> EngineResource:
        """The engine that E2H_ENGINE names.

        Raises:
            pydantic.ValidationError: there is no such engine; the message lists the engines.
        """
        return cls(name=os.environ.get("E2H_ENGINE", "transformers"))

    @field_validator("name")
    @classmethod
    def _is_there(cls, word: str) -> str:
        if word not in ENGINES.words():
            raise ValueError(f"no engine '{word}' (E2H_ENGINE); there are {', '.join(ENGINES.words())}")
        return word

    def version(self) -> dict[str, str]:
        """The engine's part of the key of samples; its code is in the code version.

        In float32 all engines draw the same samples, apart from rounding. In bfloat16 they differ,
        and so do two versions of one engine.

        Raises:
            ValueError: the engine cannot run here; the message names the mend.
        """
        return {"name": self.name, **ENGINES.load(self.name)().version()}
