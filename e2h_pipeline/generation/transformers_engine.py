"""The embedded engine: a batched sampling loop over any transformers causal LM.

Each prompt is computed once and forked into its N rows; batches hold prompts of like length; rows
that have ended leave the batch. A token is drawn by inverting the cumulative distribution at one
counter-based uniform, so a sample is the same in any batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from e2h_pipeline.generation.engine import Request, Sample, SamplingOptions
from e2h_pipeline.generation.kv_cache import fork
from e2h_pipeline.generation.noise import uniforms
from e2h_pipeline.solutions import encode_completion, format_prompt

_COMPACT_BELOW = 0.75  # drop finished rows once fewer than this share of the batch is alive


@dataclass
class _Row:
    """One completion being drawn."""

    request: int
    index: int
    key: int
    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    stopped: bool = False


class TransformersEngine:
    """Draw samples from a model in memory. The model's train/eval mode is left as found."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    @torch.inference_mode()
    def sample(self, requests: Sequence[Request], options: SamplingOptions) -> list[list[Sample]]:
        """Samples of each request, in the order asked. See `Engine`."""
        training = self.model.training
        self.model.eval()
        prompts = [self._prompt(request) for request in requests]
        samples: list[list[Sample]] = [[] for _ in requests]
        for batch in _batches(requests, [len(p) for p in prompts], options):
            for row in self._draw(batch, prompts, options):
                samples[row.request].append(self._finish(row))
        self.model.train(training)
        return [sorted(drawn, key=lambda s: s.index) for drawn in samples]

    def _prompt(self, request: Request) -> list[int]:
        """Token ids of prompt and prefix, each on its own, as `solutions.encode` takes them."""
        prompt = self.tokenizer(format_prompt(request.question))["input_ids"]
        return [*prompt, *encode_completion(self.tokenizer, request.prefix, finished=False)[0]]

    def _finish(self, row: _Row) -> Sample:
        text = self.tokenizer.decode(row.ids, skip_special_tokens=True)
        return Sample(row.index, text, tuple(row.ids), "stop" if row.stopped else "length", row.logprob)

    def _draw(self, rows: list[_Row], prompts: list[list[int]], options: SamplingOptions) -> list[_Row]:
        """Run one batch to its end: prefill each prompt once, fork, decode."""
        order = list(dict.fromkeys(row.request for row in rows))  # rows of one request stand together
        counts = [sum(row.request == r for row in rows) for r in order]
        longest = max(len(prompts[r]) for r in order)
        device = self.model.device
        ids = torch.tensor(
            [[self._pad] * (longest - len(prompts[r])) + prompts[r] for r in order], device=device
        )
        padding = torch.tensor([longest - len(prompts[r]) for r in order], device=device)
        mask = (torch.arange(longest, device=device) >= padding[:, None]).long()
        padded = bool(padding.any())
        prefilled = self.model(
            input_ids=ids,
            attention_mask=mask if padded else None,
            position_ids=(torch.arange(longest, device=device) - padding[:, None]).clamp(min=0),
            past_key_values=DynamicCache(config=self.model.config),
            logits_to_keep=1,
        )
        repeats = torch.tensor(counts, device=device)
        capacity = longest + options.max_new_tokens
        cache = fork(prefilled.past_key_values, repeats, capacity)
        logits = prefilled.logits[:, -1].repeat_interleave(repeats, 0)
        padding = padding.repeat_interleave(repeats, 0)
        alive = rows
        keys = np.array([row.key for row in rows], np.uint64)
        indices = np.array([row.index for row in rows], np.int64)
        live = np.ones(len(rows), bool)
        for position in range(options.max_new_tokens):
            drawn = uniforms(keys, indices, position)
            tokens = choose(logits, torch.from_numpy(drawn).to(device), options)
            scores = logits.float().log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)
            _record(alive, live, tokens.tolist(), scores.tolist(), self.tokenizer.eos_token_id)
            if not live.any() or position + 1 == options.max_new_tokens:
                break
            if live.mean() < _COMPACT_BELOW:
                kept = torch.from_numpy(np.flatnonzero(live)).to(device)
                for layer in cache.layers:
                    layer.keep(kept)
                alive = [row for row, lives in zip(alive, live, strict=True) if lives]
                keys, indices, tokens, padding = keys[live], indices[live], tokens[kept], padding[kept]
                live = live[live]
            length = longest + position
            logits = self.model(
                input_ids=tokens[:, None],
                attention_mask=(torch.arange(length + 1, device=device) >= padding[:, None]).long()
                if padded
                else None,
                position_ids=(length - padding)[:, None],
                past_key_values=cache,
            ).logits[:, -1]
        return rows


def choose(logits: Tensor, uniform: Tensor, options: SamplingOptions) -> Tensor:
    """Draw one token a row: (rows, vocabulary) logits and (rows,) uniforms to (rows,) token ids.

    Temperature first, then top-k, then top-p, as Hugging Face and vLLM order them; ties at the
    k-th logit are all kept. Temperature 0 is the argmax.
    """
    if options.temperature == 0:
        return logits.argmax(-1)
    scaled = logits.float() / options.temperature
    if 0 < options.top_k < scaled.shape[-1]:
        threshold = scaled.topk(options.top_k, -1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < threshold, -torch.inf)
    probabilities = scaled.softmax(-1)
    if options.top_p < 1:
        ranked, order = probabilities.sort(-1, descending=True)
        dropped = ranked.cumsum(-1) - ranked >= options.top_p
        probabilities = probabilities.masked_fill(dropped.gather(-1, order.argsort(-1)), 0.0)
    cumulative = probabilities.double().cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    # The first token whose cumulative mass exceeds the target; it has mass, so it was kept.
    return (cumulative <= target).sum(-1).clamp(max=logits.shape[-1] - 1)


def _record(rows: list[_Row], live: np.ndarray, tokens: list[int], scores: list[float], end: int) -> None:
    for i, row in enumerate(rows):
        if not live[i]:
            continue
        row.ids.append(tokens[i])
        row.logprob += scores[i]
        if tokens[i] == end:
            row.stopped, live[i] = True, False


def _batches(
    requests: Sequence[Request], lengths: list[int], options: SamplingOptions
) -> Iterator[list[_Row]]:
    """Rows of like prompt length, at most `batch_tokens` of prompt and completion together."""
    batch: list[_Row] = []
    for i in sorted(range(len(requests)), key=lambda i: lengths[i]):
        room = max(1, options.batch_tokens // (lengths[i] + options.max_new_tokens))
        for sample in range(requests[i].first, requests[i].first + requests[i].count):
            if len(batch) >= room:
                yield batch
                batch = []
            batch.append(_Row(i, sample, requests[i].key))
    if batch:
        yield batch
