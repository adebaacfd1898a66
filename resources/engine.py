"""Which engine generates: transformers everywhere, vLLM on GPU hosts. Both write the same artifacts."""

from __future__ import annotations

from typing import Literal

import dagster as dg


class EngineResource(dg.ConfigurableResource):
    """The name of the generation engine, handed to the stages that sample."""

    name: Literal["transformers", "vllm"] = "transformers"
