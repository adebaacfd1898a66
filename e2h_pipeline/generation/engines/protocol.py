"""The protocol of engines: questions, N and sampling options in; finished samples out.

An engine is one file here, or one of an installed package (entry points `e2h.engines`), and one
line in the registry. The registry's entry is light to import; the engine itself is loaded when a
model is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from e2h_pipeline.solutions import TextFormat, encode_completion, prompt_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FinishReason = Literal["stop", "length", "abandoned", "paused"]


@dataclass(frozen=True)
class SampleRequest:
    """N completions of one question.

    Attributes:
        question: as its domain has it. A watch reads it; the engine reads `prompt_ids`.
        text: how the question's domain writes prompts and solutions.
        key: stream of the randomness of all its samples (`noise.stream_key`).
        count: samples to draw, the numbers `first` ... `first + count - 1`. None depends on the
            other draws.
        first: number of the first sample.
        prefix: beginning of a solution. Samples go on from its end and do not repeat it.
        tokens: prompt and prefix in tokens, where the caller has them already.
        drawn: tokens of the sample that an earlier call drew, up to a pause. The draw goes on as if
            it had never paused: `key` and number name the same stream, from the next token on, and
            limits and stop strings regard the whole sample.
    """

    question: str
    text: TextFormat
    key: int
    count: int
    first: int = 0
    prefix: str = ""
    tokens: tuple[int, ...] = ()
    drawn: tuple[int, ...] = ()

    @property
    def prompt(self) -> str:
        """The prompt as the domain writes it. Engines read `prompt_ids`: a chat model has its own."""
        return self.text.prompt(self.question)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, request: SampleRequest) -> list[int]:
    """Token ids of prompt and prefix, each tokenized on its own, as `solutions.encode` does, and of
    what was drawn before."""
    if request.tokens:
        return [*request.tokens, *request.drawn]
    prompt = prompt_tokens(tokenizer, request.question, request.text)
    body, _ = encode_completion(tokenizer, request.prefix, finished=False, text=request.text)
    return [*prompt, *body, *request.drawn]


@dataclass(frozen=True)
class Sample:
    """One completion.

    Attributes:
        completion: text of the sample, of the request's `drawn` tokens too.
        token_ids: all that this call drew, the end-of-sequence token or the stop string's tokens
            included.
        finish_reason: "stop" at the end of sequence or a stop string, "length" at the limit,
            "abandoned" where a watch gave it up, "paused" at the options' pause.
        logprob: sum of the model's own log-probabilities (temperature 1) of `token_ids`.
        stop_reason: the stop string that ended it and is not in `completion`; None at the end of
            sequence.
        token_logprobs: log-probability of each of `token_ids` at the temperature they were drawn
            at, before top-k and top-p; empty unless asked for.
        version: number of the weights that made it; None where they never change.
    """

    index: int
    completion: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprob: float
    stop_reason: str | None = None
    token_logprobs: tuple[float, ...] = ()
    version: int | None = None


def sample_of(values: Mapping[str, Any]) -> Sample:
    """A sample that went through JSON (`dataclasses.asdict`), where tuples are lists."""
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return Sample(**fields)


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are drawn.

    Attributes:
        temperature: 0 is greedy.
        max_new_tokens: a sample that reaches it ends with "length".
        top_k: 0 keeps every token.
        top_p: 1 keeps every token.
        batch_tokens: tokens that a batch of the embedded engine has room for.
        stop: a sample ends at the first of these texts.
        pause: a draw ends, not its sample, with the token that completes this text once more than
            the request's `drawn` tokens hold it; empty for none. A request with the tokens so far
            as `drawn` goes on.
        token_logprobs: fill `Sample.token_logprobs`; at temperatures above 0.
    """

    temperature: float
    max_new_tokens: int
    top_k: int = 0
    top_p: float = 1.0
    batch_tokens: int = 65536
    stop: tuple[str, ...] = ()
    token_logprobs: bool = False
    pause: str = ""


@dataclass(frozen=True)
class Candidate:
    """A sample under way: the stream and number that name it, and its text so far, prefix
    included."""

    key: int
    index: int
    question: str
    completion: str


class Watch(Protocol):
    """Gives samples up while they are drawn.

    Attributes:
        every: tokens between two looks, counted from the first token of a sample, so that the
            decision does not depend on the batch.
    """

    every: int

    def hopeless(self, candidates: Sequence[Candidate]) -> list[bool]:
        """Which samples need not be drawn to their end."""
        ...


class Sampler(Protocol):
    """Draws samples from one model to their end."""

    def sample(self, requests: Sequence[SampleRequest], options: SamplingOptions) -> list[list[Sample]]:
        """Samples of each request, in the order asked."""
        ...


class Engine(Protocol):
    """Draws samples from one model."""

    def sample(
        self, requests: Sequence[SampleRequest], options: SamplingOptions, watch: Watch | None = None
    ) -> list[list[Sample]]:
        """Samples of each request, in the order asked; those that `watch` gives up end there."""
        ...


class EngineEntry(Protocol):
    """An entry of `registry.ENGINES`: a class that is made without arguments.

    Every plan imports its module, so import torch and the engine's own library inside `open`.
    """

    def open(self, model: Path) -> Engine:
        """The engine with the model of a Hugging Face folder."""
        ...

    def check(self, model: Path, tokens: int) -> None:
        """Refuse a model before anything is drawn from it.

        Args:
            model: a Hugging Face folder.
            tokens: of prompt and sample together, at most.

        Raises:
            ValueError: the engine cannot serve the model; the message names the reason and the mend.
        """
        ...

    def version(self) -> dict[str, str]:
        """Package to version, for other packages whose version changes samples. They are in the key
        of everything sampled.

        Raises:
            ValueError: the engine cannot run here; the message names the mend.
        """
        ...
