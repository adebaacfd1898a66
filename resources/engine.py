"""Which engine of this host samples. All engines write the same artifacts."""

from __future__ import annotations

import os

import dagster as dg
from pydantic import field_validator

from e2h_pipeline.registry import ENGINES


class EngineResource(dg.ConfigurableResource):
    """The engine of the stages that sample, by its word in the registry."""

    name: str = "transformers"

    @classmethod
    def from_environment(cls) -> EngineResource:
        """The engine that E2H_ENGINE names.

        Raises:
            pydantic.ValidationError: there is no such engine; the message lists those there are.
        """
        return cls(name=os.environ.get("E2H_ENGINE", "transformers"))

    @field_validator("name")
    @classmethod
    def _is_there(cls, word: str) -> str:
        if word not in ENGINES.words():
            raise ValueError(f"no engine '{word}' (E2H_ENGINE); there are {', '.join(ENGINES.words())}")
        return word

    def version(self) -> dict[str, str]:
        """What is in the key of samples besides the engine's code, which the code version covers.

        Engines draw the same samples in float32, but for rounding; in bfloat16 they do not, and neither do two
        versions of one of them.

        Raises:
            ValueError: the engine cannot run here; the message names the mend.
        """
        return {"name": self.name, **ENGINES.load(self.name)().version()}
