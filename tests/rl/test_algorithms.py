"""Every entry of the registry fits the protocol, and none is in the code version of another."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import rl_runs
import torch

from e2h_pipeline.artifacts.code_version import changed_since
from e2h_pipeline.recipe import OnlineRl
from e2h_pipeline.registry import ALGORITHMS
from e2h_pipeline.rl.algorithms import EVERY_INPUT, RlJob
from e2h_pipeline.rl.online.loop import train_online
from e2h_pipeline.rl.online.models import Run
from e2h_pipeline.rl.online.optimize import optimize
from e2h_pipeline.rl.online.passes import Pass, token_logprobs
from e2h_pipeline.rl.online.protocol import Update

OWN = {
    "ppo": "online/ppo.py",
    "grpo": "online/grpo.py",
    "rest": "rounds/rest_em.py",
    "dpo": "rounds/preference.py",
}
ROOT = Path(__file__).parents[2] / "e2h_pipeline" / "rl"


def _files(word: str) -> set[str]:
    """Modules of `rl` whose code enters the version of an algorithm."""
    files = changed_since([ALGORITHMS.code(word)], -1)
    return {str(path.relative_to(ROOT)) for path in files if path.is_relative_to(ROOT)}


@pytest.mark.parametrize("word", OWN)
def test_an_entry_says_what_it_reads_and_whether_it_draws_with_the_engine(word: str) -> None:
    entry = ALGORITHMS.load(word)
    assert callable(entry().train)
    assert not set(entry.reads) & set(EVERY_INPUT)
    assert entry.reads == (("base_model",) if word == "rest" else ())
    assert entry.samples is (word in ("rest", "dpo"))


@pytest.mark.parametrize("word", OWN)
def test_an_edit_of_an_algorithm_re_makes_no_policy_of_another(word: str) -> None:
    files = _files(word)
    assert OWN[word] in files
    assert not files & (set(OWN.values()) - {OWN[word]})
    other = "rounds/" if OWN[word].startswith("online/") else "online/"
    assert not any(name.startswith(other) for name in files)


def test_entries_are_light_to_import() -> None:
    heavy = "torch", "transformers", "vllm", "datasets", "mlflow", "ray"
    targets = [ALGORITHMS.target(word).partition(":")[0] for word in OWN]
    code = f"import sys, {', '.join(targets)}\nprint([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@dataclass
class Imitate:
    """An installed package's algorithm on the online loop: the policy imitates its own rollouts,
    good or bad."""

    name = "imitation"
    reads: tuple[str, ...] = ()
    samples = False
    distributed = False

    def train(self, job: RlJob[OnlineRl]) -> dict[str, Any]:
        return train_online(self, job)

    def start(self, job: RlJob[OnlineRl]) -> Run[OnlineRl]:
        return Run(job)

    def learn(self, run: Run[OnlineRl], update: Update) -> dict[str, float]:
        def losses(part: Pass) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
            logprobs, _ = token_logprobs(run.policy, part.batch, run.options.temperature)
            loss = -(logprobs * part.batch.mask).sum() / part.batch.mask.sum()
            return {"policy": loss}, {"policy_loss": loss.item()}

        return optimize(run, update, losses, ["policy"])


def test_an_algorithm_of_a_few_lines_runs_on_the_loop(
    ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    options = OnlineRl(**rl_runs.PPO.model_dump(include=set(OnlineRl.model_fields) - {"algorithm"}))
    job = rl_runs.job(options, rl_runs.SHIPPED, ladder_evaluator, ladder_tables, tmp_path)
    summary = Imitate().train(job)
    assert (summary["updates"], summary["stopped"]) == (5, None)
    assert summary["final_policy_loss"] > 0
    assert (tmp_path / "out" / "rollouts.parquet").is_file()
