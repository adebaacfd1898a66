"""The embedded engine: samples from any transformers causal LM with plain attention.

Each prompt is computed once and shared by its samples (`cohort`). Prompts of similar length go
together. Samples that have ended leave the batch, and new ones enter. A token is drawn by inverting
the cumulative distribution at one counter-based uniform number, so a sample is the same in any
batch. Draws that pause keep their keys and values for those that go on from them (`kept`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from e2h_pipeline.generation.engines.cohort import (
    ROOM,
    Cohort,
    check_supported,
    cohorts_attend,
    decode,
    prefill,
    probe,
)
from e2h_pipeline.generation.engines.kept import Kept, Layers
from e2h_pipeline.generation.engines.protocol import (
    Candidate,
    FinishReason,
    Sample,
    SampleRequest,
    SamplingOptions,
    Watch,
    prompt_ids,
)
from e2h_pipeline.generation.noise import uniforms

# Ended rows leave a cohort once less than this share is alive: moving rows costs a copy.
_LEAVE_BELOW = 0.8
# New rows enter once less than this share of the budget is taken: every cohort costs extra calls.
_ENTER_BELOW = 0.35


@dataclass
class _Rows:
    """Samples being drawn: a cohort, and the state of each of its rows.

    Attributes:
        request: (rows,) number of the request.
        index: (rows,) number of the sample.
        key: (rows,) stream of its randomness.
        start: (rows,) tokens of its prompt.
        before: (rows,) tokens of the sample that an earlier call drew; its prompt ends with them.
        ids: (rows, limit) the tokens drawn, `drawn` of each.
        scores: (rows, limit) their log-probabilities at the temperature; (rows, 0) where not asked
            for.
        logprob: (rows,) sum of their log-probabilities.
        alive: (rows,) not ended yet.
        drawn: tokens of each row.
        noted: ended rows that the queue has counted.
    """

    cohort: Cohort
    request: NDArray[np.int64]
    index: NDArray[np.int64]
    key: NDArray[np.uint64]
    start: NDArray[np.int64]
    before: NDArray[np.int64]
    ids: NDArray[np.int32]
    scores: NDArray[np.float32]
    logprob: NDArray[np.float64]
    alive: NDArray[np.bool_]
    drawn: int = 0
    noted: int = 0

    def add(
        self, tokens: NDArray[np.int64], logprobs: NDArray[np.float32], scores: NDArray[np.float32] | None
    ) -> None:
        """Add a token to each row.

        Args:
            tokens: (rows,) token ids.
            logprobs: (rows,) their log-probabilities at temperature 1.
            scores: (rows,) those at the temperature of the draw; None where not asked for.
        """
        self.ids[:, self.drawn] = tokens
        self.logprob += logprobs
        if scores is not None:
            self.scores[:, self.drawn] = scores
        self.drawn += 1

    def end(self, rows: NDArray[np.bool_]) -> list[int]:
        """End those of the masked rows that are alive; returns their places."""
        ended = rows & self.alive
        self.alive &= ~rows
        return np.flatnonzero(ended).tolist()

    def leave(self) -> None:
        """Drop ended rows, if there are enough of them."""
        if not self.alive.any() or self.alive.mean() >= _LEAVE_BELOW:
            return
        self.keep(np.flatnonzero(self.alive))

    def keep(self, kept: NDArray[np.int64]) -> None:
        """Keep only these rows; `kept` is ascending."""
        self.noted = int((~self.alive[kept]).sum())
        self.cohort.keep(torch.from_numpy(kept).to(self.cohort.group.device))
        for name in ("request", "index", "key", "start", "before", "ids", "scores", "logprob", "alive"):
            setattr(self, name, getattr(self, name)[kept])


class TransformersEngine:
    """Draw samples from a model in memory. The model's train/eval mode is left as found."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._stops: dict[tuple[str, ...], _Stops] = {}
        self._probed = False
        self._kept = Kept()

    def sample(
        self, requests: Sequence[SampleRequest], options: SamplingOptions, watch: Watch | None = None
    ) -> list[list[Sample]]:
        """Samples of each request, in the order asked. See `Engine`.

        Raises:
            UnsupportedModel: the model's attention over that many tokens is not plain full
                attention.
        """
        if not self._probed:
            check_supported(self.model)
            probe(self.model)
            self._probed = True
        if not options.pause:
            self.forget()
        samples: list[list[Sample]] = [[] for _ in requests]
        with torch.inference_mode(), cohorts_attend(self.model):
            for request, sample in self._run(requests, options, watch):
                samples[request].append(sample)
        return [sorted(drawn, key=lambda s: s.index) for drawn in samples]

    def forget(self) -> None:
        """Drop the keys and values of paused draws; the weights are about to change, or no call will
        go on from them."""
        self._kept = Kept()

    def _run(
        self, requests: Sequence[SampleRequest], options: SamplingOptions, watch: Watch | None
    ) -> Iterator[tuple[int, Sample]]:
        """Samples as they end, each with the number of its request."""
        prompts = [tuple(prompt_ids(self.tokenizer, request)) for request in requests]
        begun = [len(p) - len(r.drawn) for p, r in zip(prompts, requests, strict=True)]
        check_supported(self.model, max(begun, default=0) + options.max_new_tokens)
        queue = _Queue(requests, prompts, options)
        live: list[_Rows] = []
        while queue.waiting or live:
            if entered := queue.take(live):
                rows, logits = self._enter(entered, requests, prompts, options)
                live.append(rows)
                self._draw([rows], logits, options)
                yield from self._ended(rows, requests, prompts, options, watch)
            live = [rows for rows in live if rows.alive.any()]
            if live:
                self._draw(live, self._forward(live), options)
                for rows in live:
                    yield from self._ended(rows, requests, prompts, options, watch)
                    queue.note(rows)
                    rows.leave()
                queue.put_back(live)

    def _enter(
        self,
        entered: Sequence[tuple[int, int]],
        requests: Sequence[SampleRequest],
        prompts: Sequence[tuple[int, ...]],
        options: SamplingOptions,
    ) -> tuple[_Rows, Tensor]:
        """Compute the prompts of new rows, and the logits of their first tokens."""
        device = self.model.device
        request = np.array([i for i, _ in entered])
        places = {p: n for n, p in enumerate(dict.fromkeys(prompts[i] for i in request))}
        distinct = list(places)  # rows of one prompt are neighbours
        of = np.array([places[prompts[i]] for i in request])
        layers, logits = self._prompts(distinct)
        # Groups of one size: uneven prompts would leave holes in the grid.
        size = -(-len(entered) // len(distinct))
        number = np.concatenate([np.arange(n) for n in np.bincount(of)])
        _, first, group = np.unique(
            of * len(entered) + number // size, return_index=True, return_inverse=True
        )
        prompt = torch.from_numpy(of[first]).to(device)
        before = np.array([len(requests[i].drawn) for i in request])
        limit = options.max_new_tokens - int(before.min())
        cohort = Cohort(
            [(keys[prompt], values[prompt]) for keys, values in layers],
            torch.tensor([len(distinct[i]) for i in prompt.tolist()], device=device),
            torch.from_numpy(group).to(device),
            limit,
        )
        count = len(entered)
        rows = _Rows(
            cohort,
            request=request,
            index=np.array([s for _, s in entered]),
            key=np.array([requests[i].key for i in request], np.uint64),
            start=np.array([len(prompts[i]) for i in request]),
            before=before,
            ids=np.zeros((count, limit), np.int32),
            scores=np.zeros((count, limit if options.token_logprobs else 0), np.float32),
            logprob=np.zeros(count),
            alive=np.ones(count, bool),
        )
        return rows, logits[torch.from_numpy(of).to(device)]

    def _prompts(self, prompts: Sequence[tuple[int, ...]]) -> tuple[Layers, Tensor]:
        """Keys, values and next logits of prompts, ascending in length; those of paused draws are not
        computed again."""
        kept = [i for i, prompt in enumerate(prompts) if prompt in self._kept]
        if not kept:
            return prefill(self.model, prompts)
        parts = [self._kept.enter(self.model, [prompts[i] for i in kept])]
        new = [i for i in range(len(prompts)) if i not in set(kept)]
        if new:
            parts.append(prefill(self.model, [prompts[i] for i in new]))
        order = torch.tensor([*kept, *new], device=self.model.device).argsort()
        longest = len(prompts[-1])
        layers = [
            tuple(torch.cat([_padded(t, longest) for t in held])[order] for held in zip(*layer, strict=True))
            for layer in zip(*(layers for layers, _ in parts), strict=True)
        ]
        return layers, torch.cat([logits for _, logits in parts])[order]

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
            np.concatenate([rows.before + rows.drawn for rows in live]),
        )
        tokens = choose(logits, torch.from_numpy(drawn).to(logits.device), options)
        logprobs = logprobs_of(logits, tokens)
        scores = None
        if options.token_logprobs:
            scores = (
                logprobs
                if options.temperature == 1
                else logprobs_of(logits.float() / options.temperature, tokens)
            )
        cuts = np.cumsum([len(rows.key) for rows in live])[:-1]
        nothing = [None] * len(live)
        parts = zip(
            live,
            np.split(tokens.cpu().numpy(), cuts),
            np.split(logprobs.cpu().numpy(), cuts),
            nothing if scores is None else np.split(scores.cpu().numpy(), cuts),
            strict=True,
        )
        for rows, own, values, at_temperature in parts:
            rows.add(own, values, at_temperature)

    def _ended(
        self,
        rows: _Rows,
        requests: Sequence[SampleRequest],
        prompts: Sequence[tuple[int, ...]],
        options: SamplingOptions,
        watch: Watch | None,
    ) -> Iterator[tuple[int, Sample]]:
        """Samples that end with their newest token: it ends the sequence or completes a stop
        string, the limit is reached, the watch gives the sample up, or the draw pauses."""
        newest = rows.ids[:, rows.drawn - 1]
        for i in rows.end(newest == self.tokenizer.eos_token_id):
            yield int(rows.request[i]), self._finish(rows, i, "stop", requests)
        if options.stop:
            stops = self._stops_of(options.stop)
            for i in np.flatnonzero(rows.alive & stops.may_end[newest]).tolist():
                text = self._text(rows, i, requests)
                found = stops.find(text)
                if found:
                    rows.alive[i] = False
                    sample = self._finish(rows, i, "stop", requests)
                    cut = replace(sample, completion=text[: text.index(found)], stop_reason=found)
                    yield int(rows.request[i]), cut
        for i in rows.end(rows.before + rows.drawn >= options.max_new_tokens):
            yield int(rows.request[i]), self._finish(rows, i, "length", requests)
        if watch:
            for i in rows.end(self._hopeless(rows, requests, watch)):
                yield int(rows.request[i]), self._finish(rows, i, "abandoned", requests)
        if options.pause:
            paused = self._paused(rows, requests, options.pause)
            self._keep(rows, paused, prompts)
            for i in paused:
                yield int(rows.request[i]), self._finish(rows, i, "paused", requests)

    def _stops_of(self, texts: tuple[str, ...]) -> _Stops:
        if texts not in self._stops:
            self._stops[texts] = _Stops(self.model, self.tokenizer, texts)
        return self._stops[texts]

    def _hopeless(self, rows: _Rows, requests: Sequence[SampleRequest], watch: Watch) -> NDArray[np.bool_]:
        given_up = rows.alive & ((rows.before + rows.drawn) % watch.every == 0)
        seen = np.flatnonzero(given_up)
        if len(seen):
            of = [requests[rows.request[i]] for i in seen]
            given_up[seen] = watch.hopeless(
                [
                    Candidate(r.key, int(rows.index[i]), r.question, r.prefix + self._text(rows, i, requests))
                    for i, r in zip(seen.tolist(), of, strict=True)
                ]
            )
        return given_up

    def _paused(self, rows: _Rows, requests: Sequence[SampleRequest], pause: str) -> list[int]:
        """Rows whose newest token completes the text of a pause."""
        newest = rows.ids[:, rows.drawn - 1]
        found = rows.alive & self._stops_of((pause,)).may_end[newest]
        for i in np.flatnonzero(found).tolist():
            before = self._decoded(requests[rows.request[i]].drawn)
            found[i] = self._text(rows, i, requests).count(pause) > before.count(pause)
        return rows.end(found)

    def _keep(self, rows: _Rows, paused: Sequence[int], prompts: Sequence[tuple[int, ...]]) -> None:
        if paused:
            drawn = [(*prompts[rows.request[i]], *rows.ids[i, : rows.drawn].tolist()) for i in paused]
            self._kept.keep(rows.cohort, paused, drawn)

    def _text(self, rows: _Rows, i: int, requests: Sequence[SampleRequest]) -> str:
        return self._decoded([*requests[rows.request[i]].drawn, *rows.ids[i, : rows.drawn].tolist()])

    def _decoded(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True) if ids else ""

    def _finish(self, rows: _Rows, i: int, reason: FinishReason, requests: Sequence[SampleRequest]) -> Sample:
        ids = tuple(rows.ids[i, : rows.drawn].tolist())
        scores = tuple(rows.scores[i, : rows.drawn].tolist())
        return Sample(
            int(rows.index[i]),
            self._text(rows, i, requests),
            ids,
            reason,
            float(rows.logprob[i]),
            token_logprobs=scores,
        )


class _Stops:
    """Finds stop strings. Texts are searched only after a token that may have completed one.

    Attributes:
        may_end: (vocabulary,) tokens that hold the last character of a stop string, or a part of
            any character.
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
        """The first stop string in a text (the longest at its place), or None."""
        found = [(text.index(stop), -len(stop), stop) for stop in self._stop if stop in text]
        return min(found)[2] if found else None


def _padded(held: Tensor, length: int) -> Tensor:
    """(prompts, key heads, length, width), with room for `length` tokens."""
    return pad(held, (0, 0, 0, length - held.shape[2]))


def logprobs_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """(rows,) log-probability of each row's token."""
    return logits.float().log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)


def choose(logits: Tensor, uniform: Tensor, options: SamplingOptions) -> Tensor:
    """Draw one token for each row: (rows, vocabulary) logits and (rows,) uniforms to (rows,) token
    ids.

    Temperature first, then top-k, then top-p, in the order of Hugging Face and vLLM. All tokens
    that tie at the k-th logit are kept. Temperature 0 is the argmax.
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


class _Queue:
    """Samples that wait for a place in the batch, and the budget of tokens.

    Each place has room for the expected length of a sample: all tokens drawn so far over the number
    of samples that ended (this estimates a mean while some samples still run), or the limit where
    none has ended. Where that was too little, the newest rows are put back. They are drawn again
    later, with the same result, because draws are counter-based.
    """

    def __init__(
        self, requests: Sequence[SampleRequest], prompts: Sequence[tuple[int, ...]], options: SamplingOptions
    ) -> None:
        self._prompts, self._budget, self._limit = prompts, options.batch_tokens, options.max_new_tokens
        # By length, and requests of one prompt side by side: it is computed once for them.
        alike = {prompt: number for number, prompt in reversed(list(enumerate(prompts)))}
        self._order = [(len(prompt), alike[prompt]) for prompt in prompts]
        order = sorted(range(len(requests)), key=lambda i: (self._order[i], i))
        self.waiting = [(i, s + requests[i].first) for i in order for s in range(requests[i].count)]
        self.waiting.reverse()  # taken from the end
        self._ended = self._tokens = 0

    def take(self, live: Sequence[_Rows]) -> list[tuple[int, int]]:
        """(request, sample) of rows that may enter; at least one where nothing is alive."""
        running = sum(rows.drawn * int(rows.alive.sum()) for rows in live)
        mean = -(-(self._tokens + running) // self._ended) if self._ended else self._limit
        each = min(max(mean, ROOM), self._limit)
        held = sum(max(rows.cohort.held, len(rows.alive) * each) for rows in live)
        entered: list[tuple[int, int]] = []
        if live and held > _ENTER_BELOW * self._budget:
            return entered
        asked: set[tuple[int, ...]] = set()
        longest = 0
        while self.waiting:
            asked.add(self._prompts[self.waiting[-1][0]])
            longest = max(longest, len(self._prompts[self.waiting[-1][0]]))
            needed = held + len(asked) * longest + (len(entered) + 1) * each
            if needed > self._budget and (entered or live):
                break
            entered.append(self.waiting.pop())
        # Rows that were put back come first: sort, so that rows of a prompt are neighbours again.
        return sorted(entered, key=lambda row: (self._order[row[0]], row))

    def note(self, rows: _Rows) -> None:
        """Count the rows that ended since the last look, before they leave."""
        ended = int((~rows.alive).sum())
        self._ended += ended - rows.noted
        self._tokens += (ended - rows.noted) * rows.drawn
        rows.noted = ended

    def put_back(self, live: list[_Rows]) -> None:
        """Put the newest rows back, until the batch fits into the budget."""
        while sum(rows.cohort.held for rows in live) > self._budget:
            rows = live[-1]
            kept = 0 if len(live) > 1 else len(rows.alive) // 2
            if len(live) == 1 and not kept:
                return  # one row may exceed the budget alone
            back = np.flatnonzero(rows.alive[kept:]) + kept
            self.waiting += [(int(rows.request[i]), int(rows.index[i])) for i in back[::-1]]
            if kept:
                rows.keep(np.arange(kept))
            else:
                live.pop()
