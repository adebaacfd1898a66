"""Search step by step: the tree that beam search, DVTS and particle filtering share.

A search finds some samples of a question together. It keeps as many beginnings as samples. In each
round it draws next steps for all beginnings that have not ended, has them scored, and lets its
method choose the beginnings that go on. A step ends at the domain's separator: there the engine
pauses, and goes on later from the tokens drawn. So no text is tokenized again, and engine and scorer
read each step once.

Randomness is that of plain samples. Every beginning has a stream: first that of the sample number,
as independent draws have it. The first next step of a beginning goes on in its stream, every other
one opens a stream of its own, named by stream, step and child. A result depends on nothing else,
and where each beginning has one next step the samples are the independent ones, token for token.

All that two samples share was computed once; it is split evenly among a search's samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.generation.engines.protocol import FinishReason, Sample, SampleRequest, SamplingOptions
from e2h_pipeline.generation.noise import branch_key
from e2h_pipeline.generation.search.protocol import Cost, Found, GrowingScorer, Scorer, Tools
from e2h_pipeline.reranking.aggregate import Aggregation, aggregate, last, mean, minimum, product

AGGREGATIONS: dict[str, Aggregation] = {"min": minimum, "product": product, "mean": mean, "last": last}
_PAUSED: FinishReason = "paused"


@dataclass(frozen=True, eq=False)
class Step:
    """A drawn step, a node of the tree: its tokens, and the step before it."""

    tokens: int
    before: Step | None


@dataclass(frozen=True)
class Path:
    """A beginning of a sample: a way from the root of the tree.

    Attributes:
        key, index: the stream of its next tokens.
        step: its last one; None at the root.
        tokens: of all its steps.
        text: of the tokens.
        begun: its text before its last step.
        depth: steps.
        score: logarithm of the scorer's.
    """

    key: int
    index: int
    step: Step | None = None
    tokens: tuple[int, ...] = ()
    text: str = ""
    begun: str = ""
    depth: int = 0
    logprob: float = 0.0
    reason: FinishReason = _PAUSED
    stop_reason: str | None = None
    score: float = 0.0

    @property
    def open(self) -> bool:
        """It can go on."""
        return self.reason == _PAUSED

    def fork(self, child: int) -> Path:
        """The same beginning for its next step number `child`, in a stream of its own where that is
        not 0."""
        return replace(self, key=branch_key(self.key, self.depth, child)) if child else self

    def then(self, drawn: Sample) -> Path:
        """With one more step."""
        return Path(
            self.key,
            self.index,
            Step(len(drawn.token_ids), self.step),
            (*self.tokens, *drawn.token_ids),
            drawn.completion,
            self.text,
            self.depth + 1,
            self.logprob + drawn.logprob,
            drawn.finish_reason,
            drawn.stop_reason,
        )

    def sample(self, index: int) -> Sample:
        """It as a sample of a pool."""
        return Sample(index, self.text, self.tokens, self.reason, self.logprob, self.stop_reason)


@dataclass
class Search:
    """One search: `size` samples of a question, from the number `first` on.

    Attributes:
        paths: beginnings that go on, and samples that have ended.
        rounds: choices made so far.
        drawn: tokens drawn.
        read: tokens that the scorer read.
        scored: texts that it scored.
    """

    request: SampleRequest
    first: int
    size: int
    paths: list[Path] = field(default_factory=list)
    rounds: int = 0
    drawn: int = 0
    read: int = 0
    scored: int = 0

    def __post_init__(self) -> None:
        self.paths = [Path(self.request.key, self.first + i) for i in range(self.size)]

    @property
    def ended(self) -> bool:
        """No sample goes on."""
        return not any(path.open for path in self.paths)

    def samples(self) -> list[Sample]:
        """The samples, once it has ended."""
        return [path.sample(self.first + i) for i, path in enumerate(self.paths)]

    def costs(self) -> list[Cost]:
        """Its cost, split evenly."""
        living: set[Step] = set()
        for path in self.paths:
            step = path.step
            while step is not None and step not in living:
                living.add(step)
                step = step.before
        held = sum(step.tokens for step in living)
        return [
            Cost(*parts)
            for parts in zip(
                *(_split(n, self.size) for n in (self.drawn, self.scored, self.drawn - held, self.read)),
                strict=True,
            )
        ]


Choose = Callable[[Search, NDArray[np.float64]], Sequence[int]]
"""The method: of a search and the scores of its candidates, (candidates,) logarithms, the numbers of
those that go on, `size` of them. Candidates come in order of child, then parent; a method that takes
the first of equals therefore keeps plain samples under a scorer that says nothing."""


@dataclass(frozen=True)
class Way:
    """How searches go on.

    Attributes:
        size: samples of one search.
        expansions: next steps of each beginning.
        aggregation: of the scores of its steps.
        choose: the method.
        lookahead: greedy steps behind each next step that is scored.
    """

    size: int
    expansions: int
    aggregation: str
    choose: Choose
    lookahead: int = 0


def search(tools: Tools, requests: Sequence[SampleRequest], sampling: SamplingOptions, way: Way) -> Found:
    """Samples of each request. Searches are independent of each other; as many go on at a time as
    fit into a batch, so memory does not grow with the questions.

    Raises:
        ValueError: a request's samples are no whole searches.
    """
    searches = [
        Search(request, first, way.size)
        for request in requests
        for first in range(request.first, request.first + _whole(request, way.size), way.size)
    ]
    at_once = max(1, sampling.batch_tokens // (2 * sampling.max_new_tokens * way.size * way.expansions))
    waiting = iter(searches)
    active = list(islice(waiting, at_once))
    clock = {"drawing": 0.0, "scoring": 0.0}
    while active:
        _round(tools, active, sampling, way, clock)
        active = [one for one in active if not one.ended]
        active += islice(waiting, at_once - len(active))
    found, costs = iter(searches), iter(searches)
    each = [request.count // way.size for request in requests]
    return Found(
        [[sample for one in islice(found, n) for sample in one.samples()] for n in each],
        [[cost for one in islice(costs, n) for cost in one.costs()] for n in each],
        clock,
    )


def _whole(request: SampleRequest, size: int) -> int:
    if request.count % size:
        raise ValueError(f"{request.count} samples are asked for, and a search finds {size} together")
    return request.count


@contextmanager
def _timed(clock: dict[str, float], work: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    clock[work] += time.perf_counter() - start


def _round(
    tools: Tools, active: Sequence[Search], sampling: SamplingOptions, way: Way, clock: dict[str, float]
) -> None:
    """One more step for all searches."""
    parents = [
        [path.fork(child) for child in range(way.expansions) for path in one.paths if path.open]
        for one in active
    ]
    with _timed(clock, "drawing"):
        grown = ahead = _drawn(tools, active, parents, sampling)
        for _ in range(way.lookahead):
            ahead = _further(tools, active, ahead, replace(sampling, temperature=0.0))
    with _timed(clock, "scoring"):
        scores = iter(_scores(tools, active, grown, ahead, way.aggregation))
    for one, own in zip(active, grown, strict=True):
        steps = [replace(path, score=next(scores)) for path in own]
        _choose(one, _candidates(one, steps, way.expansions), way.choose)


def _further(
    tools: Tools, active: Sequence[Search], paths: Sequence[Sequence[Path]], sampling: SamplingOptions
) -> list[list[Path]]:
    """Every path with its next step; those that have ended as they are."""
    going = [[path for path in own if path.open] for own in paths]
    drawn = [iter(own) for own in _drawn(tools, active, going, sampling)]
    return [
        [next(more) if path.open else path for path in own] for own, more in zip(paths, drawn, strict=True)
    ]


def _drawn(
    tools: Tools, active: Sequence[Search], paths: Sequence[Sequence[Path]], sampling: SamplingOptions
) -> list[list[Path]]:
    """Every path of every search with its next step."""
    asked = [
        replace(one.request, key=path.key, count=1, first=path.index, drawn=path.tokens)
        for one, own in zip(active, paths, strict=True)
        for path in own
    ]
    if not asked:
        return [[] for _ in active]
    pause = replace(sampling, pause=asked[0].text.separator)
    found = iter(sample for (sample,) in tools.engine.sample(asked, pause))
    grown = [[path.then(next(found)) for path in own] for own in paths]
    for one, own in zip(active, grown, strict=True):
        one.drawn += sum(path.step.tokens for path in own if path.step)
    return grown


def _scores(
    tools: Tools,
    active: Sequence[Search],
    grown: Sequence[Sequence[Path]],
    ahead: Sequence[Sequence[Path]],
    aggregation: str,
) -> list[float]:
    """The score of every grown path: that of the text which was drawn ahead of it."""
    assert tools.scorer is not None
    for one, own, rolled in zip(active, grown, ahead, strict=True):
        one.scored += len(own)
        one.read += sum(_read_tokens(tools.scorer, one, *pair) for pair in zip(own, rolled, strict=True))
    texts = [_text(one, path) for one, own in zip(active, ahead, strict=True) for path in own]
    steps = tools.scorer.step_probabilities(texts)
    offsets = np.cumsum([0, *map(len, steps)])
    with np.errstate(divide="ignore"):
        logs = np.log(np.concatenate(steps)) if steps else np.zeros(0)
    return aggregate(logs, offsets, AGGREGATIONS[aggregation]).tolist()


def _read_tokens(scorer: Scorer, one: Search, grown: Path, ahead: Path) -> int:
    """Tokens that are read to score a grown path: behind its last step but one, or, of a scorer that
    reads whole texts, all, counted in the policy's tokens."""
    if not isinstance(scorer, GrowingScorer):
        return len(ahead.tokens)
    begun = (one.request.question, one.request.prefix + grown.begun, False)
    now, before = scorer.count_tokens([_text(one, ahead), begun])
    return max(now - before, 0)


def _text(one: Search, path: Path) -> tuple[str, str, bool]:
    return one.request.question, one.request.prefix + path.text, path.reason == "stop"


def _candidates(one: Search, steps: Sequence[Path], expansions: int) -> list[Path]:
    """Next steps and samples that have ended, in order of child, then parent."""
    found: list[Path] = []
    rest = iter(steps)
    for child in range(expansions):
        for path in one.paths:
            if path.open:
                found.append(next(rest))
            elif child == 0:
                found.append(path)
    return found


def _choose(one: Search, candidates: Sequence[Path], choose: Choose) -> None:
    """Let the method choose; a candidate that goes on several times goes on in streams of its own."""
    chosen = choose(one, np.array([path.score for path in candidates]))
    times: dict[int, int] = {}
    paths = []
    for number in chosen:
        copies = times[number] = times.get(number, -1) + 1
        paths.append(candidates[number].fork(copies) if candidates[number].open else candidates[number])
    one.paths, one.rounds = paths, one.rounds + 1


def _split(total: int, parts: int) -> list[int]:
    """A total in equal parts; the first ones have what is left over."""
    each, more = divmod(total, parts)
    return [each + (i < more) for i in range(parts)]
