"""Adapters in online algorithms: what is shared, what learns, what is saved."""

import copy
from pathlib import Path
from typing import Any

import pytest
import rl_runs
import torch
from architectures import save_tiny
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from e2h_pipeline.models.adapters import add_adapter, learning, linear_layers, merged, save_adapter
from e2h_pipeline.models.base import save_model
from e2h_pipeline.models.load import load_evaluator, load_policy, new_evaluator
from e2h_pipeline.recipe import OnlineRl
from e2h_pipeline.rl.online.grpo import Grpo
from e2h_pipeline.rl.online.loop import train_online
from e2h_pipeline.rl.online.models import Run
from e2h_pipeline.rl.online.ppo import Ppo
from e2h_pipeline.rl.progress import Progress

RANK = 2
PPO = rl_runs.LORA
GRPO = rl_runs.GRPO.model_copy(update={"lora_rank": RANK, "epochs": 1, "max_new_tokens": 16})
IDS = torch.arange(3, 13).reshape(2, 5)


def _logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def _moved(run: Run[Any]) -> Run[Any]:
    """The run, everything that learns moved at random."""
    torch.manual_seed(5)
    for parameters in run.learning.values():
        for parameter in parameters:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return run


def _start(options: OnlineRl, policy: Path, evaluator: Path, folder: Path) -> Run[Any]:
    algorithm: Any = Ppo() if options.algorithm == "ppo" else Grpo()
    return algorithm.start(rl_runs.job(options, policy, evaluator, folder, folder))  # type: ignore[no-any-return]


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def pair(
    request: pytest.FixtureRequest, ladder_policy: Path, ladder_evaluator: Path, tmp_path: Path
) -> tuple[Path, Path]:
    """Policy and evaluator in a number format."""
    for name, (model, tokenizer) in {
        "policy": load_policy(ladder_policy),
        "evaluator": load_evaluator(ladder_evaluator),
    }.items():
        save_model(model.to(request.param), tokenizer, tmp_path / name)
    return tmp_path / "policy", tmp_path / "evaluator"


def test_without_its_adapter_a_model_is_what_it_was_to_the_bit(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    run = _moved(_start(PPO, *pair, tmp_path))
    sft, evaluator = load_policy(pair[0])[0], load_evaluator(pair[1])[0]
    with run.reference() as reference:
        assert reference is run.policy
        assert torch.equal(_logits(reference), _logits(sft))
    with run.judge() as judge, run.using("critic") as critic:
        assert critic.base_model is judge.models[0].base_model
    with run.judge() as judge:
        assert torch.equal(_logits(judge.models[0]), _logits(evaluator))
    assert not torch.allclose(_logits(run.policy), _logits(sft), atol=1e-2)
    with run.using("critic") as critic:
        assert not torch.allclose(_logits(critic), _logits(evaluator), atol=1e-2)
    assert all(p.dtype == torch.float32 for p in run.learning["policy"])


def test_an_adapter_changes_nothing_before_it_learns(pair: tuple[Path, Path], tmp_path: Path) -> None:
    run = _start(PPO, *pair, tmp_path)
    assert torch.equal(_logits(run.policy), _logits(load_policy(pair[0])[0]))
    with run.using("critic") as critic:
        assert not _logits(critic).any()


def test_a_merged_policy_gives_the_same_log_probabilities(pair: tuple[Path, Path], tmp_path: Path) -> None:
    run = _moved(_start(PPO, *pair, tmp_path))
    run.save(tmp_path / "update-000001", Progress())
    folder = run.whole_policy(tmp_path / "update-000001")
    whole = AutoModelForCausalLM.from_pretrained(folder)
    sft = load_policy(pair[0])[0]
    assert {(n, p.dtype) for n, p in whole.named_parameters()} == {
        (n, p.dtype) for n, p in sft.named_parameters()
    }
    if whole.dtype == torch.float32:
        found, wanted = (_logits(model).log_softmax(-1) for model in (whole, run.policy))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    layer: Any = run.policy.model.layers[1].mlp.down_proj
    exact = layer.base_layer.weight.float() + 2 * layer.lora_B.policy.weight @ layer.lora_A.policy.weight
    assert torch.equal(whole.model.layers[1].mlp.down_proj.weight, exact.to(whole.dtype))


def test_an_adapter_of_other_names_is_not_merged(ladder_policy: Path, tmp_path: Path) -> None:
    """PEFT only warns, and the policy would be the SFT policy."""
    model, _ = load_policy(ladder_policy)
    add_adapter(model, "policy", RANK, (), 0)
    save_adapter(model, "policy", learning(model, "policy"), tmp_path)
    with pytest.raises(ValueError, match="do not fit the model that they are to be merged into"):
        merged(load_policy(ladder_policy)[0], tmp_path)


def test_what_learns_is_as_many_numbers_as_reckoned(
    ladder_policy: Path, ladder_evaluator: Path, tmp_path: Path
) -> None:
    """A layer of n inputs and m outputs has rank x (n + m); the critic has a head too."""
    run = _start(PPO, ladder_policy, ladder_evaluator, tmp_path)
    plain = load_policy(ladder_policy)[0]
    shapes = [plain.get_submodule(name).weight.shape for name in linear_layers(plain)]
    reckoned = RANK * sum(n + m for n, m in shapes)
    assert len(shapes) == 7 * plain.config.num_hidden_layers
    assert sum(p.numel() for p in run.learning["policy"]) == reckoned
    assert sum(p.numel() for p in run.learning["critic"]) == reckoned + plain.config.hidden_size + 1
    run.step("policy")
    assert {id(p) for group in run.optimizers["policy"].param_groups for p in group["params"]} == {
        id(p) for p in run.learning["policy"]
    }
    few = PPO.model_copy(update={"lora_targets": ("q_proj", "v_proj")})
    names = [
        name
        for name, p in _start(few, ladder_policy, ladder_evaluator, tmp_path).policy.named_parameters()
        if p.requires_grad
    ]
    assert len(names) == 2 * 2 * plain.config.num_hidden_layers
    assert all("q_proj" in name or "v_proj" in name for name in names)


def test_a_target_that_is_no_layer_is_refused(
    ladder_policy: Path, ladder_evaluator: Path, tmp_path: Path
) -> None:
    wrong = PPO.model_copy(update={"lora_targets": ("c_attn",)})
    with pytest.raises(ValueError, match=r"no linear layer is called c_attn; there are \['down_proj'"):
        _start(wrong, ladder_policy, ladder_evaluator, tmp_path)
    with pytest.raises(ValueError, match="set lora_rank above 0"):
        OnlineRl.model_validate({"lora_targets": ["q_proj"]})


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "opt", "qwen3_moe"])
def test_any_architecture_goes_on_from_a_checkpoint_and_is_merged(
    name: str, ladder_tok: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    policy = save_tiny(name, ladder_tok, tmp_path / "policy")
    save_model(*new_evaluator(policy), tmp_path / "evaluator")
    run = _moved(_start(PPO, policy, tmp_path / "evaluator", tmp_path))
    run.save(tmp_path / "update-000001", Progress())
    again = _start(PPO, policy, tmp_path / "evaluator", tmp_path)
    again.restore(tmp_path / "update-000001")
    for one, other in zip(run.trained, again.trained, strict=True):
        with run.using(one) as left, again.using(other) as right:
            assert torch.equal(_logits(left), _logits(right))
    whole = AutoModelForCausalLM.from_pretrained(run.whole_policy(tmp_path / "update-000001"))
    torch.testing.assert_close(_logits(whole), _logits(run.policy), rtol=0, atol=1e-4)


def test_a_checkpoint_of_another_rank_is_refused(
    ladder_policy: Path, ladder_evaluator: Path, tmp_path: Path
) -> None:
    _start(PPO, ladder_policy, ladder_evaluator, tmp_path).save(tmp_path / "update-000001", Progress())
    other = PPO.model_copy(update={"lora_rank": RANK + 1})
    with pytest.raises(ValueError, match="do not fit the model; remove the folder"):
        _start(other, ladder_policy, ladder_evaluator, tmp_path).restore(tmp_path / "update-000001")


@pytest.mark.parametrize("options", [PPO, GRPO], ids=["ppo", "grpo"])
def test_a_run_moves_adapters_and_no_bit_of_the_frozen_weights(
    options: OnlineRl, ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    kept: list[tuple[Run[Any], dict[str, dict[str, Tensor]]]] = []

    class Watched(Ppo if options.algorithm == "ppo" else Grpo):  # type: ignore[misc]
        def start(self, job: Any) -> Run[Any]:
            run = super().start(job)
            kept.append((run, {n: copy.deepcopy(m.state_dict()) for n, m in run.trained.items()}))
            return run

    job = rl_runs.job(options, rl_runs.SHIPPED, ladder_evaluator, ladder_tables, tmp_path)
    summary = train_online(Watched(), job)
    ((run, before),) = kept
    for name, model in run.trained.items():
        after = model.state_dict()
        moved = {key for key in after if not torch.equal(after[key], before[name][key])}
        assert moved == {key for key in after if ".lora_" in key or key.startswith("score.")}
    assert abs(summary["final_kl"]) > 1e-6
    last = tmp_path / "work" / "update-000005"
    assert {path.name for path in (last / "policy").glob("*.safetensors")} == {"adapter_model.safetensors"}
    adapter = load_file(last / "policy" / "adapter_model.safetensors")
    assert sum(t.numel() for t in adapter.values()) == sum(p.numel() for p in run.learning["policy"])
    masters = sum(tensor.numel() for tensor in rl_runs.learned_weights(last).values())
    assert masters == sum(p.numel() for parameters in run.learning.values() for p in parameters)
    out, _ = load_policy(tmp_path / "out")
    sft, after = load_policy(rl_runs.SHIPPED)[0].state_dict(), out.state_dict()
    assert all("_proj" in name for name, tensor in sft.items() if not torch.equal(tensor, after[name]))
