"""A base model that a recipe cannot sample from or train is refused before anything is computed."""

import re
from pathlib import Path

import pytest
from architectures import save_tiny
from transformers import PreTrainedTokenizerFast

from e2h_pipeline.recipe import MathProblems, Recipe
from e2h_pipeline.stages.model_fit import model_findings


def _recipe(**sections: object) -> Recipe:
    small = {name: {"max_new_tokens": 64} for name in ("sampling", "easy_samples", "rl")}
    training = {"sft": {"max_tokens": 200}, "reward": {"training": {"max_tokens": 200}}}
    return Recipe.model_validate({"name": "x", "problems": MathProblems(), **small, **training, **sections})


@pytest.mark.parametrize(
    ("model", "options", "sections", "finding"),
    [
        ("llama", {}, {}, None),
        (
            "mistral",
            {"sliding_window": 100},
            {},
            r"_samples: .* attends to 100 tokens only, and samples may have",
        ),
        ("bloom", {}, {}, r"has an attention of its own.*E2H_ENGINE=vllm"),
        ("gpt2", {"n_positions": 512}, {}, None),
        ("gpt2", {}, {"sampling": {"max_new_tokens": 256}}, r"sampling: .* knows 256 positions"),
        (
            "gpt2",
            {"n_positions": 512},
            {"sft": {"max_tokens": 600}},
            r"sft.max_tokens=600, and the model knows 512",
        ),
        (
            "opt",
            {},
            {"reward": {"training": {"max_tokens": 300}}},
            r"reward.training.max_tokens=300.* knows 256",
        ),
        (
            "gptj",
            {},
            {"reward": {"training": {"packing": True, "max_tokens": 200}}},
            r"has an attention of its own.*E2H_ENGINE=vllm",
        ),
    ],
)
def test_what_does_not_fit_is_found(
    model: str,
    options: dict[str, int],
    sections: dict[str, object],
    finding: str | None,
    bpe_tok: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    folder = save_tiny(model, bpe_tok, tmp_path, **options)
    findings, _ = model_findings(folder, _recipe(**sections), "transformers")
    if finding is None:
        assert findings == []
    else:
        assert re.search(finding, findings[0])


def test_packing_and_reinforcement_learning_are_looked_at(
    bpe_tok: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    folder = save_tiny("bloom", bpe_tok, tmp_path)
    packed = {"sft": {"packing": True, "max_tokens": 200}, "reward": {"training": {"max_tokens": 200}}}
    findings, rl = model_findings(folder, _recipe(**packed), "transformers")
    assert findings[-1].startswith("sft: BloomForCausalLM")
    assert not any("reward.training" in finding for finding in findings)
    packed["reward"]["training"]["packing"] = True
    findings, rl = model_findings(folder, _recipe(**packed), "transformers")
    assert findings[-1].startswith("reward.training: BloomForCausalLM")
    assert "packing=false" in findings[-1]
    assert rl is not None
    assert "attention of its own" in rl


def test_the_engine_at_hand_is_asked(bpe_tok: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Bloom is refused by the embedded engine alone; vLLM is not installed here, and says so."""
    findings, _ = model_findings(save_tiny("llama", bpe_tok, tmp_path), _recipe(), "vllm")
    assert findings == [] or "vLLM" in findings[0]
