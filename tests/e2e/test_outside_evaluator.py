"""An experiment whose evaluator others have trained, from its files to its numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from outside_models import layout_tokenizer, save_qwen_prm
from tiny_experiment import e2h

pytestmark = pytest.mark.slow
JUDGED = ("rl_policy", "rerank_metrics", "early_stop_metrics", "evaluator_generalization")
KEY = "outside/rl.updates=2/early_stop.enabled=true"


@pytest.fixture(scope="module")
def home(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of all tests here, with a recipe beside `tiny`."""
    theirs = save_qwen_prm(tmp_path_factory.mktemp("theirs") / "prm", layout_tokenizer())[0]
    (tiny_home / "recipes" / "outside.yaml").write_text(
        f"extends: tiny\nstrict: false\nreward: {{kind: outside, evaluator: {theirs}}}\n"
    )
    return tiny_home


def test_every_stage_is_judged_by_it_and_its_numbers_are_marked(home: Path) -> None:
    done = e2h(home, "run", KEY, "--select", f"+{',+'.join(JUDGED)}")
    assert done.returncode == 0, done.stdout + done.stderr
    computed = set(re.findall(r"^  (\w+) +computed ", done.stdout, re.MULTILINE))
    assert {"easy_evaluator", "benchmark_samples", "rerank_scores", *JUDGED} <= computed
    assert not {"base_model", "sft_policy", "easy_samples", "easy_step_labels"} & computed
    rows = json.loads(e2h(home, "results", KEY, "--json").stdout)
    assert rows and not any(row["strict"] for row in rows)
    (manifest,) = [
        made
        for path in (home / "store" / "easy_evaluator").glob("*/manifest.json")
        if (made := json.loads(path.read_text()))["recipe"]["reward"]["kind"] == "outside"
    ]
    assert manifest["summary"]["members"][0]["layout"] == "qwen-prm"
    assert any("model.safetensors" in files for files in manifest["external"].values())
    refused = e2h(home, "recipes", f"{KEY}/strict=true")
    assert refused.returncode == 1 and "needs strict: false" in refused.stderr
