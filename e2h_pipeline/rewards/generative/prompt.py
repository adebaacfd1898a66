"""How a solution is put to a language model that judges it: a file of texts, and their tokens.

    before     what stands before the solution, with `{question}`; unset: the domain's own prompt, under
               the evaluator's heading, or the chat template of the model
    step       a step, with `{step}` and perhaps `{number}`
    critique   after the step, where critiques are asked for: the model goes on until `critique_end`
    verdict    before the verdict
    right, wrong    the verdicts, one token each
    after      after a verdict, before the next step

Verdicts behind earlier steps read `right`: a step is judged as if all before it were right, as step labels
are. So one pass judges all steps. Pieces are tokenized on their own, in training and in scoring.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.recipe.yaml_files import read_yaml
from e2h_pipeline.solutions import EncodedSolution, prompt_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.rewards.examples import Row
    from e2h_pipeline.solutions import TextFormat
    from e2h_pipeline.training.batches import Example

SHIPPED = Path(__file__).parent / "prompts"
_PLACE = re.compile(r"\{(question|step|number)\}")
_RIGHT_FROM = 0.5  # a soft label counts as right from here


class PromptError(ValueError):
    """A prompt that cannot be used; the message names its file and the mend."""


@dataclass(frozen=True)
class Prompt:
    """The texts of a prompt; see above."""

    step: str
    right: str
    wrong: str
    before: str = ""
    critique: str = ""
    critique_end: str = "\n"
    verdict: str = ""
    after: str = ""


def prompt_file(name: str) -> Path:
    """The file of a prompt: shipped under this name, else at this place."""
    shipped = SHIPPED / f"{name}.yaml"
    return shipped if shipped.is_file() else Path(name)


def read_prompt(name: str) -> Prompt:
    """The prompt of a name or file.

    Raises:
        PromptError: it is not there, has an unknown field or lacks one.
        RecipeError: it is not YAML.
    """
    file = prompt_file(name)
    if not file.is_file():
        shipped = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
        raise PromptError(f"reward.prompt {name}: no such file, and no shipped prompt; there are {shipped}")
    found, known = read_yaml(file), [one.name for one in fields(Prompt)]
    if not isinstance(found, Mapping) or not all(isinstance(text, str) for text in found.values()):
        raise PromptError(f"{file}: must have texts for {', '.join(known)}")
    if unknown := [name for name in found if name not in known]:
        raise PromptError(f"{file}: no field '{unknown[0]}'; there are {', '.join(known)}")
    if missing := [name for name in ("step", "right", "wrong") if not found.get(name)]:
        raise PromptError(f"{file}: '{missing[0]}' is missing")
    if "{step}" not in found["step"]:
        raise PromptError(f"{file}: 'step' must have {{step}}")
    if found["right"] == found["wrong"]:
        raise PromptError(f"{file}: 'right' and 'wrong' are the same")
    return Prompt(**{name: str(text) for name, text in found.items()})


def _filled(text: str, **values: Any) -> str:
    return _PLACE.sub(lambda place: str(values.get(place[1], place[0])), text)


@dataclass(frozen=True)
class Asked:
    """A prompt in the tokens of a model.

    Attributes:
        right, wrong: ids of the verdicts.
        text: how the domain writes solutions, with the evaluator's heading.
    """

    prompt: Prompt
    tokenizer: PreTrainedTokenizerBase
    text: TextFormat
    right: int
    wrong: int

    @classmethod
    def of(cls, prompt: Prompt, tokenizer: PreTrainedTokenizerBase, text: TextFormat) -> Asked:
        """A prompt for a model.

        Raises:
            PromptError: a verdict is not one token, or both are the same.
        """
        found = []
        for name in ("right", "wrong"):
            verdict = getattr(prompt, name)
            ids = tokenizer(verdict, add_special_tokens=False)["input_ids"]
            if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
                raise PromptError(
                    f"reward.prompt: '{name}' is {verdict!r}, which is not one token of this model; take another word"
                )
            found.append(int(ids[0]))
        if found[0] == found[1]:
            raise PromptError("reward.prompt: 'right' and 'wrong' are the same token of this model")
        return cls(prompt, tokenizer, text, *found)

    def ids(self, text: str) -> list[int]:
        """Token ids of a piece."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def opening(self, question: str) -> list[int]:
        """Token ids of what stands before the solution."""
        if not self.prompt.before:
            return prompt_tokens(self.tokenizer, question, self.text)
        return list(self.tokenizer(_filled(self.prompt.before, question=question.strip()))["input_ids"])

    def pieces(self, completion: str) -> list[list[int]]:
        """Token ids of each segment of a completion, as the prompt writes it."""
        spans = self.text.parse(completion).spans
        return [
            self.ids(_filled(self.prompt.step, step=completion[start:stop].strip(), number=number))
            for number, (start, stop) in enumerate(spans, start=1)
        ]

    def encode(self, question: str, completion: str) -> EncodedSolution:
        """A solution with its verdicts, and the positions where they are predicted."""
        ids = self.opening(question)
        opened, ends = len(ids), []
        before, between = self.ids(self.prompt.verdict), [self.right, *self.ids(self.prompt.after)]
        for piece in self.pieces(completion):
            ids += [*piece, *before]
            ends.append(len(ids) - 1)
            ids += between
        return EncodedSolution(tuple(ids[: ends[-1] + 1] if ends else ids), opened, tuple(ends))

    def example(self, row: Row) -> Example:
        """A labelled solution: its labels where verdicts are predicted, which they are written as.

        It ends with its last label.
        """
        from e2h_pipeline.rewards.examples import with_labels
        from e2h_pipeline.training.batches import WEIGHTS

        found = self.encode(row["question"], row["completion"])
        labels = {
            end: label for end, label in zip(found.segment_ends, row["labels"], strict=True) if label >= 0
        }
        ids = list(found.input_ids[: max(labels, default=-1) + 1])
        for end in labels:
            if labels[end] < _RIGHT_FROM and end + 1 < len(ids):
                ids[end + 1] = self.wrong
        example = with_labels(EncodedSolution(tuple(ids), found.prompt_tokens, found.segment_ends), labels)
        if row.get("weight") is None:
            return example
        return {**example, WEIGHTS: [float(row["weight"])] * len(ids)}
