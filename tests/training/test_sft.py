import itertools
import os
from pathlib import Path

import pytest
import torch
from distributed_stages import FSDP2, shard_on_cpu
from gloo_ranks import in_ranks
from transformers import PreTrainedTokenizerFast

from e2h_pipeline.artifacts.hashing import data_version, fingerprint
from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.models.base import save_model
from e2h_pipeline.models.load import load_policy
from e2h_pipeline.recipe import Sft
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.training.next_token import IGNORED, next_token_loss
from e2h_pipeline.training.sft import sft_example, train_sft
from e2h_pipeline.training.trainer import GATHERED

STEPS, ANSWER = ["1+2=3", "3*2=6"], "6"
ROW = {
    "question": "1+2*2",
    "completion": MARKED.completion(STEPS, ANSWER),
    "learned": [True, True, True],
    "finished": True,
}


def test_the_loss_is_on_the_completion_only_and_on_its_end(tok: PreTrainedTokenizerFast) -> None:
    example = sft_example(tok, ROW)
    prompt = tok(MARKED.prompt("1+2*2"))["input_ids"]
    labels = list(example["labels"])
    assert len(labels) == len(example["input_ids"])
    assert labels[: len(prompt)] == [IGNORED] * len(prompt)
    assert labels[len(prompt) :] == list(example["input_ids"])[len(prompt) :]
    assert labels[-1] == tok.eos_token_id
    assert tok.decode(labels[len(prompt) : -1]) == ROW["completion"]


@pytest.mark.parametrize("learned", list(itertools.product([True, False], repeat=3)))
@pytest.mark.parametrize("finished", [True, False])
def test_the_loss_is_on_the_steps_that_are_to_be_learned(
    tok: PreTrainedTokenizerFast, learned: tuple[bool, ...], finished: bool
) -> None:
    completion = MARKED.completion(STEPS, ANSWER) if finished else "1+2=3\n\n3*2=6\n\n6*2=5\n\n"
    row = {**ROW, "completion": completion, "learned": learned, "finished": finished}
    example = sft_example(tok, row)
    ids, labels = list(example["input_ids"]), list(example["labels"])
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    segments = [completion[start:end] for start, end in MARKED.parse(completion).spans]
    taught = "".join(segment for segment, flag in zip(segments, learned, strict=True) if flag)
    end = [tok.eos_token_id] if finished and learned[-1] else []
    kept = [label for label in labels if label != IGNORED]
    assert tok.decode(kept[: len(kept) - len(end)]) == taught
    assert kept[len(kept) - len(end) :] == end
    assert (ids[-1] == tok.eos_token_id) == finished


def test_the_end_of_sequence_gets_a_gradient(
    ladder_policy: Path, ladder_tok: PreTrainedTokenizerFast
) -> None:
    model, _ = load_policy(ladder_policy)
    example = sft_example(ladder_tok, ROW)
    logits = model(input_ids=torch.tensor([example["input_ids"]])).logits
    logits.retain_grad()
    next_token_loss(logits, torch.tensor([example["labels"]]), 1).backward()
    grad = logits.grad[0]
    prompt = len(ladder_tok(MARKED.prompt("1+2*2"))["input_ids"])
    assert grad[-2, ladder_tok.eos_token_id] < 0  # the token before the end is pushed towards the end
    assert grad[prompt - 1].abs().sum() > 0  # the last prompt token predicts the first of the completion
    assert grad[: prompt - 1].abs().sum() == 0
    assert grad[-1].abs().sum() == 0


def _sft(
    policy: Path, tables: Path, folder: Path, reporter: Reporter | None = None, **changed: object
) -> dict:
    options = Sft.model_validate({"epochs": 8, "batch_size": 8, "learning_rate": 1e-2, **changed})
    work = Work(folder / "out", folder / "work", 0, reporter or Reporter())
    return train_sft(policy, tables / "easy_solutions", options, MARKED, work)


def test_a_policy_is_trained_on_easy_training_problems(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    summary = _sft(ladder_policy, ladder_tables, tmp_path)
    train = read_table(ladder_tables / "easy_solutions" / "data.parquet").to_pylist()
    assert summary["problems"] == len(train) == 40
    assert summary["dropped_for_length"] == 0
    model, tokenizer = load_policy(tmp_path / "out")
    before, _ = load_policy(ladder_policy)
    ids, labels = (torch.tensor([sft_example(tokenizer, train[0])[k]]) for k in ("input_ids", "labels"))
    with torch.no_grad():
        losses = [
            next_token_loss(m(input_ids=ids).logits, labels, (labels != IGNORED).sum()).item()
            for m in (before, model)
        ]
    assert losses[1] < 0.5 * losses[0]


def test_long_solutions_are_dropped_and_counted(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    _, tokenizer = load_policy(ladder_policy)
    rows = read_table(ladder_tables / "easy_solutions" / "data.parquet").to_pylist()
    lengths = [len(sft_example(tokenizer, row)["input_ids"]) for row in rows]
    limit = sorted(lengths)[20]
    summary = _sft(ladder_policy, ladder_tables, tmp_path, epochs=1, max_tokens=limit)
    assert summary["problems"] == sum(length <= limit for length in lengths)
    assert summary["problems"] + summary["dropped_for_length"] == 40
    assert summary["dropped_for_length"] > 0


def test_fewer_problems_can_be_asked_for(ladder_policy: Path, ladder_tables: Path, tmp_path: Path) -> None:
    assert _sft(ladder_policy, ladder_tables, tmp_path, epochs=1, problems=7)["problems"] == 7


def test_no_example_fits(ladder_policy: Path, ladder_tables: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no training examples"):
        _sft(ladder_policy, ladder_tables, tmp_path, max_tokens=8)


@pytest.mark.parametrize("way", ["replicated", "sharded"])
def test_two_ranks_train_as_one_process_does(
    way: str, ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    options = Sft(epochs=1, batch_size=8, learning_rate=1e-3)

    def train(folder: Path) -> None:
        train_sft(
            ladder_policy,
            ladder_tables / "easy_solutions",
            options,
            MARKED,
            Work(folder / "out", folder / "work", 0),
        )

    def rank() -> None:
        if way == "sharded":
            os.environ |= FSDP2
            shard_on_cpu()
        train(tmp_path / "two")

    train(tmp_path / "one")
    assert in_ranks(2, rank) == [0, 0]
    assert (tmp_path / "two" / "work" / GATHERED).is_dir() == (way == "sharded")
    files = [sorted(p.name for p in (tmp_path / name / "out").iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]
    one, two = (load_policy(tmp_path / name / "out")[0].state_dict() for name in ("one", "two"))
    torch.testing.assert_close(two, one, rtol=0, atol=2e-5)


# Adapters, frozen layers, packing


class Interrupted(Exception):
    """Raised in the middle of a run."""


class Interrupter(Reporter):
    """Stops a run after some updates."""

    def progress(self, done: int, total: int, unit: str) -> None:
        if done >= 7:
            raise Interrupted


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_policy(folder)[0].state_dict()


def _changed(policy: Path, folder: Path) -> set[str]:
    before, after = _weights(policy), _weights(folder)
    assert set(before) == set(after)
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_adapters_learn_and_are_merged_when_saved(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    plain = _sft(ladder_policy, ladder_tables, tmp_path / "plain", epochs=1, learning_rate=1e-9)
    adapted = _sft(ladder_policy, ladder_tables, tmp_path / "adapted", lora_rank=4, learning_rate=2e-2)
    assert adapted["final_loss"] < 0.5 * plain["final_loss"]
    files = [{p.name for p in (tmp_path / name / "out").iterdir()} for name in ("plain", "adapted")]
    assert files[0] == files[1]  # no adapter is left
    changed = _changed(ladder_policy, tmp_path / "adapted" / "out")
    assert {name.split(".")[2] for name in changed} == {"0", "1"}
    assert all("_proj" in name for name in changed)


def test_frozen_layers_stay_and_have_no_adapters(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    for rank in (0, 2):
        folder = tmp_path / str(rank)
        _sft(ladder_policy, ladder_tables, folder, epochs=1, frozen_layers=1, lora_rank=rank)
        changed = _changed(ladder_policy, folder / "out")
        # The tiny policy's head is tied to its embedding, and stays with it.
        assert changed
        assert all(name.startswith(("model.layers.1.", "model.norm.")) for name in changed)


def test_interrupted_adapters_end_the_same_to_the_bit(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    fields = {"epochs": 2, "lora_rank": 2, "packing": True}
    expected = _sft(ladder_policy, ladder_tables, tmp_path / "whole", **fields)
    with pytest.raises(Interrupted):
        _sft(ladder_policy, ladder_tables, tmp_path / "parts", Interrupter(), **fields)
    assert not (tmp_path / "parts" / "out").exists()
    assert list((tmp_path / "parts" / "work").glob("checkpoint-*/adapter_model.safetensors"))
    assert _sft(ladder_policy, ladder_tables, tmp_path / "parts", **fields) == expected
    first, second = (data_version(fingerprint(tmp_path / name / "out")) for name in ("whole", "parts"))
    assert first == second


def test_packing_and_recomputation_change_no_loss(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    ways = ({}, {"packing": True, "micro_batch_size": 4}, {"packing": True, "gradient_checkpointing": True})
    losses = [
        _sft(ladder_policy, ladder_tables, tmp_path / str(i), epochs=2, learning_rate=1e-3, **way)[
            "final_loss"
        ]
        for i, way in enumerate(ways)
    ]
    assert losses[1:] == pytest.approx(losses[:1] * 2, abs=1e-4)


def test_mixed_precision_keeps_the_stored_format(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    """Steps of 1e-4 are lost in the rounding of bfloat16 weights, and not in that of float32 ones."""
    model, tokenizer = load_policy(ladder_policy)
    save_model(model.bfloat16(), tokenizer, tmp_path / "half")
    moved = []
    for mixed in (False, True):
        folder = tmp_path / str(mixed)
        fields = {"epochs": 4, "learning_rate": 1e-4, "mixed_precision": mixed}
        _sft(tmp_path / "half", ladder_tables, folder, **fields)
        before, after = _weights(tmp_path / "half"), _weights(folder / "out")
        assert {weight.dtype for weight in after.values()} == {torch.bfloat16}
        moved.append(sum(int((before[name] != after[name]).sum()) for name in before))
    assert moved[1] > 2 * moved[0]


def test_adapters_and_shards_exclude_each_other(
    ladder_policy: Path, ladder_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="set lora_rank=0, or do not shard"):
        _sft(ladder_policy, ladder_tables, tmp_path, lora_rank=2)
