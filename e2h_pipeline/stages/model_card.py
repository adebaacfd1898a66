"""The model card (README.md) of a folder that a stage made: what it is, the easy data that fed it, its
numbers so far, and how to use it with transformers alone.

It is no part of the data version: it describes, and shapes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.lineage import EASY_DATA
from e2h_pipeline.problems.domain import Example
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.registry import DOMAINS
from e2h_pipeline.rewards.evaluators import KIND_FILE
from e2h_pipeline.solutions import TextFormat

CARD = "README.md"
_LONGEST = 60  # characters of a text among the numbers
_NO_NUMBERS = ("seconds", "bytes", "host", "speed")
_HEADING, _STEP_END = "prompt_heading", "step_end"  # fields of an evaluator's config.json
_LINEAR = ("prm", "orm", "oprm")  # kinds whose score of a step is the sigmoid of its last token's logit
_SCORE = """\
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

folder = "."  # this folder, or its name on the Hub
model = AutoModelForTokenClassification.from_pretrained(folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)

question = {question!r}
steps = {steps!r}
answer = {answer!r}

blocks = [*(step + {separator!r} for step in steps), {marker!r} + {separator!r} + answer]
prompt = tokenizer({heading!r} + {separator!r} + question + {separator!r} + {solution!r} + {separator!r})["input_ids"]
body = tokenizer("".join(blocks), add_special_tokens=False, return_offsets_mapping=True)
ends = [len("".join(blocks[: number + 1])) for number in range(len(blocks))]  # characters
last = [max(i for i, (start, _) in enumerate(body["offset_mapping"]) if start < end) for end in ends]  # tokens
ids = [*prompt, *body["input_ids"], tokenizer.eos_token_id]
with torch.no_grad():
    logits = model(torch.tensor([ids])).logits[0, :, 0]
for block, token in zip(blocks, last):
    print(f"{{torch.sigmoid(logits[len(prompt) + token]).item():.4f}} {{block.strip()!r}}")
"""
_ANSWER = """\
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or its name on the Hub
model = AutoModelForCausalLM.from_pretrained(folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)

question = {question!r}

prompt = {heading!r} + {separator!r} + question + {separator!r} + {solution!r} + {separator!r}
ids = torch.tensor([tokenizer(prompt)["input_ids"]])
with torch.no_grad():
    written = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=80)
print(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True))
"""


@dataclass(frozen=True)
class Made:
    """How a model was made.

    Attributes:
        lineage: rows of all that it was made from (`lineage.as_rows`).
        summary: of its stage.
    """

    stage: str
    key: str
    code_version: str
    recipe: Recipe
    lineage: Iterable[Mapping[str, Any]]
    summary: Mapping[str, Any]


_EXAMPLES = {"ladder": Example("2+6+4", ("2+6=1", "1+4=5"), "5")}  # its tokenizer knows few characters
_EXAMPLE = Example("What is 12 + 30?", ("12 + 30 = 42",), "42")


def write_model_card(folder: Path, made: Made) -> None:
    """Write the card of a folder that holds a model, unless it has one."""
    config_file = folder / "config.json"
    if not config_file.is_file() or not any(folder.glob("*.safetensors")) or (folder / CARD).exists():
        return
    text = DOMAINS.load(made.recipe.problems.source).text
    config = json.loads(config_file.read_text(encoding="utf-8"))
    scores = any("TokenClassification" in name for name in config.get("architectures") or ())
    task = "token-classification" if scores else "text-generation"
    parts = [
        f"---\nlibrary_name: transformers\npipeline_tag: {task}\ntags: [easy-to-hard-generalization]\n---\n",
        f"# {made.stage} of {made.recipe.name}\n",
        _what(made, scores),
        "## Numbers when it was made\n",
        _numbers(made.summary),
        "## Use\n",
        _use(config, made, text, scores and not (folder / KIND_FILE).is_file(), scores),
    ]
    (folder / CARD).write_text("\n".join(parts), encoding="utf-8")


def _what(made: Made, scores: bool) -> str:
    recipe, base = made.recipe, made.recipe.base
    kind = (
        f"An evaluator (`reward.kind={recipe.reward.kind}`) of solutions, step by step"
        if scores
        else "A policy"
    )
    start = "trained from nothing" if base.train else f"from {base.model}"
    pinned = f" at {base.revision}" if base.revision and not base.train else ""
    easy = sorted({str(row["data_version"]) for row in made.lineage if row["asset"] == EASY_DATA})
    levels = ", ".join(map(str, recipe.problems.easy_levels))
    data = f"version {', '.join(easy)} (levels {levels} of {recipe.problems.source})" if easy else "none"
    strict = "" if recipe.strict else "- **Not strict**: it may have seen answers of hard problems.\n"
    return (
        f"{kind}, {start}{pinned}, made by the stage `{made.stage}` of e2h_pipeline.\n\n"
        f"- Easy data that trained it: {data}.\n{strict}"
        f"- Artifact {made.key[:16]}, code {made.code_version}; `manifest.json` names recipe, inputs, seeds, packages, "
        "and the hash of each file.\n"
    )


def _numbers(summary: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {value} |" for name, value in _flat(summary)]
    return "\n".join(["| | |", "|---|---|", *lines, ""]) if lines else "None.\n"


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in sorted(values.items()):
        dotted = f"{above}{name}"
        if any(part in dotted for part in _NO_NUMBERS):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{dotted}.")
        elif isinstance(value, float):
            yield dotted, f"{value:.4g}"
        elif isinstance(value, bool | int) or (isinstance(value, str) and 0 < len(value) <= _LONGEST):
            yield dotted, str(value).replace("|", "\\|")


def _known_to_transformers(model_type: str) -> bool:
    """Whether transformers itself has a token classifier of an architecture."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES

    return model_type in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES


def _use(config: Mapping[str, Any], made: Made, text: TextFormat, linear: bool, scores: bool) -> str:
    """Code that needs transformers alone; or why there is none.

    Args:
        linear: an evaluator whose folder no reader of its own reads.
    """
    plain = type(text).prompt is TextFormat.prompt and not made.recipe.base.chat
    if scores and not (linear and made.recipe.reward.kind in _LINEAR and not config.get(_STEP_END)):
        plain = False
    if scores and not _known_to_transformers(str(config.get("model_type"))):
        plain = False
    example = _EXAMPLES.get(made.recipe.problems.source, _EXAMPLE)
    if not plain:
        return "It needs more than transformers: `e2h score FILE --evaluator FOLDER` reads an evaluator.\n"
    code = (_SCORE if scores else _ANSWER).format(
        question=example.question,
        steps=list(example.steps),
        answer=example.answer,
        heading=config.get(_HEADING) or text.question_heading,
        solution=text.solution_heading,
        marker=text.answer_marker,
        separator=text.separator,
    )
    told = (
        "The label is `right`: the sigmoid of a step's score is the probability that it is right.\n\n"
        if scores
        else ""
    )
    return f"{told}```python\n{code}```\n"
