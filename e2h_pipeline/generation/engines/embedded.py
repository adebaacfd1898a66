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
            UnsupportedModel: as `check`.
        """
        from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
        from e2h_pipeline.models.load import load_policy

        return TransformersEngine(*load_policy(model))

    def check(self, model: Path, tokens: int) -> None:
        """See `EngineEntry`.

        Raises:
            UnsupportedModel: its attention over so many tokens is not plain full attention.
        """
        from e2h_pipeline.generation.engines.cohort import check_supported, probe
        from e2h_pipeline.models.load import load_policy

        policy, _ = load_policy(model)
        check_supported(policy, tokens)
        probe(policy)

    def version(self) -> dict[str, str]:
        """Empty: the code version covers this engine."""
        return {}
