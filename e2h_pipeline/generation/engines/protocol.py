"""One protocol for every engine: questions, N and sampling options in; finished samples out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from e2h_pipeline.solutions import encode_completion, format_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FinishReason = Literal["stop", "length", "abandoned"]


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


def prompt_ids(tokenizer: PreTrainedTokenizerBase, request: Request) -> list[int]:
    """Token ids of prompt and prefix, each on its own, as `solutions.encode` takes them."""
    prompt = tokenizer(format_prompt(request.question))["input_ids"]
    return [*prompt, *encode_completion(tokenizer, request.prefix, finished=False)[0]]


@dataclass(frozen=True)
class Sample:
    """One completion.

    Attributes:
        token_ids: all that was drawn, the end-of-sequence token or the stop string's tokens included.
        finish_reason: "stop" at the end of sequence or a stop string, "length" at the limit, "abandoned" where an
            evaluator gave it up.
        logprob: sum of the model's own log-probabilities (temperature 1) of `token_ids`.
        stop_reason: the stop string that ended it and is not in `completion`; None at the end of sequence.
        token_logprobs: log-probability of each of `token_ids` at the temperature they were drawn at, all tokens of the
            vocabulary counted; empty where it was not asked for.
    """

    index: int
    completion: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprob: float
    stop_reason: str | None = None
    token_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are drawn; temperature 0 is greedy, top_k 0 and top_p 1 keep every token. A sample ends at the
    first of the texts in `stop`. The embedded engine alone gives `token_logprobs`, of temperatures above 0."""

    temperature: float
    max_new_tokens: int
    top_k: int = 0
    top_p: float = 1.0
    batch_tokens: int = 65536
    stop: tuple[str, ...] = ()
    token_logprobs: bool = False


@dataclass(frozen=True)
class Candidate:
    """A sample being drawn: the stream and number that name it, and its text so far, prefix included."""

    key: int
    index: int
    question: str
    completion: str


class Watch(Protocol):
    """Gives up samples on the way.

    Attributes:
        every: tokens between two looks, counted from the first token of a sample, so that what is given up
            does not depend on the batch.
    """

    every: int

    def hopeless(self, candidates: Sequence[Candidate]) -> list[bool]:
        """Which samples need not be drawn to their end."""
        ...


class Engine(Protocol):
    """What draws samples."""

    def sample(
        self, requests: Sequence[Request], options: SamplingOptions, watch: Watch | None = None
    ) -> list[list[Sample]]:
        """Samples of each request, in the order asked; fewer tokens of those that `watch` gives up."""
        ...
