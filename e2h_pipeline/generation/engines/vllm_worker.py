"""What vLLM adds to its worker class, in whatever process that runs.

vLLM imports this module by the name of `Worker`; the import tells the worker's process of our
transport of weights. One class serves all engines, because vLLM refuses a second one in a process.

Only our vLLM engines import this module, inside functions, because it needs vLLM.
"""

from __future__ import annotations

from vllm.distributed.weight_transfer import WeightTransferEngineFactory

from e2h_pipeline.generation.engines.vllm_sampler import CounterSampler

TRANSPORT = "e2h_gloo"


class Worker:
    """Methods for `collective_rpc`."""

    def take_scores(self) -> dict[tuple[int, int], list[float]]:
        """See `CounterSampler`."""
        return CounterSampler.take_scores()


WeightTransferEngineFactory.register_engine(
    TRANSPORT, "e2h_pipeline.generation.engines.vllm_live", "GlooTransfer"
)
