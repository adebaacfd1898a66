"""The word `transformers`: the embedded engine of `transformers_engine`.

A separate module, because plans import it and must not load torch.
"""

from __future__ import annotations

from pathlib import Path

from e2h_pipeline.generation.engines.protocol import Engine


class Transformers:
    """The embedded engine."""

    def open(self, model: Path) -> Engine:
        """Load the model into this process.

        Raises:
            UnsupportedModel: from `TransformersEngine.sample`, at the first sample.
        """
        from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
        from e2h_pipeline.models.load import load_policy

        return TransformersEngine(*load_policy(model))

    def version(self) -> dict[str, str]:
        """Empty: the code version covers this engine."""
        return {}
