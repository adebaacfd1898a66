"""`base.chat`: every stage asks by the model's own template, and answers end with its end of turn."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import save_tiny
from chat_templates import FAMILIES, chat_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from e2h_pipeline.generation.engines.protocol import SampleRequest, SamplingOptions, prompt_ids
from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
from e2h_pipeline.models.base import ModelError, get_base_model, save_model
from e2h_pipeline.models.load import load_evaluator, load_policy, new_evaluator
from e2h_pipeline.models.tokenizer_fit import require_carries
from e2h_pipeline.problems.math.domain import MATH
from e2h_pipeline.recipe import Base, LadderProblems, MathProblems, Recipe, RecipeError
from e2h_pipeline.rewards.examples import step_example
from e2h_pipeline.rewards.scoring import score_solutions
from e2h_pipeline.rl.questions import Question
from e2h_pipeline.rl.rollouts import prompt_ids as rollout_prompt
from e2h_pipeline.solutions import MARKED, encode
from e2h_pipeline.training.next_token import IGNORED
from e2h_pipeline.training.sft import sft_example

QUESTION = "What is $3 + 4$?"
SYSTEM = "Reason step by step."
COMPLETION = MARKED.completion(["We add: $3 + 4 = 7$.", "So it is 7."], "7")


def fetched(family: str, folder: Path, **options: Any) -> Path:
    """A tiny base model of a family, as `base_model` makes it."""
    save_tiny("llama", chat_tokenizer(family), folder / "source")
    get_base_model(Base(model=str(folder / "source"), chat=True, **options), MathProblems(), folder / "base")
    return folder / "base"


def rendered(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], **options: Any) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
    return ids


def conversation(family: str, system: str | None) -> list[dict[str, str]]:
    """Question and system prompt; Gemma has no system role."""
    if system is None:
        return [{"role": "user", "content": QUESTION}]
    if family == "gemma":
        return [{"role": "user", "content": f"{system}\n\n{QUESTION}"}]
    return [{"role": "system", "content": system}, {"role": "user", "content": QUESTION}]


@pytest.mark.parametrize("system", [None, SYSTEM])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_stage_asks_by_the_template(family: str, system: str | None, tmp_path: Path) -> None:
    base = fetched(family, tmp_path, system_prompt=system)
    require_carries(base, MATH)
    policy, tokenizer = load_policy(base)
    expected = rendered(tokenizer, conversation(family, system), add_generation_prompt=True)
    assert expected.count(tokenizer.convert_tokens_to_ids("<bos>")) == (family != "qwen")
    # sampling, RL, SFT, and an evaluator made from it
    assert prompt_ids(tokenizer, SampleRequest(QUESTION, MARKED, 0, 1)) == expected
    assert list(rollout_prompt(tokenizer, Question("a", QUESTION, None), MATH)) == expected
    evaluator, _ = new_evaluator(base)
    save_model(evaluator, tokenizer, tmp_path / "evaluator")
    for own in (tokenizer, load_evaluator(tmp_path / "evaluator")[1]):
        encoded = encode(own, QUESTION, COMPLETION)
        assert list(encoded.input_ids[: encoded.prompt_tokens]) == expected
    # the whole conversation is what the template makes of it, up to its end of turn
    answered = [*conversation(family, system), {"role": "assistant", "content": COMPLETION}]
    whole = rendered(tokenizer, answered)
    assert list(encoded.input_ids) == whole[: len(encoded.input_ids)]
    assert tokenizer.decode(encoded.input_ids[-1:]) == FAMILIES[family][2]
    # drawing goes on from there, and a solution begins with another prefix the same way
    engine = TransformersEngine(policy, tokenizer)
    (drawn,) = engine.sample([SampleRequest(QUESTION, MARKED, 0, 1)], SamplingOptions(0.0, 3))
    with torch.no_grad():
        first = int(policy(input_ids=torch.tensor([expected])).logits[0, -1].argmax())
    assert drawn[0].token_ids[0] == first


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_assistants_tokens_are_learned(family: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(fetched(family, tmp_path, system_prompt=SYSTEM))
    row = {"question": QUESTION, "completion": COMPLETION, "learned": [True] * 3, "finished": True}
    example = sft_example(tokenizer, row)
    learned = [i for i, label in enumerate(example["labels"]) if label != IGNORED]
    assert learned == list(range(learned[0], len(example["input_ids"])))
    text = tokenizer.decode([example["input_ids"][i] for i in learned])
    assert text == COMPLETION + FAMILIES[family][2]
    assert QUESTION in tokenizer.decode(list(example["input_ids"][: learned[0]]))


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_end_where_they_do(family: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(fetched(family, tmp_path))
    row = {"question": QUESTION, "completion": COMPLETION, "labels": [1, 0, 0], "finished": True}
    example = step_example(tokenizer, row)
    ends = [i for i, label in enumerate(example["labels"]) if label != IGNORED]
    segments = [COMPLETION[start:stop] for start, stop in MARKED.parse(COMPLETION).spans]
    starts = [encode(tokenizer, QUESTION, COMPLETION).prompt_tokens, *(end + 1 for end in ends)]
    for start, end, segment in zip(starts[:-1], ends, segments, strict=True):
        assert tokenizer.decode(list(example["input_ids"][start : end + 1])).strip() == segment.strip()


@pytest.mark.parametrize(
    ("thinking", "ends"), [(None, "assistant\n"), (True, "assistant\n"), (False, "</think>\n\n")]
)
def test_thinking_is_the_templates_switch(thinking: bool | None, ends: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(fetched("qwen", tmp_path, thinking=thinking))
    encoded = encode(tokenizer, QUESTION, COMPLETION)
    assert tokenizer.decode(list(encoded.input_ids[: encoded.prompt_tokens])).endswith(ends)


def test_without_chat_nothing_changes(tmp_path: Path) -> None:
    save_tiny("llama", chat_tokenizer("qwen"), tmp_path / "source")
    get_base_model(Base(model=str(tmp_path / "source")), MathProblems(), tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert tokenizer.eos_token == "<|endoftext|>"
    encoded = encode(tokenizer, QUESTION, COMPLETION)
    assert tokenizer.decode(list(encoded.input_ids)) == MARKED.prompt(QUESTION) + COMPLETION + "<|endoftext|>"


def test_what_a_template_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no switch enable_thinking"):
        fetched("llama", tmp_path / "a", thinking=False)
    for number, (template, message) in enumerate(
        [
            (None, r"has none: set base\.chat=false"),
            ("{{ raise_exception('never') }}", "cannot render one question"),
            ("{% for m in messages %}{{ m.content }}\n{% endfor %}", "is no special token"),
        ]
    ):
        tokenizer = chat_tokenizer("qwen")
        tokenizer.chat_template = template
        source = save_tiny("llama", tokenizer, tmp_path / f"source{number}")
        with pytest.raises(ModelError, match=message):
            get_base_model(Base(model=str(source), chat=True), MathProblems(), tmp_path / f"out{number}")
    with pytest.raises(ModelError, match="shipped model 'ladder-base' has no chat template"):
        get_base_model(Base(chat=True), LadderProblems(), tmp_path / "shipped")


def test_fields_of_chat_need_chat() -> None:
    for key in (
        "ladder/base.thinking=true",
        "ladder/base.system_prompt=Think",
        "ladder/base.chat=true/base.train=true",
    ):
        with pytest.raises(RecipeError, match="chat"):
            Recipe.from_key(key)


def test_the_model_says_how_it_is_asked(tmp_path: Path) -> None:
    base = fetched("qwen", tmp_path, system_prompt=SYSTEM, thinking=False)
    config = json.loads((base / "tokenizer_config.json").read_text())
    assert config["e2h_chat"] == {"system": SYSTEM, "system_role": True, "thinking": False}
    assert json.loads((base / "config.json").read_text())["eos_token_id"] == load_policy(base)[1].eos_token_id


def test_scores_of_a_chat_evaluator_do_not_depend_on_sharing(tmp_path: Path) -> None:
    base = fetched("llama", tmp_path, system_prompt=SYSTEM)
    model, tokenizer = new_evaluator(base)
    torch.nn.init.normal_(model.get_submodule("score").weight)
    solutions = [(QUESTION, MARKED.completion(["We add."] * n, "7"), True) for n in range(1, 6)]
    shared, alone = (score_solutions(model, tokenizer, solutions, share_prompts=s) for s in (True, False))
    assert torch.allclose(torch.tensor(shared[3]), torch.tensor(alone[3]), atol=1e-4)
