"""A model's card: what it says, and that its code runs with transformers alone and scores as we do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.artifacts.hashing import data_version
from e2h_pipeline.models.base import SHIPPED, save_model
from e2h_pipeline.models.load import load_policy, new_evaluator
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.registry import DOMAINS
from e2h_pipeline.rewards.evaluators import open_evaluator
from e2h_pipeline.stages.model_card import Made, write_model_card

LADDER = DOMAINS.load("ladder").text
SUMMARY = {
    "updates": 7,
    "validation_step_auroc": 0.93761,
    "labels": {"steps": 12},
    "rl_seconds": 3.0,
    "host": "x",
}


def _card(folder: Path, key: str = "ladder", summary: Mapping[str, Any] = SUMMARY) -> str:
    lineage = [{"asset": "easy_problems", "data_version": "e" * 64}]
    write_model_card(folder, Made("stage", "a" * 64, "c" * 16, Recipe.from_key(key), lineage, summary))
    return (folder / "README.md").read_text() if (folder / "README.md").exists() else ""


def _run(card: str, folder: Path) -> str:
    """What the card's code prints, in a process without this package."""
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code += "\nimport sys\nassert not any(name.startswith('e2h_pipeline') for name in sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluator with a head that tells steps apart."""
    import torch

    folder = tmp_path_factory.mktemp("evaluator")
    model, tokenizer = new_evaluator(SHIPPED / "ladder-base")
    with torch.no_grad():
        model.score.weight.copy_(torch.linspace(-1, 1, model.score.weight.numel()).reshape(1, -1))
    model.config.prompt_heading = "# Homework"
    save_model(model, tokenizer, folder)
    return folder


def test_the_code_of_an_evaluators_card_scores_as_we_do(evaluator: Path) -> None:
    card = _card(evaluator)
    assert json.loads((evaluator / "config.json").read_text())["id2label"] == {"0": "right"}
    told = [float(line.split()[0]) for line in _run(card, evaluator).splitlines()]
    solution = ("2+6+4", "2+6=1\n\n1+4=5\n\n# Answer\n\n5", True)
    (logits,) = open_evaluator(evaluator).logits([solution], LADDER, 1000)
    assert len(told) == 3 and len(set(told)) == 3
    assert told == pytest.approx([1 / (1 + 2.718281828**-value) for value in logits], abs=1e-4)


def test_a_card_says_what_the_model_is_and_what_fed_it(evaluator: Path) -> None:
    card = _card(evaluator)
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: token-classification\n")
    assert f"version {'e' * 64} (levels 1, 2, 3 of ladder)" in card and "reward.kind=prm" in card
    assert "| validation_step_auroc | 0.9376 |" in card and "| labels.steps | 12 |" in card
    assert "seconds" not in card and "host" not in card and "strict" not in card.lower()


def test_the_code_of_a_policys_card_writes_a_solution(tmp_path: Path) -> None:
    save_model(*load_policy(SHIPPED / "ladder-base"), tmp_path)
    card = _card(tmp_path, "ladder-ceiling")
    assert "pipeline_tag: text-generation" in card and "**Not strict**" in card
    assert "# Answer" in _run(card, tmp_path)


def test_where_transformers_alone_will_not_do_there_is_no_code(evaluator: Path, tmp_path: Path) -> None:
    """Another reader, scores that are no logits of steps, a chat template; and no model, no card."""
    for key in ("ladder/reward.kind=goal_conditioned", "ladder/base.chat=true"):
        (evaluator / "README.md").unlink(missing_ok=True)
        assert "```" not in _card(evaluator, key) and "e2h score" in _card(evaluator, key)
    (evaluator / "README.md").unlink()
    assert _card(tmp_path) == ""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("")
    (tmp_path / "README.md").write_text("its own")
    assert _card(tmp_path) == "its own"


def test_a_card_is_no_part_of_the_data_version() -> None:
    files = {"config.json": "1", "model.safetensors": "2"}
    assert data_version({**files, "README.md": "3"}) == data_version(files)
