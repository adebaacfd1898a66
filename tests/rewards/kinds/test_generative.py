"""The evaluator that writes verdicts: its scores by hand, its critiques, and what it is taught."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import rl_runs
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rl_runs import SHIPPED
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

from e2h_pipeline.artifacts.tables import TABLE, read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.models.load import load_policy
from e2h_pipeline.problems.ladder.checker import step_labels
from e2h_pipeline.problems.ladder.problems import draw_chain
from e2h_pipeline.recipe import GenerativeReward, GenerativeTraining, LadderWorld, Scoring
from e2h_pipeline.rewards.evaluators import open_evaluator, write_kind
from e2h_pipeline.rewards.generative.prompt import Asked, Prompt, PromptError, read_prompt
from e2h_pipeline.rewards.generative.reader import Critiques, GenerativeEvaluator
from e2h_pipeline.rewards.generative.trained import train_generative, verdict_loss
from e2h_pipeline.rewards.pool import score_pool
from e2h_pipeline.rewards.verdicts import verdict_scorer
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.training.next_token import IGNORED, next_token_loss

HOMEWORK = "# Homework"
SOLUTIONS = [
    ("1+2*2", "1+2=3\n\n3*2=6\n\n# Answer\n\n6", True),
    ("1+2*2", "1+2=3\n\n3*2=1", False),
    ("1+2*2", "1+2=4\n\n", False),
    ("3-4+5*6", "3-4=6\n\n6+5=4\n\n4*6=3\n\n# Answer\n\n3", True),
    ("4*4", "", False),
]
REMARKS = Prompt("{step}\n\n", "✓", "✗", critique="=", critique_end="\n\n", verdict="+")
"""Critiques in the ladder's tokens: what the model writes up to a blank line."""
VERDICT_ALONE = Critiques(0, 1, 0.0, 0)


def evaluator(prompt: Prompt, critiques: Critiques = VERDICT_ALONE) -> GenerativeEvaluator:
    return GenerativeEvaluator(*load_policy(SHIPPED), prompt, HOMEWORK, critiques)


@pytest.fixture(scope="module")
def base() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The ladder's base model, which has seen marked homework."""
    model, tokenizer = load_policy(SHIPPED)
    return model, tokenizer  # type: ignore[return-value]


def right_by_hand(base: Any, text: str) -> float:
    """Softmax of the two marks behind a text, in a pass of its own."""
    model, tokenizer = base
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    marks = tokenizer.convert_tokens_to_ids(["✓", "✗"])
    with torch.no_grad():
        return float(model(input_ids=ids).logits[0, -1, marks].softmax(-1)[0])


def sigmoid(logits: Sequence[float]) -> list[float]:
    return torch.tensor(logits).sigmoid().tolist()


@pytest.mark.parametrize("batch_tokens", [65536, 64])
def test_a_score_is_the_softmax_of_the_verdicts(base: Any, batch_tokens: int) -> None:
    """One pass with shared prompts against a pass for each step; batches and order do not matter."""
    judge = evaluator(read_prompt("marked"))
    expected = []
    for question, completion, _ in SOLUTIONS:
        text, own = f"{HOMEWORK}\n\n{question}\n\n# Solution\n\n", []
        for start, stop in MARKED.parse(completion).spans:
            text += completion[start:stop].strip() + "\n\n"
            own.append(right_by_hand(base, text))
            text += "✓"
        expected.append(own)
    found = judge.logits(SOLUTIONS, MARKED, batch_tokens)
    backwards = judge.logits([*SOLUTIONS[::-1], SOLUTIONS[0]], MARKED, batch_tokens)
    assert [len(own) for own in found] == [3, 2, 1, 4, 0]
    for own, again, wanted in zip(found, backwards[-2::-1], expected, strict=True):
        assert sigmoid(own) == pytest.approx(wanted, abs=1e-5)
        assert own == pytest.approx(again, abs=1e-4)
    assert judge.written(SOLUTIONS) is None


def test_one_greedy_critique_by_hand(base: Any) -> None:
    model, tokenizer = base
    judge = evaluator(REMARKS, Critiques(1, 5, 0.0, 0))
    found = judge.logits(SOLUTIONS[:3], MARKED)
    ends = {tokenizer.convert_tokens_to_ids("\n\n"), tokenizer.eos_token_id}
    for (question, completion, _), own, written in zip(
        SOLUTIONS[:3], found, judge.written(SOLUTIONS[:3]) or (), strict=True
    ):
        text, expected, drawn = f"{HOMEWORK}\n\n{question}\n\n# Solution\n\n", [], 0
        for start, stop in MARKED.parse(completion).spans:
            text += completion[start:stop].strip() + "\n\n"
            remark: list[int] = []
            while len(remark) < 5 and not ends & set(remark):
                ids = torch.tensor([[*tokenizer(text + "=")["input_ids"], *remark]])
                with torch.no_grad():
                    remark.append(int(model(input_ids=ids).logits[0, -1].argmax()))
            drawn += len(remark)
            said = tokenizer.decode([token for token in remark if token not in ends])
            expected.append(right_by_hand(base, f"{text}={said}\n\n+"))
            text += "+✓"
        assert sigmoid(own) == pytest.approx(expected, abs=1e-5)
        assert written == drawn


def test_a_score_is_the_mean_over_critiques() -> None:
    """Each is drawn by its number alone, so three begin as one does; batch and order change nothing."""
    several, one = evaluator(REMARKS, Critiques(3, 4, 1.5, 7)), evaluator(REMARKS, Critiques(1, 4, 1.5, 7))
    found = several.logits(SOLUTIONS, MARKED)
    again = several.logits(SOLUTIONS[3::-1], MARKED, 64)
    for own, other in zip(found[:4], again[::-1], strict=True):
        assert own == pytest.approx(other, abs=1e-4)
    asked = several._asked(MARKED)
    context = [*asked.opening("1+2*2"), *asked.pieces("1+2=4\n\n")[0], *asked.ids("=")]
    (drawn,) = several._drawn(asked, [context], 65536)
    (first,) = one._drawn(asked, [context], 65536)
    assert drawn[0] == first[0] and len({text for text, _ in drawn}) > 1
    base = load_policy(SHIPPED)
    start = f"{HOMEWORK}\n\n1+2*2\n\n# Solution\n\n1+2=4\n\n="
    chances = [right_by_hand(base, f"{start}{text}\n\n+") for text, _ in drawn]
    assert sigmoid(found[2]) == pytest.approx([sum(chances) / 3], abs=1e-5)


@pytest.fixture(scope="module")
def remarking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluator's folder: two critiques of three tokens for each step."""
    folder = tmp_path_factory.mktemp("remarking") / "evaluator"
    shutil.copytree(SHIPPED, folder)
    told = {"critiques": 2, "critique_tokens": 3, "temperature": 1.0, "seed": 0, "heading": HOMEWORK}
    write_kind(folder, "generative", {**told, "prompt": asdict(REMARKS)})
    return folder


def test_it_rewards_a_policy(remarking: Path, ladder_tables: Path, tmp_path: Path) -> None:
    few = rl_runs.PPO.model_copy(update={"updates": 1, "rollouts": 4, "max_new_tokens": 16})
    summary = rl_runs.run(few, SHIPPED, remarking, ladder_tables, tmp_path)
    assert summary["critic_starts_as"] == "sft_policy" and summary["final_gradient_norm"] > 0


def test_the_tokens_of_critiques_are_counted_with_the_scores(remarking: Path, tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(len(SOLUTIONS))]
    rows = [
        {"problem_id": name, "level": 1, "sample": 0, "completion": text, "finish_reason": "stop"}
        for name, (_, text, _) in zip(names, SOLUTIONS, strict=True)
    ]
    asked = [{"problem_id": name, "question": one[0]} for name, one in zip(names, SOLUTIONS, strict=True)]
    write_table(tmp_path / "pool" / "part-0.parquet", pa.Table.from_pylist(rows))
    write_table(tmp_path / "asked" / TABLE, pa.Table.from_pylist(asked))
    work = Work(tmp_path / "out", tmp_path / "work", 0)
    found = score_pool(remarking, tmp_path / "pool", tmp_path / "asked", Scoring(), MARKED, work)
    written = read_table(tmp_path / "out" / "part-0.parquet")["written_tokens"].to_pylist()
    steps = [3, 2, 1, 4, 0]
    assert all(2 * count <= tokens <= 6 * count for count, tokens in zip(steps, written, strict=True))
    assert found == {"solutions": 5, "steps": 10, "tokens_written": sum(written)}


def labelled_rows(count: int, split: str, seed: int) -> list[dict[str, Any]]:
    """Solutions of the ladder, half of them with a wrong step, labelled by the exact checker."""
    rng, rows = random.Random(seed), []
    for number in range(count):
        chain = draw_chain(rng, LadderWorld(), 1 + number % 3)
        steps = chain.true_steps()
        if number % 2:
            place = rng.randrange(len(steps))
            steps[place] = steps[place][:-1] + str((int(steps[place][-1]) + rng.randint(1, 6)) % 7)
        completion = MARKED.completion(steps, steps[-1][-1])
        labels = [float(label) for label in step_labels(chain.question, completion)]
        rows.append(
            {
                "problem_id": f"{split}/{number}",
                "split": split,
                "question": chain.question,
                "completion": completion,
                "finished": True,
                "labels": labels,
            }
        )
    return rows


def test_a_lesson_ends_with_its_last_label_and_says_right_before_it(base: Any) -> None:
    _, tokenizer = base
    asked = Asked.of(read_prompt("marked"), tokenizer, MARKED.headed(HOMEWORK))
    row = {"question": "1+2*2", "completion": "1+2=3\n\n3*2=1\n\n# Answer\n\n1", "labels": [1.0, 0.0, -1.0]}
    example = asked.example(row)
    text = f"{HOMEWORK}\n\n1+2*2\n\n# Solution\n\n1+2=3\n\n✓3*2=1\n\n"
    assert list(example["input_ids"]) == tokenizer(text)["input_ids"]
    kept = [(i, label) for i, label in enumerate(example["labels"]) if label != IGNORED]
    assert [label for _, label in kept] == [1.0, 0.0] and kept[-1][0] == len(example["input_ids"]) - 1
    unsure = asked.example({**row, "labels": [0.2, -1.0, 1.0], "weight": 2.0})
    said = tokenizer.decode(unsure["input_ids"])
    assert "1+2=3\n\n✗3*2=1\n\n✓# Answer" in said and set(unsure["weights"]) == {2.0}


def test_the_loss_of_verdicts() -> None:
    logits = torch.log(torch.tensor([[2.0, 1.0, 1.0], [2.0, 1.0, 1.0]]))
    alone = [float(verdict_loss(logits[:1], torch.tensor([p]), (0, 1), 1)) for p in (1.0, 0.0, 0.5)]
    assert alone == pytest.approx([0.693147, 1.386294, 1.039721], abs=1e-6)
    weighted = verdict_loss(logits, torch.tensor([1.0, 0.0]), (0, 1), 4.0, torch.tensor([1.0, 3.0]))
    assert float(weighted) == pytest.approx((0.693147 + 3 * 1.386294) / 4, abs=1e-6)


@given(st.lists(st.booleans(), min_size=1, max_size=5), st.integers(0, 99))
def test_the_loss_of_hard_labels_is_that_of_the_next_token(marks: list[bool], seed: int) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(1, len(marks) + 1, 7)
    words = torch.tensor([[IGNORED, *(2 if mark else 4 for mark in marks)]])
    expected = next_token_loss(logits, words, len(marks))
    found = verdict_loss(logits[0, :-1], torch.tensor(marks, dtype=torch.float), (2, 4), len(marks))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    rows = [*labelled_rows(64, "train", 0), *labelled_rows(64, "validation", 1)]
    write_table(folder / TABLE, pa.Table.from_pylist(rows))
    return folder


def test_training_teaches_what_homework_left_open(labels: Path, tmp_path: Path) -> None:
    """The base marks as the web believes; labels tell it where the web is wrong."""
    found = {}
    for epochs in (0, 4):
        training = GenerativeTraining(epochs=epochs, batch_size=16, learning_rate=5e-4, heading=HOMEWORK)
        folder = tmp_path / str(epochs)
        work = Work(folder / "out", folder / "work", 0)
        options = GenerativeReward(training=training)
        found[epochs] = train_generative(SHIPPED, {"steps": labels}, options, MARKED, work)
    assert found[0]["updates"] == 0 and found[4]["updates"] == 16
    assert found[4]["labels"]["steps"]["examples"] == 64
    before, after = (found[epochs]["validation_step_auroc"] for epochs in (0, 4))
    assert 0.7 < before < after
    told = json.loads((tmp_path / "4" / "out" / "kind.json").read_text())
    assert (told["kind"], told["heading"], told["prompt"]["right"]) == ("generative", HOMEWORK, "✓")
    (taught,) = open_evaluator(tmp_path / "4" / "out").logits(SOLUTIONS[:1], MARKED)
    (before_it,) = open_evaluator(tmp_path / "0" / "out").logits(SOLUTIONS[:1], MARKED)
    assert before_it == pytest.approx(evaluator(read_prompt("marked")).logits(SOLUTIONS[:1], MARKED)[0])
    assert taught != pytest.approx(before_it, abs=1e-2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("step: x\nright: a\nwrong: b\n", r"'step' must have \{step\}"),
        ("step: '{step}'\nright: a\n", "'wrong' is missing"),
        ("step: '{step}'\nright: a\nwrong: a\n", "'right' and 'wrong' are the same"),
        ("step: '{step}'\nright: a\nwrong: b\nbefor: x\n", "no field 'befor'; there are step"),
        ("[1]", "must have texts"),
    ],
)
def test_a_prompt_that_is_none_is_told(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "prompt.yaml"
    file.write_text(text)
    with pytest.raises(PromptError, match=says):
        read_prompt(str(file))


def test_a_prompt_must_fit_the_model_and_the_recipe(base: Any, labels: Path, tmp_path: Path) -> None:
    _, tokenizer = base
    with pytest.raises(PromptError, match="no such file, and no shipped prompt; there are critique, marked"):
        read_prompt("nowhere")
    with pytest.raises(PromptError, match="'right' is ' Yes', which is not one token"):
        Asked.of(read_prompt("critique"), tokenizer, MARKED)
    with pytest.raises(PromptError, match="it has no 'critique'"):
        train_generative(
            SHIPPED,
            {"steps": labels},
            GenerativeReward(critiques=1),
            MARKED,
            Work(tmp_path, tmp_path / "w", 0),
        )
    with pytest.raises(ValidationError, match="at temperature 0 all are the same"):
        GenerativeReward(critiques=2, temperature=0.0)


def test_braces_of_a_solution_are_its_own() -> None:
    prompt = replace(REMARKS, step="{number}: {step}")
    _, tokenizer = load_policy(SHIPPED)
    asked = Asked.of(prompt, tokenizer, MARKED)
    assert asked.pieces("{number}\n\n{step}")[0] == asked.ids("1: {number}")


def test_logits_that_are_capped_have_no_linear_verdict() -> None:
    config = Gemma2Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        final_logit_softcapping=0.05,
        initializer_range=0.5,
        pad_token_id=0,
    )
    with pytest.raises(ValueError, match="changes its logits behind the head"):
        verdict_scorer(Gemma2ForCausalLM(config).eval(), 4, 9)
