"""Scores of texts that grow: what an evaluator has read before is not read again.

A search asks about a beginning, then about several texts that go on from it. The keys and values of
what was read stay here, as many as there is room for; the oldest go first. A text that goes on from
a known one is read from there on. Where tokens or segments of the two differ near the seam, reading
begins before it. Scores differ from those of whole texts by rounding alone. Models that keep more
than plain keys and values read whole texts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicCache

from e2h_pipeline.models.classifier import score_head
from e2h_pipeline.reranking.aggregate import step_probabilities
from e2h_pipeline.rewards.evaluators import BATCH_TOKENS, read_kind
from e2h_pipeline.rewards.scoring import Solution, encode_for, score_all
from e2h_pipeline.rewards.shared_prompt import can_share
from e2h_pipeline.rewards.step_scorer import StepScorer
from e2h_pipeline.solutions import EncodedSolution, TextFormat

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.generation.search.protocol import Scorer

_ENCODED = 1 << 14  # solutions whose tokens are remembered
_HELD_BYTES = 4 << 30  # keys and values, those of a forward pass and those kept, each


@dataclass
class _Read:
    """A text that was read.

    Attributes:
        ids: its tokens, the prompt's included.
        logits: position of a token -> score there, of segment ends.
        layers: (2 x layers, key heads, tokens, width) keys and values in turn.
    """

    ids: tuple[int, ...]
    logits: dict[int, float] = field(default_factory=dict)
    layers: Tensor | None = None


@dataclass(frozen=True)
class _Rest:
    """What has to be read of a solution: all from `start` on, behind what `known` holds."""

    solution: Solution
    encoded: EncodedSolution
    known: _Read
    start: int

    @property
    def new(self) -> tuple[int, ...]:
        return self.encoded.input_ids[self.start :]


class Reader:
    """Reads solutions with one evaluator."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        text: TextFormat,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        """
        Args:
            batch_tokens: upper bound on rows x length of a forward pass.
        """
        self.model, self.tokenizer, self.text, self.batch_tokens = model, tokenizer, text, batch_tokens
        self._shares = can_share(model)
        self._encoded: OrderedDict[Solution, EncodedSolution] = OrderedDict()
        self._texts: OrderedDict[tuple[str, str], _Read] = OrderedDict()
        self._held = self._token_bytes = 0
        self.tokens_read = 0

    def count_tokens(self, solution: Solution) -> int:
        """Tokens of a solution without its prompt."""
        encoded = self._encode(solution)
        return len(encoded.input_ids) - encoded.prompt_tokens

    def logits(self, solutions: Sequence[Solution]) -> list[list[float]]:
        """Raw logit of each segment of each solution."""
        distinct = list(dict.fromkeys(solutions))
        if self._shares:
            found = self._grown(distinct)
        else:
            encoded = [self._encode(solution) for solution in distinct]
            found = dict(zip(distinct, score_all(self.model, encoded, self.batch_tokens), strict=True))
        return [found[solution] for solution in solutions]

    def _encode(self, solution: Solution) -> EncodedSolution:
        if solution not in self._encoded:
            self._encoded[solution] = encode_for(self.model, self.tokenizer, solution, self.text)
            while len(self._encoded) > _ENCODED:
                self._encoded.popitem(last=False)
        return self._encoded[solution]

    def _grown(self, solutions: Sequence[Solution]) -> dict[Solution, list[float]]:
        self._read_prompts(solutions)
        rests = [self._rest(solution) for solution in solutions]
        found: dict[Solution, list[float]] = {}
        for batch in self._batches([rest for rest in rests if rest.new]):
            for rest, read in zip(batch, self._read(batch), strict=True):
                found[rest.solution] = [read.logits[end] for end in rest.encoded.segment_ends]
                self._remember(rest.solution, read)
        for rest in rests:
            if not rest.new:
                found[rest.solution] = [rest.known.logits[end] for end in rest.encoded.segment_ends]
        self._forget()
        return found

    def _read_prompts(self, solutions: Sequence[Solution]) -> None:
        """Read the prompts of new questions, each once."""
        prompts: dict[str, _Rest] = {}
        for solution in solutions:
            question, encoded = solution[0], self._encode(solution)
            if question not in prompts and (question, "") not in self._texts:
                prompt = EncodedSolution(
                    encoded.input_ids[: encoded.prompt_tokens], encoded.prompt_tokens, ()
                )
                prompts[question] = _Rest((question, "", False), prompt, _Read(()), 0)
        for batch in self._batches([rest for rest in prompts.values() if rest.new]):
            for rest, read in zip(batch, self._read(batch), strict=True):
                self._remember(rest.solution, read)

    def _rest(self, solution: Solution) -> _Rest:
        """What is left to read of a solution: behind the longest of its beginnings that is known."""
        encoded = self._encode(solution)
        known = next((self._texts[name] for name in self._names(solution) if name in self._texts), _Read(()))
        start = _common(known.ids, encoded.input_ids)
        missing = [end for end in encoded.segment_ends if end < start and end not in known.logits]
        start = min([start, *missing])
        if start == len(encoded.input_ids) or not [e for e in encoded.segment_ends if e >= start]:
            start = len(encoded.input_ids)  # every score is known
        return _Rest(solution, encoded, known, start)

    def _names(self, solution: Solution) -> Iterator[tuple[str, str]]:
        """A solution's beginnings at ends of blocks, the longest first, down to the prompt."""
        question, completion, _ = solution
        yield question, completion
        cut = len(completion)
        while (cut := completion.rfind(self.text.separator, 0, cut)) >= 0:
            yield question, completion[: cut + len(self.text.separator)]
        yield question, ""

    def _remember(self, solution: Solution, read: _Read) -> None:
        """By its text and by those of its beginnings that are not known yet."""
        for number, name in enumerate(self._names(solution)):
            if number and name in self._texts:
                break
            self._texts.pop(name, None)
            self._texts[name] = read
        self._held += len(read.ids) * self._token_bytes

    def _forget(self) -> None:
        """Keep the newest half where there is no more room. A text goes when the last of its names
        does."""
        if self._held <= _HELD_BYTES:
            return
        kept: set[int] = set()
        names: list[tuple[tuple[str, str], _Read]] = []
        self._held = 0
        for name, read in reversed(self._texts.items()):
            size = len(read.ids) * self._token_bytes
            if id(read) not in kept and self._held + size <= _HELD_BYTES // 2:
                kept.add(id(read))
                self._held += size
            if id(read) in kept:
                names.append((name, read))
        self._texts = OrderedDict(reversed(names))

    def _batches(self, rests: Sequence[_Rest]) -> Iterator[list[_Rest]]:
        """Batches of like length, the longest first."""
        batch: list[_Rest] = []
        longest = 0
        limit = min(self.batch_tokens, _HELD_BYTES // (self._token_bytes or 1))
        for rest in sorted(rests, key=lambda rest: -len(rest.encoded.input_ids)):
            longest = longest or len(rest.encoded.input_ids)
            if batch and (len(batch) + 1) * longest > limit:
                yield batch
                batch, longest = [], len(rest.encoded.input_ids)
            batch.append(rest)
        if batch:
            yield batch

    def _read(self, batch: Sequence[_Rest]) -> list[_Read]:
        """Read the rests of a batch in one forward pass."""
        device = self.model.device
        behind = max(rest.start for rest in batch)
        ahead = max(len(rest.new) for rest in batch)
        self.tokens_read += sum(len(rest.new) for rest in batch)
        ids = torch.tensor([[*rest.new, *[0] * (ahead - len(rest.new))] for rest in batch], device=device)
        starts = torch.tensor([rest.start for rest in batch], device=device)[:, None]
        seen = torch.arange(behind, device=device) < starts
        mask = torch.cat([seen, torch.ones_like(ids, dtype=torch.bool)], 1).long()
        cache = DynamicCache(config=self.model.config)
        for layer, (keys, values) in enumerate(_stacked(batch, behind)):
            cache.update(keys, values, layer)
        with torch.inference_mode():
            hidden = self.model.base_model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=starts + torch.arange(ahead, device=device),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            scores = self._score(hidden, batch)
        layers = torch.stack([t for layer in cache.layers for t in (layer.keys, layer.values)])
        self._token_bytes = layers[:, 0, :, 0].nbytes
        return [
            _Read(
                rest.encoded.input_ids,
                {**{e: s for e, s in rest.known.logits.items() if e < rest.start}, **own},
                torch.cat(
                    [layers[:, i, :, : rest.start], layers[:, i, :, behind : behind + len(rest.new)]], 2
                ),
            )
            for i, (rest, own) in enumerate(zip(batch, scores, strict=True))
        ]

    def _score(self, hidden: Tensor, batch: Sequence[_Rest]) -> list[dict[int, float]]:
        """Scores at the segment ends that were read now, by position."""
        ends = [[end for end in rest.encoded.segment_ends if end >= rest.start] for rest in batch]
        rows = [i for i, own in enumerate(ends) for _ in own]
        places = [end - rest.start for rest, own in zip(batch, ends, strict=True) for end in own]
        head = score_head(self.model)
        flat = iter(head(hidden[rows, places]).squeeze(-1).float().tolist() if rows else ())
        return [{end: next(flat) for end in own} for own in ends]


def _stacked(batch: Sequence[_Rest], behind: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Keys and values of every layer of what is known: (rows, key heads, behind, width)."""
    if not behind:
        return
    first = next(rest.known.layers for rest in batch if rest.known.layers is not None)
    empty = first[:, :, :0]
    held = [
        pad((empty if rest.known.layers is None else rest.known.layers)[:, :, : rest.start],
            (0, 0, 0, behind - rest.start))
        for rest in batch
    ]  # fmt: skip
    joined = torch.stack(held, 1)
    yield from zip(joined[0::2], joined[1::2], strict=True)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that two texts begin with."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


@dataclass(frozen=True)
class GrowingScorer:
    """The scorer of searches that go step by step (`generation.search.protocol.GrowingScorer`). Like
    `StepScorer` it is sent to other processes as a path.

    Attributes:
        evaluator: folder of one model with a score per token (`search_scorer` for others).
        text: how the domain writes solutions.
        batch_tokens: upper bound on rows x length of a forward pass.
    """

    evaluator: Path
    text: TextFormat
    batch_tokens: int = BATCH_TOKENS

    def step_probabilities(self, solutions: Sequence[Solution]) -> list[NDArray[np.float64]]:
        """See `Scorer`."""
        return [step_probabilities(np.array(logits)) for logits in reader_of(self).logits(solutions)]

    def count_tokens(self, solutions: Sequence[Solution]) -> list[int]:
        """See `GrowingScorer` of the protocol."""
        reader = reader_of(self)
        return [reader.count_tokens(solution) for solution in solutions]

    def close(self) -> None:
        """See `Scorer`."""
        reader_of.cache_clear()


def search_scorer(evaluator: Path, text: TextFormat, batch_tokens: int = BATCH_TOKENS) -> Scorer:
    """The scorer of a search: one that reads each step once; a `StepScorer` of evaluators that are
    read in a way of their own."""
    scorer = GrowingScorer if read_kind(evaluator) is None else StepScorer
    return scorer(evaluator, text, batch_tokens)


@lru_cache(maxsize=1)
def reader_of(scorer: GrowingScorer) -> Reader:
    """The reader of a scorer, loaded once in a process."""
    from e2h_pipeline.models.load import load_evaluator

    return Reader(*load_evaluator(scorer.evaluator), scorer.text, scorer.batch_tokens)
