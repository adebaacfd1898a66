"""Sharded models: shards add up to the whole, on any number of ranks."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest
import torch
from gloo_ranks import in_ranks
from torch import Tensor

from e2h_pipeline.models.adapters import add_adapter
from e2h_pipeline.models.load import load_policy
from e2h_pipeline.rl import ranks
from e2h_pipeline.rl.online import shards


def _expected(policy: Path) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in load_policy(policy)[0].named_parameters()}


def _split(policy: Path, change: float = 0.0) -> dict[str, Tensor]:
    """The weights of a policy, split over the ranks, and a number that all ranks have."""
    model, _ = load_policy(policy)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += change
    shards.split(model)
    return {**dict(model.named_parameters()), "step": torch.tensor(3.0 - change)}


@pytest.fixture(scope="module")
def written(ladder_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two ranks."""
    folder = tmp_path_factory.mktemp("shards")

    def work() -> None:
        with ranks.together():
            shards.write(folder, _split(ladder_policy))

    assert in_ranks(2, work) == [0, 0]
    assert len(list(folder.iterdir())) == 2
    return folder


def test_one_process_reads_what_two_ranks_wrote(written: Path, ladder_policy: Path) -> None:
    expected = _expected(ladder_policy)
    assert shards.names(written) == {*expected, "step"}
    found = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
    found["step"] = torch.zeros(())
    shards.read(written, found)
    assert found.pop("step") == 3
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_three_ranks_read_what_two_wrote(written: Path, ladder_policy: Path) -> None:
    """Rows are cut at other places, and the third rank has none of the smallest tensors."""

    def work() -> None:
        with ranks.together():
            tensors = _split(ladder_policy, change=1.0)
            shards.read(written, tensors)
            assert tensors.pop("step") == 3
            for name, expected in _expected(ladder_policy).items():
                assert torch.equal(shards.gathered(tensors[name].detach()), expected)

    assert in_ranks(3, work) == [0, 0, 0]


def test_torch_reads_the_same(written: Path, ladder_policy: Path) -> None:
    from torch.distributed import checkpoint

    expected = _expected(ladder_policy)
    found = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
    reader = checkpoint.HuggingFaceStorageReader(str(written))  # type: ignore[no-untyped-call]
    checkpoint.load(found, storage_reader=reader, no_dist=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_split_model_is_saved_as_a_whole_one_is(ladder_policy: Path, tmp_path: Path) -> None:
    """In bfloat16, although the shards that learn are float32."""

    def work() -> None:
        with ranks.together():
            model = load_policy(ladder_policy)[0].to(torch.bfloat16)
            shards.split(model)
            shards.save_whole(model, torch.bfloat16, tmp_path / "split")

    assert in_ranks(2, work) == [0, 0]
    load_policy(ladder_policy)[0].to(torch.bfloat16).save_pretrained(tmp_path / "whole")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "split" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("other", ["more rows", "fewer rows", "wider", "a scalar", "another name"])
def test_tensors_of_another_model_are_refused(written: Path, ladder_policy: Path, other: str) -> None:
    name, tensor = next(iter(_expected(ladder_policy).items()))
    rows, width = tensor.shape
    shapes = {"more rows": (rows + 1, width), "fewer rows": (rows - 1, width), "wider": (rows, width + 1)}
    wrong = torch.zeros(shapes.get(other, ()))
    with pytest.raises(ValueError, match="do not fit the model"):
        shards.read(written, {"no such" if other == "another name" else name: wrong})


@pytest.mark.parametrize(
    ("config", "processes", "split"), [("FSDP", 2, True), ("FSDP", 1, False), ("", 2, False)]
)
def test_the_accelerate_config_asks_for_shards(config: str, processes: int, split: bool) -> None:
    asked = {f"ACCELERATE_USE_{config}": "true", "WORLD_SIZE": str(processes)}
    with mock.patch.dict(os.environ, asked):
        assert shards.wanted() == split


@pytest.mark.parametrize(
    ("asked", "mend"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "set distributed_type to FSDP"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_OFFLOAD_PARAMS": "true"}, "set fsdp_offload_params to false"),
    ],
)
def test_what_is_not_done_is_refused(asked: dict[str, str], mend: str) -> None:
    with mock.patch.dict(os.environ, asked), pytest.raises(ValueError, match=mend):
        shards.wanted()


def test_a_model_of_7b_shapes_is_split_evenly() -> None:
    """Llemma-7B without weights over 8 ranks; adapters are split along."""

    def work() -> None:
        from torch.distributed import init_process_group
        from torch.testing._internal.distributed.fake_pg import FakeStore
        from transformers import LlamaConfig, LlamaForCausalLM

        os.environ["WORLD_SIZE"] = "8"
        init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
        shape = LlamaConfig(vocab_size=32016, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32)
        layer, rest = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096, 2 * 32016 * 4096 + 4096
        adapters = 8 * (4 * 2 * 4096 + 3 * (4096 + 11008))
        for rank in (0, 8):
            with torch.device("meta"):
                model = LlamaForCausalLM(shape).to(torch.bfloat16)
            if rank:
                add_adapter(model, "policy", rank, (), 0)
            shards.split(model, layers_only=bool(rank))
            own = {name: shards._local(p)[0].numel() for name, p in model.named_parameters()}
            whole = {name: p.numel() for name, p in model.named_parameters()}
            if rank:
                assert sum(whole.values()) == 32 * (layer + adapters) + rest
                assert sum(own.values()) == 32 * (layer + adapters) // 8 + rest
            else:
                assert sum(whole.values()) == 32 * layer + rest == 6_738_546_688
                assert sum(own.values()) == (32 * layer + rest) // 8
            learning = [p for p in model.parameters() if p.requires_grad]
            assert {p.dtype for p in learning} == {torch.float32}

    assert in_ranks(1, work) == [0]
