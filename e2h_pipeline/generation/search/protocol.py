"""The protocol of search methods: questions and N in; finished samples and their costs out.

A search method is one file here, or one of an installed package (entry points `e2h.search`), and
one line in the registry. A method draws with an engine, and may ask a scorer how good the beginning
of a solution is. It continues a paused draw with a `SampleRequest` that has its tokens as `drawn`, or any
text with one that has it as `prefix`; a branch gets a key from `noise.branch_key`. Methods that go
step by step share `steps`.

A pool is drawn in separate blocks of samples, so that it survives kills and can grow. The result
for a request may therefore depend only on the request and the options: not on other requests, on
chance, or on earlier calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from e2h_pipeline.generation.engines.protocol import Engine, Sample, SampleRequest, SamplingOptions, Watch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Scorer(Protocol):
    """Judges solutions, whole ones and beginnings. `rewards` implements it over an evaluator."""

    def step_probabilities(self, solutions: Sequence[tuple[str, str, bool]]) -> list[NDArray[np.float64]]:
        """How probable it is that each segment is right: (segments,) for each solution.

        Args:
            solutions: question, text so far, and whether the solution ended by itself. An
                unfinished last step is a segment like the others: cut the text after a step to
                leave it out.
        """
        ...

    def close(self) -> None:
        """Free the models loaded in this process, once the pool is done or has failed."""
        ...


@runtime_checkable
class GrowingScorer(Scorer, Protocol):
    """A scorer that does not read again what it has read of a text before."""

    def count_tokens(self, solutions: Sequence[tuple[str, str, bool]]) -> list[int]:
        """Tokens of each text as the scorer reads it, without the prompt."""
        ...


class TokenJudge(Protocol):
    """Judges solutions after every token. `rewards` implements it over a goal-conditioned evaluator."""

    def lowest_q(self, solutions: Sequence[tuple[str, str, bool]]) -> list[tuple[float, int]]:
        """The lowest Q over the tokens of each solution that can drop it, infinity where there are
        none; and the tokens read for it."""
        ...

    def close(self) -> None:
        """Free the models loaded in this process."""
        ...


@dataclass(frozen=True)
class Tools:
    """Tools for a method.

    Attributes:
        engine: draws samples.
        scorer: None for a method that does not need one.
        watch: gives samples up while they are drawn, with early stop; passed on to the engine.
        token_judge: for a method that says `needs_token_judge`.
    """

    engine: Engine
    scorer: Scorer | None = None
    watch: Watch | None = None
    token_judge: TokenJudge | None = None


@dataclass(frozen=True)
class Cost:
    """The cost of one sample.

    Attributes:
        drawn_tokens: tokens drawn for it, those of branches that were given up included.
        scored_solutions: solutions and beginnings that the scorer read for it.
        dead_tokens: those of `drawn_tokens` that are in no sample.
        read_tokens: tokens that the scorer read for it, without the prompt.
    """

    drawn_tokens: int
    scored_solutions: int = 0
    dead_tokens: int = 0
    read_tokens: int = 0


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        samples: of each request, in the order asked, the samples `first` ... `first + count - 1`.
        costs: as `samples`; None where every sample costs its own tokens alone. Work that samples
            of a question share is split among them, so that a sum over samples counts it once.
        seconds: wall time by what it was spent on, such as `drawing` and `scoring`. It is no part of
            a pool's content.
    """

    samples: Sequence[Sequence[Sample]]
    costs: Sequence[Sequence[Cost]] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


class SearchMethod(Protocol):
    """Finds samples. The registry's entry is a class that is made without arguments. One of an
    installed package may have `Options`, a subclass of `recipe.Search`, with its fields of the
    recipe.

    Its module is imported by every plan: torch belongs inside functions.

    Attributes:
        needs_scorer: it asks the easy evaluator, which is then made before the samples. A method that
            asks it after every token says `needs_token_judge` instead.
    """

    needs_scorer: bool

    def search(
        self, tools: Tools, requests: Sequence[SampleRequest], sampling: SamplingOptions, options: Any
    ) -> Found:
        """The samples of each request.

        Args:
            sampling: how tokens are drawn.
            options: the section `search` of the recipe, an instance of `Options`.
        """
        ...
