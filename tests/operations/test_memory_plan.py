"""`e2h plan`: what fits, and advice that holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from outside_models import layout_tokenizer, save_qwen_prm
from transformers import AutoConfig
from typer.testing import CliRunner

from e2h_pipeline.cli.app import app
from e2h_pipeline.models.memory import GB, Cards, largest
from e2h_pipeline.models.shapes import published_config
from e2h_pipeline.operations.memory_plan import StagePlan, memory_plan
from e2h_pipeline.recipe import OnlineRl, OutsideReward, Recipe
from e2h_pipeline.rl.memory import online

ROOT = Path(__file__).resolve().parents[2]
SMALL = "ladder/sft.micro_batch_size=8/reward.training.micro_batch_size=8"


def plan(key: str, stage: str, cards: Cards, engine: str = "transformers") -> StagePlan:
    (found,) = memory_plan(Recipe.from_key(key), cards, engine, [stage])
    return found


def test_teachers_of_labels_are_reckoned() -> None:
    """The weak evaluator, and one between it and the student, that a source of labels trains."""
    source = "ladder/labels.source=weak_to_strong/labels.training.micro_batch_size=8"
    weak = plan(source, "easy_step_labels", Cards(100 * GB))
    chain = plan(f"{source}/labels.middle=4", "easy_step_labels", Cards(100 * GB))
    assert len(chain.phases) == 2 * len(weak.phases)
    assert chain.peak.items["weights"] > weak.peak.items["weights"]  # it keeps more layers
    card = Cards(chain.peak.bytes * 2 // 3)
    assert "labels.training." in plan(f"{source}/labels.middle=4", "easy_step_labels", card).advice
    for key in ("ladder", "ladder/labels.source=active/labels.selection=uniform"):
        assert not memory_plan(Recipe.from_key(key), Cards(100 * GB), stages=["easy_step_labels"])


def test_an_evaluator_is_reckoned_by_what_it_is(tmp_path: Path) -> None:
    theirs = save_qwen_prm(tmp_path / "prm", layout_tokenizer())[0]
    ladder = Recipe.from_key(f"{SMALL}/strict=false")
    reward = OutsideReward.model_validate({"evaluator": [str(theirs), str(theirs)]})
    stages = ["easy_evaluator", "rerank_scores"]
    own, others = (
        {found.stage: found for found in memory_plan(recipe, Cards(100 * GB), stages=stages)}
        for recipe in (ladder, ladder.model_copy(update={"reward": reward}))
    )
    assert "optimizer" in own["easy_evaluator"].peak.items
    assert "optimizer" not in others["easy_evaluator"].peak.items  # nothing is trained
    size = AutoConfig.from_pretrained(theirs).vocab_size * 32 * 4  # of the embedding alone
    assert others["rerank_scores"].peak.items["weights"] > 2 * size
    writer = plan("ladder/reward.kind=generative/reward.training.micro_batch_size=8", *_ON_A_CARD)
    assert "optimizer" in writer.peak.items


_ON_A_CARD = ("easy_evaluator", Cards(100 * GB))


@pytest.mark.parametrize("stage", ["sft_policy", "benchmark_samples", "rerank_scores", "rl_policy"])
def test_what_is_advised_fits(stage: str) -> None:
    needed = plan(SMALL, stage, Cards(100 * GB))
    assert needed.fits and not needed.advice
    card = Cards(needed.peak.bytes * 2 // 3)
    found = plan(SMALL, stage, card)
    assert not found.fits
    fields = dict(part.split("=") for part in found.advice.split(", "))
    changed = dict(part.split("=") for part in SMALL.split("/")[1:]) | fields
    key = "/".join(["ladder", *(f"{name}={value}" for name, value in changed.items())])
    assert plan(key, stage, card).fits, found.advice


def test_a_head_fitted_to_states_keeps_no_activations() -> None:
    """Linear probing on the lowest layers (recipe `real-evaluator`) is a pass without gradients."""
    probe = "reward.training.head=regression/reward.training.epochs=0/reward.training.layers=2"
    trained, probed = (
        plan(key, "easy_evaluator", Cards(100 * GB))
        for key in ("ladder/reward.training.layers=2", f"ladder/{probe}")
    )
    assert probed.peak.items["weights"] == trained.peak.items["weights"]
    assert "optimizer" not in probed.peak.items
    assert probed.peak.items["activations"] < trained.peak.items["activations"] / 10


def test_where_no_field_helps_the_card_is_named() -> None:
    found = plan(SMALL, "rerank_scores", Cards(1))
    assert not found.fits and found.advice == "a card of 1 GB"


def test_other_engines_fill_the_card_themselves() -> None:
    own, other = (
        plan(SMALL, "benchmark_samples", Cards(100 * GB), engine) for engine in ("transformers", "vllm")
    )
    assert other.peak.items["key-value cache"] < own.peak.items["key-value cache"] / 100


def test_preference_training_reads_pairs() -> None:
    one, two = (
        plan(f"{SMALL}/rl.algorithm={word}/rl.micro_batch_size=8", "rl_policy", Cards(100 * GB))
        for word in ("rest", "dpo")
    )
    assert two.peak.items["activations"] == pytest.approx(2 * one.peak.items["activations"], rel=0.05)


def test_the_command_says_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2H_HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["plan", SMALL, "--gpu", "1", "--json"])
    found = json.loads(done.stdout)
    assert found["key"] == "ladder/reward.training.micro_batch_size=8/sft.micro_batch_size=8"
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert list(stages) == [
        "sft_policy",
        "easy_evaluator",
        "easy_samples",
        "benchmark_samples",
        "rerank_scores",
        "rl_policy",
    ]
    assert stages["rl_policy"]["fits"] and stages["rl_policy"]["limit"] == GB
    assert stages["rl_policy"]["phases"].keys() >= {"drawing", "learning"}
    refused = CliRunner().invoke(app, ["plan", "ladder", "--gpus", "0"])
    assert str(refused.exception) == "--gpu and --gpus must be 1 or more"


@pytest.mark.slow
def test_only_stages_of_the_experiment_are_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluator of human labels that reranks samples by others needs no policy."""
    monkeypatch.setenv("E2H_HOME", str(tmp_path))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "others.yaml").write_text(
        "scope: reranking\nsamples: {source: file}\nlabels: {source: prm800k}\n"
    )
    done = CliRunner().invoke(app, ["plan", "others", "--gpu", "80", "--json"])
    assert done.exit_code == 0, done.output
    planned = [stage["stage"] for stage in json.loads(done.stdout)["stages"]]
    assert planned == ["easy_evaluator", "rerank_scores"]


def test_a_shipped_recipe_fits_the_card_that_it_names() -> None:
    found = memory_plan(Recipe.from_key("qwen2.5-1.5b"), Cards(24 * GB))
    assert {plan.stage: plan.peak.bytes / GB for plan in found if not plan.fits} == {}


_ROW = re.compile(
    r"\| [^|]+ \| `e2h run ([^ `]+)[^`]*` \| (\d+) x (\d+) GB \| (\d+) \(([a-z-]+)\) \| (yes|no) \|"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", _ROW.findall((ROOT / "docs" / "rl.md").read_text(encoding="utf-8"))[1::2], ids=" ".join
)
def test_the_table_of_the_page_is_what_the_plan_says(row: tuple[str, ...]) -> None:
    """Every second row: the others take ten seconds each."""
    key, cards, gb, reckoned, name, fits = row
    recipe, card = (
        Recipe.from_key(key),
        Cards(int(gb) * GB, int(cards), ranks=int(cards), sharded=cards != "1"),
    )
    assert isinstance(recipe.rl, OnlineRl)
    shape = published_config(recipe.base)
    phases = online(shape, shape, getattr(torch, recipe.base.dtype), recipe.rl, card)
    peak = largest(phases)
    assert (f"{peak.bytes / GB:.0f}", peak.name) == (reckoned, name)
    assert fits == ("yes" if peak.bytes <= card.bytes else "no")
