"""Evaluators of others: tiny models of each layout, beside the arithmetic of the published scoring code.

The real weights are not at hand. Each test restates what the released script does, one solution at a
time, and wants the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import save_tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st
from outside_models import CHATML, layout_tokenizer, save_qwen_prm, tiny, write
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForTokenClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from e2h_pipeline.problems.math.domain import MATH
from e2h_pipeline.registry import LAYOUTS
from e2h_pipeline.rewards.outside.layout import LayoutError
from e2h_pipeline.rewards.outside.scorer import (
    RULES,
    EnsembleScorer,
    OutsideScorer,
    layout_of,
    new_layout,
    plain_steps,
)

LLAMA = (
    "<s>{% for m in messages %}<|start|>{{ m['role'] }}<|stop|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|stop|>\n\n{% endif %}"
)
SOLUTIONS = [
    ("What is 1 plus 2?", ["So we add 1 and 2.", "That is 3,\nas 2 is 1 more than 1.", "Done: 3."]),
    ("Find 4 times 5 - 1.", ["4 times 5 is 20."]),
    ("What is 1 plus 2?", ["We add.", "It is 4.", "No, 3.", "So 3 + 0 = 3 - 0."]),
]
Reward = Callable[[str, Sequence[str]], list[float]]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with the tokens of all layouts; `+ -` is two tokens as in Llama's vocabulary."""
    return layout_tokenizer()


def scorer(folder: Path, word: str, others: Sequence[Path] = (), **options: Any) -> OutsideScorer:
    return OutsideScorer(folder, new_layout(word, options), others, MATH.text)


def agree(found: OutsideScorer, published: Reward) -> None:
    """The same rewards as the published code, from one pass over each solution."""
    asked = [(question, "\n\n".join(steps) + "\n\n", False) for question, steps in SOLUTIONS]
    plain = [plain_steps(completion, MATH.text) for _, completion, _ in asked]
    expected = [published(question, steps) for (question, _, _), steps in zip(asked, plain, strict=True)]
    found.step_probabilities([])
    assert found._loaded is not None
    rows: list[int] = []
    body: Any = found._loaded.model.base_model
    handle = body.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    scores = found.step_probabilities([*asked, asked[0]])
    handle.remove()
    assert sum(rows) == len(SOLUTIONS)  # the repeated one is not scored again
    assert [len(own) for own in scores] == [3, 1, 4, 3]
    for own, wanted in zip(scores, [*expected, expected[0]], strict=True):
        assert own == pytest.approx(wanted, abs=2e-5)
    flat = np.concatenate(expected)
    assert flat.max() - flat.min() > 1e-3  # random weights do tell steps apart
    found.close()


def test_qwen_prm(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """`make_step_rewards` of the model card of Qwen2.5-Math-PRM-7B."""
    folder, body, first, last = save_qwen_prm(tmp_path / "qwen", tokenizer)
    assert type(layout_of(folder)) is LAYOUTS.load("qwen-prm")
    own = AutoTokenizer.from_pretrained(folder)  # Qwen's class cuts words in its own way

    def published(question: str, steps: Sequence[str]) -> list[float]:
        messages = [
            {
                "role": "system",
                "content": "Please reason step by step, and put your final answer within \\boxed{}.",
            },
            {"role": "user", "content": question},
            {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
        ]
        ids = torch.tensor([own.encode(own.apply_chat_template(messages, tokenize=False))])
        with torch.no_grad():
            logits = last(torch.relu(first(body(ids).last_hidden_state)))
        masks = ids == own.encode("<extra_0>")[0]
        kept = logits.softmax(-1) * masks.unsqueeze(-1)
        found: list[float] = kept[0][kept[0] != 0].view(-1, 2)[:, 1].tolist()
        return found

    agree(scorer(folder, "qwen-prm"), published)


def test_math_shepherd(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """The model card of peiyi9979/math-shepherd-mistral-7b-prm."""
    folder = save_tiny_llama(tmp_path / "shepherd", tokenizer)
    model = LlamaForCausalLM.from_pretrained(folder).eval()

    def published(question: str, steps: Sequence[str]) -> list[float]:
        output = "\n".join(f"Step {i}: {step} ки" for i, step in enumerate(steps, start=1))
        ids = torch.tensor([tokenizer.encode(f"{question} {output}")])
        candidates = tokenizer.encode("+ -")  # [1:] where the tokenizer begins with a token of its own
        with torch.no_grad():
            scores = model(ids).logits[:, :, candidates].softmax(-1)[:, :, 0]
        found: list[float] = scores[ids == tokenizer.encode("ки")[-1]].tolist()
        return found

    agree(scorer(folder, "math-shepherd"), published)


def test_rlhflow(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """`math-rm/prm_evaluate.py` of RLHFlow: a pass for each step, at position -3."""
    tokenizer.chat_template = LLAMA
    folder = save_tiny_llama(tmp_path / "rlhflow", tokenizer)
    model = LlamaForCausalLM.from_pretrained(folder).eval()

    def published(question: str, steps: Sequence[str]) -> list[float]:
        candidates = [tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]]
        conversation: list[dict[str, str]] = []
        found = []
        for k, step in enumerate(steps):
            conversation.append({"content": f"{question} {step}" if k == 0 else step, "role": "user"})
            conversation.append({"content": "+", "role": "assistant"})
            ids = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=False)
            with torch.no_grad():
                logits = model(ids).logits[:, -3, candidates]
            found.append(float(logits.softmax(-1)[0, 0]))
        return found

    agree(scorer(folder, "rlhflow"), published)


def test_skywork(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """`prepare_input`, `PRM_MODEL.forward` and `derive_step_rewards` of skywork-o1-prm-inference."""
    model = Qwen2ForCausalLM(tiny(Qwen2Config, len(tokenizer))).eval()
    value = torch.nn.Linear(32, 1)
    torch.nn.init.normal_(value.weight)
    folder = write(
        tmp_path / "skywork",
        tokenizer,
        model,
        "Qwen2ForPrmModel",
        **{"v_head.summary.weight": value.weight.data, "v_head.summary.bias": value.bias.data},
    )
    assert type(layout_of(folder)) is LAYOUTS.load("skywork")
    own = AutoTokenizer.from_pretrained(folder)

    def published(question: str, steps: Sequence[str]) -> list[float]:
        response = "\n".join(step.replace("\n", " ") for step in steps)
        ids = own.encode("" + question + "\n")
        flags = [0] * len(ids)
        end = own.encode("\n")[-1]
        for step in response.split("\n"):
            pieces = [*own.encode(step), end]
            ids += pieces
            flags += [0] * (len(pieces) - 1) + [1]
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
            rewards = torch.sigmoid(value(hidden).squeeze(-1))
        found: list[float] = rewards[0][torch.nonzero(torch.tensor(flags) == 1).view(-1)].tolist()
        return found

    agree(scorer(folder, "skywork"), published)


@pytest.mark.parametrize("separator", ["\n", "\n\n", " ки"])
def test_trl(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, separator: str) -> None:
    """`PRMTrainer.tokenize_row`, and label 1 of the softmax at the labelled tokens."""
    config = tiny(LlamaConfig, len(tokenizer), num_labels=2)
    model = LlamaForTokenClassification(config).eval()
    torch.nn.init.normal_(model.score.weight, std=0.1)
    model.save_pretrained(tmp_path / "trl")
    tokenizer.save_pretrained(tmp_path / "trl")
    assert layout_of(tmp_path / "trl") is None  # the separator is not in its files

    def published(question: str, steps: Sequence[str]) -> list[float]:
        ids = tokenizer(question, add_special_tokens=False)["input_ids"]
        between = tokenizer.encode(separator, add_special_tokens=False)
        labels = [-100] * len(ids)
        for step in steps:
            pieces = tokenizer(step, add_special_tokens=False)["input_ids"] + between
            ids, labels = ids + pieces, labels + [-100] * (len(pieces) - 1) + [1]
        with torch.no_grad():
            probabilities = model(torch.tensor([ids])).logits.softmax(-1)[0, :, 1]
        found: list[float] = probabilities[torch.tensor(labels) != -100].tolist()
        return found

    agree(scorer(tmp_path / "trl", "trl", separator=separator), published)


def test_implicit(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """The script of the model card of EurusPRM; its step rewards are running sums of beta log ratios."""
    tokenizer.chat_template = CHATML
    models = []
    for seed, name in enumerate(("prm", "reference")):
        model = LlamaForCausalLM(tiny(LlamaConfig, len(tokenizer), seed)).eval()
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        models.append(model)
    beta = 0.05  # that of the card is .001

    def published(question: str, steps: Sequence[str]) -> list[float]:
        def conversation(count: int) -> list[dict[str, str]]:
            return [
                {"role": "user", "content": question},
                {"role": "assistant", "content": "\n\n".join(steps[:count])},
            ]

        ids = tokenizer.apply_chat_template(conversation(len(steps)), return_tensors="pt", return_dict=False)
        last = []
        for count in range(len(steps) + 1):
            text = tokenizer.apply_chat_template(conversation(count), tokenize=False).strip()
            text += "\n\n" if count not in (0, len(steps)) else ""
            last.append(len(tokenizer.encode(text, add_special_tokens=False)) - 2)
        mask = torch.zeros_like(ids)
        mask[0, last[0] :] = 1

        def log_probabilities(model: LlamaForCausalLM) -> torch.Tensor:
            logits = model(input_ids=ids).logits[:, :-1, :]
            return torch.gather(logits.log_softmax(-1), 2, ids[:, 1:].unsqueeze(2)).squeeze(2)

        with torch.no_grad():
            raw = log_probabilities(models[0]) - log_probabilities(models[1])
        rewards = (beta * raw * mask[:, 1:]).cumsum(-1).gather(-1, torch.tensor([last])[:, 1:])
        found: list[float] = torch.sigmoid(rewards)[0].tolist()
        return found

    options = {"reference": str(tmp_path / "reference"), "beta": beta}
    agree(scorer(tmp_path / "prm", "implicit", [tmp_path / "reference"], **options), published)


TEXTS = st.text("ab 1+-\n<>extra_0ки:", min_size=1, max_size=20).filter(lambda text: bool(text.strip()))


@settings(max_examples=40, deadline=None)
@given(question=TEXTS, steps=st.lists(TEXTS, min_size=1, max_size=4))
def test_every_step_has_one_position_whatever_it_says(
    tokenizer: PreTrainedTokenizerFast, question: str, steps: list[str]
) -> None:
    """Steps and questions that contain the tags themselves, signs, or nothing but spaces between them."""
    for word, template in (
        ("qwen-prm", CHATML),
        ("math-shepherd", None),
        ("rlhflow", LLAMA),
        ("skywork", None),
        ("trl", None),
    ):
        tokenizer.chat_template = template
        found = new_layout(word, {}).encode(tokenizer, question.strip(), [step.strip() for step in steps])
        assert len(found.segment_ends) == len(steps)
        assert list(found.segment_ends) == sorted(set(found.segment_ends))
        assert found.segment_ends[-1] < len(found.input_ids)


def test_the_answer_block_reads_as_a_sentence() -> None:
    assert plain_steps("a\n\nb\n\n# Answer\n\n12", MATH.text) == ["a", "b", "The answer is: 12"]
    assert plain_steps("a\n\nb\n\n", MATH.text) == ["a", "b"]
    assert plain_steps("a\n\n# Answer\n\n", MATH.text) == ["a", "The answer is:"]
    assert plain_steps("", MATH.text) == []


def test_files_that_do_not_fit_are_named(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = CHATML
    model = Qwen2ForCausalLM(tiny(Qwen2Config, len(tokenizer)))
    bare = write(tmp_path / "bare", tokenizer, model, "Qwen2ForProcessRewardModel")
    with pytest.raises(LayoutError, match=r"bare: score\.0\.weight, .* missing"):
        scorer(bare, "qwen-prm").step_probabilities([])
    odd = write(tmp_path / "odd", tokenizer, model, "X", **{"v_head.summary.weight": torch.zeros(1, 32)})
    with pytest.raises(LayoutError, match=r"v_head\.summary\.bias"):
        scorer(odd, "skywork").step_probabilities([])
    tokenizer.chat_template = None
    with pytest.raises(LayoutError, match="no chat template"):
        new_layout("rlhflow", {}).encode(tokenizer, "q", ["a"])
    turns = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] | upper }}{% endfor %}"
    tokenizer.chat_template = f"{turns}{{% if add_generation_prompt %}}bot: {{% endif %}}"
    for word, options in (("qwen-prm", {}), ("rlhflow", {}), ("implicit", {"reference": "x"})):
        with pytest.raises(LayoutError, match="its chat template"):
            new_layout(word, options).encode(tokenizer, "q", ["a", "b"])


@pytest.mark.parametrize(
    ("word", "options", "says"),
    [
        ("trl", {"seperator": "\n"}, "no option 'seperator'; there are separator"),
        ("rlhflow", {"tag": "x"}, "no option 'tag'; there are none"),
        ("implicit", {}, "option 'reference' is missing"),
    ],
)
def test_options_of_a_layout_are_checked(word: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(LayoutError, match=says):
        new_layout(word, options)


class Fixed:
    """A scorer that always says the same."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.closed = scores, False

    def step_probabilities(self, solutions: Sequence[tuple[str, str, bool]]) -> list[Any]:
        return [np.array(self.scores) for _ in solutions]

    def close(self) -> None:
        self.closed = True


def test_ensembles() -> None:
    members = [Fixed(0.9, 0.2), Fixed(0.5, 0.2)]
    asked = [("q", "a\n\nb", True)] * 2
    found = {rule: EnsembleScorer(members, rule).step_probabilities(asked)[1].tolist() for rule in RULES}
    assert found["mean"] == pytest.approx([0.7, 0.2])
    assert found["min"] == pytest.approx([0.5, 0.2])
    assert found["disagreement"] == pytest.approx([0.7 - 0.2, 0.2])  # they differ by .2 from their mean
    assert EnsembleScorer([Fixed(0.0), Fixed(0.4)], "disagreement").step_probabilities(asked)[0].tolist() == [
        0.0
    ]
    EnsembleScorer(members, "min").close()
    assert all(member.closed for member in members)
    for given_members, rule, says in ((members, "max", "no ensemble rule"), (members[:1], "min", "of 1")):
        with pytest.raises(LayoutError, match=says):
            EnsembleScorer(given_members, rule)
