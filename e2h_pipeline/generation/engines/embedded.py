"""The word `transformers`: the embedded engine of `transformers_engine`.

A separate module, because plans import it and must not load torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.generation.engines.protocol import Engine

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from e2h_pipeline.generation.engines.live import LiveEngine


def check_loaded(policy: PreTrainedModel, tokens: int) -> None:
    """`Transformers.check` of a model in memory.

    Raises:
        UnsupportedModel: its attention over so many tokens is not plain full attention.
    """
    from e2h_pipeline.generation.engines.cohort import check_supported, probe

    check_supported(policy, tokens)
    probe(policy)


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

    def open_live(self, model: Path, cards: int, adapter_rank: int) -> LiveEngine:
        """See `LiveEntry`.

        Raises:
            ValueError: it is to be spread over several cards.
        """
        from e2h_pipeline.generation.engines.live import LiveTransformers

        if cards != 1:
            raise ValueError(
                "the transformers engine holds a model on one card: unset E2H_ROLLOUT_CARDS, or use E2H_ENGINE=vllm"
            )
        return LiveTransformers(model)

    def check(self, model: Path, tokens: int) -> None:
        """See `EngineEntry`.

        Raises:
            UnsupportedModel: its attention over so many tokens is not plain full attention.
        """
        from e2h_pipeline.models.load import load_policy

        check_loaded(load_policy(model)[0], tokens)

    def version(self) -> dict[str, str]:
        """Empty: the code version covers this engine."""
        return {}
