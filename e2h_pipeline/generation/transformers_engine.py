"""The embedded engine: samples from any transformers causal LM with plain attention.

Each prompt is computed once and shared by its samples (`cohort`); prompts of like length go together; samples that
have ended leave the batch and new ones enter. A token is drawn by inverting the cumulative distribution at
one counter-based uniform, so a sample is the same in any batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from e2h_pipeline.generation.cohort import Cohort, check_supported, cohorts_attend, decode, prefill
from e2h_pipeline.generation.engine import Candidate, FinishReason, Request, Sample, SamplingOptions, Watch
from e2h_pipeline.generation.noise import uniforms
from e2h_pipeline.solutions import encode_completion, format_prompt

# Ended rows leave a cohort once fewer than this share of it is alive: moving the others costs a copy.
_LEAVE_BELOW = 0.8
# New rows enter once less than this share of the budget is taken: every cohort costs calls of its own.
_ENTER_BELOW = 0.7


@dataclass
class _Rows:
    """Samples being drawn: a cohort, and what is known of each of its rows.

    Attributes:
        request: (rows,) number of the request.
        index: (rows,) number of the sample.
        key: (rows,) stream of its randomness.
        start: (rows,) tokens of its prompt.
        ids: (rows, limit) the tokens drawn, `drawn` of each.
        logprob: (rows,) sum of their log-probabilities.
        alive: (rows,) not ended yet.
        reserved: tokens that a row may come to hold, the longest prompt's.
    """

    cohort: Cohort
    request: NDArray[np.int64]
    index: NDArray[np.int64]
    key: NDArray[np.uint64]
    start: NDArray[np.int64]
    ids: NDArray[np.int32]
    logprob: NDArray[np.float64]
    alive: NDArray[np.bool_]
    reserved: int
    drawn: int = 0

    def add(self, tokens: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """One more token for each row."""
        self.ids[:, self.drawn] = tokens
        self.logprob += scores
        self.drawn += 1

    def end(self, rows: NDArray[np.bool_]) -> list[int]:
        """End those of these rows that are alive, and say which they are."""
        ended = rows & self.alive
        self.alive &= ~rows
        return np.flatnonzero(ended).tolist()

    def leave(self) -> None:
        """Let ended rows go, if there are enough of them."""
        if not self.alive.any() or self.alive.mean() >= _LEAVE_BELOW:
            return
        kept = np.flatnonzero(self.alive)
        self.cohort.keep(torch.from_numpy(kept).to(self.cohort.group.device))
        for name in ("request", "index", "key", "start", "ids", "logprob", "alive"):
            setattr(self, name, getattr(self, name)[kept])


class TransformersEngine:
    """Draw samples from a model in memory. The model's train/eval mode is left as found."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._stops: dict[tuple[str, ...], _Stops] = {}

    def sample(
        self, requests: Sequence[Request], options: SamplingOptions, watch: Watch | None = None
    ) -> list[list[Sample]]:
        """Samples of each request, in the order asked. See `Engine`.

        Raises:
            UnsupportedModel: the model does not attend plainly over that many tokens.
        """
        samples: list[list[Sample]] = [[] for _ in requests]
        with torch.inference_mode(), cohorts_attend(self.model):
            for request, sample in self._run(requests, options, watch):
                samples[request].append(sample)
        return [sorted(drawn, key=lambda s: s.index) for drawn in samples]

    def _run(
        self, requests: Sequence[Request], options: SamplingOptions, watch: Watch | None
    ) -> Iterator[tuple[int, Sample]]:
        """Samples as they end, each with the number of its request."""
        stops = self._stops.get(options.stop)
        if options.stop and stops is None:
            stops = self._stops[options.stop] = _Stops(self.model, self.tokenizer, options.stop)
        prompts = [self._prompt(request) for request in requests]
        check_supported(self.model, max(map(len, prompts), default=0) + options.max_new_tokens)
        order = sorted(range(len(requests)), key=lambda i: len(prompts[i]))
        waiting = [
            (i, s) for i in order for s in range(requests[i].first, requests[i].first + requests[i].count)
        ]
        waiting.reverse()
        live: list[_Rows] = []
        while waiting or live:
            taken = sum(len(rows.request) * rows.reserved for rows in live)
            if waiting and (not live or taken < _ENTER_BELOW * options.batch_tokens):
                entered = _next(waiting, prompts, options, options.batch_tokens - taken)
                if entered:
                    rows, logits = self._enter(entered, requests, prompts, options)
                    self._draw([rows], logits, options)
                    live.append(rows)
                    yield from self._ended(rows, requests, stops, watch)
            live = [rows for rows in live if rows.alive.any()]
            if live:
                self._draw(live, self._forward(live), options)
                for rows in live:
                    yield from self._ended(rows, requests, stops, watch)
                    rows.leave()

    def _enter(
        self,
        entered: Sequence[tuple[int, int]],
        requests: Sequence[Request],
        prompts: Sequence[list[int]],
        options: SamplingOptions,
    ) -> tuple[_Rows, Tensor]:
        """Compute the prompts of new rows, and the logits of their first tokens."""
        device = self.model.device
        request = np.array([i for i, _ in entered])
        distinct = list(dict.fromkeys(request.tolist()))  # rows of one request stand together
        of = np.repeat(np.arange(len(distinct)), [(request == i).sum() for i in distinct])
        layers, logits = prefill(self.model, [prompts[i] for i in distinct])
        # Groups of one size, or uneven requests would leave a grid of holes.
        size = -(-len(entered) // len(distinct))
        number = np.concatenate([np.arange(n) for n in np.bincount(of)])
        _, first, group = np.unique(
            of * len(entered) + number // size, return_index=True, return_inverse=True
        )
        prompt = torch.from_numpy(of[first]).to(device)
        cohort = Cohort(
            [(keys[prompt], values[prompt]) for keys, values in layers],
            torch.tensor([len(prompts[distinct[i]]) for i in prompt.tolist()], device=device),
            torch.from_numpy(group).to(device),
            options.max_new_tokens,
        )
        count = len(entered)
        rows = _Rows(
            cohort,
            request=request,
            index=np.array([s for _, s in entered]),
            key=np.array([requests[i].key for i in request], np.uint64),
            start=np.array([len(prompts[i]) for i in request]),
            ids=np.zeros((count, options.max_new_tokens), np.int32),
            logprob=np.zeros(count),
            alive=np.ones(count, bool),
            reserved=max(len(prompts[i]) for i in distinct) + options.max_new_tokens,
        )
        return rows, logits[torch.from_numpy(of).to(device)]

    def _forward(self, live: Sequence[_Rows]) -> Tensor:
        """Feed every row its newest token: (rows, vocabulary) logits of the next."""
        tokens = np.concatenate([rows.ids[:, rows.drawn - 1] for rows in live]).astype(np.int64)
        positions = np.concatenate([rows.start + rows.drawn - 1 for rows in live])
        device = self.model.device
        cohorts = [rows.cohort for rows in live]
        return decode(
            self.model, cohorts, torch.from_numpy(tokens).to(device), torch.from_numpy(positions).to(device)
        )

    def _draw(self, live: Sequence[_Rows], logits: Tensor, options: SamplingOptions) -> None:
        """Draw a token for every row."""
        drawn = uniforms(
            np.concatenate([rows.key for rows in live]),
            np.concatenate([rows.index for rows in live]),
            np.concatenate([np.full(len(rows.key), rows.drawn) for rows in live]),
        )
        tokens = choose(logits, torch.from_numpy(drawn).to(logits.device), options)
        scores = logits.float().log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)
        cuts = np.cumsum([len(rows.key) for rows in live])[:-1]
        parts = zip(
            live, np.split(tokens.cpu().numpy(), cuts), np.split(scores.cpu().numpy(), cuts), strict=True
        )
        for rows, own, values in parts:
            rows.add(own, values)

    def _ended(
        self, rows: _Rows, requests: Sequence[Request], stops: _Stops | None, watch: Watch | None
    ) -> Iterator[tuple[int, Sample]]:
        """Samples that end with their newest token: by it, by a stop string, at the limit, or given up."""
        newest = rows.ids[:, rows.drawn - 1]
        for i in rows.end(newest == self.tokenizer.eos_token_id):
            yield int(rows.request[i]), self._finish(rows, i, "stop")
        if stops:
            for i in np.flatnonzero(rows.alive & stops.may_end[newest]).tolist():
                text = self._text(rows, i)
                found = stops.find(text)
                if found:
                    rows.alive[i] = False
                    sample = self._finish(rows, i, "stop")
                    cut = replace(sample, completion=text[: text.index(found)], stop_reason=found)
                    yield int(rows.request[i]), cut
        if rows.drawn == rows.ids.shape[1]:
            for i in rows.end(rows.alive):
                yield int(rows.request[i]), self._finish(rows, i, "length")
        if watch and rows.drawn % watch.every == 0:
            for i in rows.end(self._hopeless(rows, requests, watch)):
                yield int(rows.request[i]), self._finish(rows, i, "abandoned")

    def _hopeless(self, rows: _Rows, requests: Sequence[Request], watch: Watch) -> NDArray[np.bool_]:
        alive = np.flatnonzero(rows.alive)
        of = [requests[rows.request[i]] for i in alive]
        given_up = rows.alive & False
        given_up[alive] = watch.hopeless(
            [
                Candidate(r.key, int(rows.index[i]), r.question, r.prefix + self._text(rows, i))
                for i, r in zip(alive.tolist(), of, strict=True)
            ]
        )
        return given_up

    def _text(self, rows: _Rows, i: int) -> str:
        return self.tokenizer.decode(rows.ids[i, : rows.drawn], skip_special_tokens=True)

    def _finish(self, rows: _Rows, i: int, reason: FinishReason) -> Sample:
        ids = tuple(rows.ids[i, : rows.drawn].tolist())
        return Sample(int(rows.index[i]), self._text(rows, i), ids, reason, float(rows.logprob[i]))

    def _prompt(self, request: Request) -> list[int]:
        """Token ids of prompt and prefix, each on its own, as `solutions.encode` takes them."""
        prompt = self.tokenizer(format_prompt(request.question))["input_ids"]
        return [*prompt, *encode_completion(self.tokenizer, request.prefix, finished=False)[0]]


class _Stops:
    """Stop strings, looked for only where a token may have completed one.

    Attributes:
        may_end: (vocabulary,) tokens that hold the last character of a stop string, or part of a character.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]
    ) -> None:
        self._stop = stop
        last = {text[-1] for text in stop}
        size = max(len(tokenizer), model.config.vocab_size)  # a model may have more rows than its tokenizer
        texts = tokenizer.batch_decode([[i] for i in range(size)])
        self.may_end = np.array([bool(last & set(text)) or "\ufffd" in text for text in texts])

    def find(self, text: str) -> str | None:
        """The stop string that comes first, of several at one place the longest."""
        found = [(text.index(stop), -len(stop), stop) for stop in self._stop if stop in text]
        return min(found)[2] if found else None


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


def _next(
    waiting: list[tuple[int, int]], prompts: Sequence[list[int]], options: SamplingOptions, budget: int
) -> list[tuple[int, int]]:
    """Take from the end of `waiting` the rows that fit into `budget` tokens, or into an empty batch one."""
    entered: list[tuple[int, int]] = []
    while waiting:
        length = len(prompts[waiting[-1][0]]) + options.max_new_tokens  # prompts come shortest first
        fits = (len(entered) + 1) * length <= budget
        if not fits and (entered or budget < options.batch_tokens):
            break
        entered.append(waiting.pop())
    return entered
