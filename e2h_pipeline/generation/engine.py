"""One protocol for every engine: questions, N and sampling options in; finished samples out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Request:
    """N completions of one question. Samples `first` ... `first + count - 1` are drawn, and are the
    same whatever else is; `key` is the stream of its randomness (`noise.stream_key`). Where there is a
    `prefix`, the beginning of a solution, samples go on from its end, and do not repeat it."""

    question: str
    key: int
    count: int
    first: int = 0
    prefix: str = ""


@dataclass(frozen=True)
class Sample:
    """One completion. `token_ids` end with the end-of-sequence token where `finish_reason` is
    "stop"; `logprob` is the sum of the model's own log-probabilities (temperature 1) of them."""

    index: int
    completion: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprob: float


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are drawn; temperature 0 is greedy, top_k 0 and top_p 1 keep every token."""

    temperature: float
    max_new_tokens: int
    top_k: int = 0
    top_p: float = 1.0
    batch_tokens: int = 65536


class Engine(Protocol):
    """What draws samples."""

    def sample(self, requests: Sequence[Request], options: SamplingOptions) -> list[list[Sample]]:
        """Samples of each request, in the order asked."""
        ...
