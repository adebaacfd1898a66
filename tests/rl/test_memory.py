"""The memory plan of online RL against runs: bytes of tensors that live while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import rl_runs
import torch
from transformers import LlamaConfig

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.models.base import save_model
from e2h_pipeline.models.load import load_policy
from e2h_pipeline.models.memory import GB, Cards, largest
from e2h_pipeline.models.shapes import Meter, evaluator, language_model
from e2h_pipeline.problems.records import easy_table, question_table
from e2h_pipeline.problems.source import load_split
from e2h_pipeline.recipe import GrpoRl, LadderProblems, OnlineRl, PpoRl
from e2h_pipeline.rl.memory import online
from e2h_pipeline.rl.online.grpo import Grpo
from e2h_pipeline.rl.online.models import Run
from e2h_pipeline.rl.online.ppo import Ppo

TOLERANCE = 0.05
PROMPT, COMPLETION = 20, 44
HOST = Cards(GB, accelerator=False)
SHAPE = LlamaConfig(
    vocab_size=2000,
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=256,
)
FIELDS: dict[str, Any] = {
    "updates": 3,
    "rollouts": 8,
    "samples_per_question": 2,
    "minibatch": 4,
    "max_new_tokens": COMPLETION,
    "pass_tokens": 128,
    "temperature": 1.0,
    "max_kl": 1000,
}


class Enough(Exception):
    """The measured updates are over."""


class Two(Reporter):
    """Ends the run after two updates: the second has all of the optimizer's states."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        if step == 2:
            raise Enough


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    split = load_split(LadderProblems(train_per_level=10, validation=4))
    for name, table in (("easy_problems", easy_table(split)), ("hard_questions", question_table(split.hard))):
        (folder / name).mkdir()
        write_table(folder / name / "data.parquet", table)
    return folder


def save_models(folder: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    _, tokenizer = load_policy(rl_runs.SHIPPED)
    save_model(language_model(SHAPE, dtype), tokenizer, folder / "policy")
    save_model(evaluator(SHAPE, dtype), tokenizer, folder / "evaluator")


def peak_of_a_run(options: OnlineRl, folder: Path, tables: Path) -> int:
    """Bytes of weights, and of all other tensors at their peak. (Copies of weights are seen when the
    optimizer writes to them.)"""
    meters: list[Meter] = []
    weights = 0

    class Measured(Ppo if isinstance(options, PpoRl) else Grpo):  # type: ignore[misc]
        def start(self, job: Any) -> Run[Any]:
            nonlocal weights
            run = super().start(job)
            with run.judge() as judge, run.reference() as reference:
                models = {id(m): m for m in (*run.trained.values(), *judge.models, reference)}
            parameters = {id(p): p.nbytes for m in models.values() for p in m.parameters()}
            weights = sum(parameters.values())
            meters.append(Meter(*models.values()).__enter__())
            return run

    job = rl_runs.job(options, folder / "policy", folder / "evaluator", tables, folder, Two())
    try:
        Measured().train(job)
    except Enough:
        meters[0].__exit__(None, None, None)
    return weights + meters[0].total


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        (PpoRl(**FIELDS | {"gradient_checkpointing": True}), torch.bfloat16),
        (PpoRl(**FIELDS | {"lora_rank": 8}), torch.bfloat16),
        (GrpoRl(**FIELDS | {"pass_tokens": 2000}), torch.float32),
    ],
    ids=["checkpointing and bfloat16", "lora and bfloat16", "grpo with long passes"],
)
def test_the_plan_is_what_a_run_takes(
    options: OnlineRl, dtype: torch.dtype, tmp_path: Path, tables: Path
) -> None:
    save_models(tmp_path, dtype)
    taken = peak_of_a_run(options, tmp_path, tables)
    phase = largest(online(SHAPE, SHAPE, dtype, options, HOST, PROMPT))
    assert phase.bytes == pytest.approx(taken, rel=TOLERANCE), (phase, taken)
