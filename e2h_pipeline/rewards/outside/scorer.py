"""Evaluators of others as scorers (`generation.search.protocol.Scorer`), and ensembles of scorers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.registry import LAYOUTS
from e2h_pipeline.reranking.aggregate import step_probabilities
from e2h_pipeline.rewards.outside.layout import AUTO, Layout, LayoutError, Loaded

if TYPE_CHECKING:
    from e2h_pipeline.generation.search.protocol import Scorer
    from e2h_pipeline.solutions import TextFormat

Scores = list[NDArray[np.float64]]


class OutsideScorer:
    """Step probabilities by an evaluator of others. The model is loaded at the first call.

    A solution reaches it as a list of steps. Its answer block, which these models do not know, reads
    `The answer is: ...`.
    """

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        others: Sequence[Path],
        text: TextFormat,
        batch_tokens: int = 65536,
    ) -> None:
        """Of a folder and the folders of the layout's further models; `text` is how the domain writes
        solutions."""
        self.folder, self.layout, self.others, self.text = folder, layout, others, text
        self.batch_tokens = batch_tokens
        self._loaded: Loaded | None = None

    def step_probabilities(self, solutions: Sequence[tuple[str, str, bool]]) -> Scores:
        """See `Scorer`. Equal solutions are scored once."""
        if self._loaded is None:
            self._loaded = self.layout.load(self.folder, self.others)
        logits = layout_logits(self.layout, self._loaded, solutions, self.text, self.batch_tokens)
        return [step_probabilities(np.array(row)) for row in logits]

    def close(self) -> None:
        """See `Scorer`."""
        self._loaded = None


def layout_logits(
    layout: Layout,
    loaded: Loaded,
    solutions: Sequence[tuple[str, str, bool]],
    text: TextFormat,
    batch_tokens: int,
) -> list[list[float]]:
    """Log odds that each segment of each solution is right. Equal solutions are scored once."""
    distinct = list(dict.fromkeys((question, completion) for question, completion, _ in solutions))
    encoded = [
        layout.encode(loaded.tokenizer, question.strip(), plain_steps(completion, text))
        for question, completion in distinct
    ]
    found = dict(zip(distinct, layout.logits(loaded, encoded, batch_tokens), strict=True))
    return [found[question, completion] for question, completion, _ in solutions]


def plain_steps(completion: str, text: TextFormat) -> list[str]:
    """The text of each segment of a completion, without the domain's marks."""
    found = text.parse(completion)
    if len(found.spans) == len(found.steps):
        return list(found.steps)
    return [*found.steps, f"The answer is: {found.answer or ''}".strip()]


def layout_of(folder: Path) -> Layout | None:
    """The layout that a folder can only have, by its config.json; None where that cannot be told."""
    file = folder / "config.json"
    if not file.is_file():
        return None
    config = json.loads(file.read_text(encoding="utf-8"))
    for word in LAYOUTS.words():
        if word != AUTO and LAYOUTS.load(word).fits(config):
            return new_layout(word, {})
    return None


def new_layout(word: str, options: Mapping[str, Any]) -> Layout:
    """A layout with the options of a specification.

    Raises:
        RegistryError: no such layout.
        LayoutError: an option that it does not have, or lacks.
    """
    if word == AUTO:
        raise LayoutError(f"layout {AUTO}: name the layout, or leave it to a folder or Hub name alone")
    kind: type[Layout] = LAYOUTS.load(word)
    known = {
        name: parameter
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    for name in options:
        if name not in known:
            raise LayoutError(f"layout {word}: no option '{name}'; there are {', '.join(known) or 'none'}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in options:
            raise LayoutError(f"layout {word}: option '{name}' is missing")
    return kind(**options)


def _mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores.mean(axis=0)


def _minimum(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores.min(axis=0)


def _cautious(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(scores.mean(axis=0) - scores.std(axis=0), 0.0)


RULES: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "mean": _mean,
    "min": _minimum,
    "disagreement": _cautious,
}
"""Score of a step from the probabilities of several evaluators, (evaluators, steps): their mean; the
lowest; or the mean less their standard deviation, not below 0, so that they must agree (mean, worst
case and uncertainty of Coste et al. 2023, arXiv 2310.02743)."""


class EnsembleScorer:
    """Several scorers as one."""

    def __init__(self, members: Sequence[Scorer], rule: str) -> None:
        """A rule of `RULES`.

        Raises:
            LayoutError: no such rule, or fewer than two members.
        """
        if rule not in RULES:
            raise LayoutError(f"no ensemble rule '{rule}'; there are {', '.join(RULES)}")
        if len(members) < 2:
            raise LayoutError(f"an ensemble of {len(members)}; name two evaluators or more")
        self.members, self.rule = members, RULES[rule]

    def step_probabilities(self, solutions: Sequence[tuple[str, str, bool]]) -> Scores:
        """See `Scorer`."""
        found = [member.step_probabilities(solutions) for member in self.members]
        return [self.rule(np.stack(rows)) for rows in zip(*found, strict=True)]

    def close(self) -> None:
        """See `Scorer`."""
        for member in self.members:
            member.close()
