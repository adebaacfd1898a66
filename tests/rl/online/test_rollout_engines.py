"""Rollouts of engines that are not the trainer: versions, the gap of log-probabilities, and a run
that loses its engine."""

import json
import math
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import rl_runs
import torch
from gloo_ranks import in_ranks
from safetensors.torch import load_file

from assets.rl_policy import rl_policy
from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.generation.engines.fleet import RolloutEngineError, Settings, Weights
from e2h_pipeline.generation.engines.live import LiveTransformers
from e2h_pipeline.generation.engines.protocol import Sample, SampleRequest, SamplingOptions
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.rl.online import models, rollout_engines
from e2h_pipeline.rl.online.losses import clipped_policy_loss, importance_weights, sampler_gap
from e2h_pipeline.rl.online.rollout_engines import Embedded, StaleRollouts
from e2h_pipeline.stages.spec import STAGES, narrow
from resources.supervise import descendants

SMALL = {"updates": 3, "max_new_tokens": 12, "checkpoint_every": 2, "max_kl": 100.0}
PPO, GRPO = rl_runs.PPO.model_copy(update=SMALL), rl_runs.GRPO.model_copy(update=SMALL)
FOREIGN = 99.0


@pytest.fixture
def inputs(ladder_policy: Path, ladder_evaluator: Path, ladder_tables: Path) -> tuple[Path, Path, Path]:
    """What `rl_runs.run` reads, in its order."""
    return ladder_policy, ladder_evaluator, ladder_tables


def test_importance_weights_by_hand() -> None:
    # p_trainer / p_sampler of .2/.1, .1/.2, .3/.1, .1/.1: 2, 0.5, 3 and 1, cut at 2.5
    old, sampler = torch.tensor([[0.2, 0.1, 0.3, 0.1]]).log(), torch.tensor([[0.1, 0.2, 0.1, 0.1]]).log()
    weights = importance_weights(old, sampler, 2.5)
    assert weights[0].tolist() == pytest.approx([2.0, 0.5, 2.5, 1.0])
    # ratio 1, advantages 1, -1, 2 and padding: (2 - 0.5 + 5) / 3
    advantages, mask = torch.tensor([[1.0, -1.0, 2.0, FOREIGN]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    assert clipped_policy_loss(old, old, advantages, mask, 0.2, weights).item() == pytest.approx(-6.5 / 3)
    # clipped before it is weighted: ratio 1.5 counts as 1.2
    loss = clipped_policy_loss(old + torch.tensor(1.5).log(), old, advantages, mask, 0.2, weights)
    assert loss.item() == pytest.approx(-(2 * 1.2 - 0.5 * 1.5 + 5 * 1.2) / 3)


def test_the_gap_by_hand() -> None:
    old, sampler = torch.tensor([[-1.0, -2.0, FOREIGN]]), torch.tensor([[-1.5, -1.9, 0.0]])
    found = sampler_gap(old, sampler, torch.tensor([[1.0, 1.0, 0.0]]))
    assert found == pytest.approx({"sampler_gap": 0.3, "sampler_gap_max": 0.5})


class Other(Embedded):
    """An engine whose log-probabilities are off by `OFF`, as of another number format."""

    OFF = 0.0

    def sample(self, requests: Sequence[SampleRequest], options: SamplingOptions) -> list[list[Sample]]:
        """See `RolloutEngine`."""
        self.exact = False
        drawn = super().sample(requests, options)
        return [
            [replace(s, token_logprobs=tuple(p - self.OFF for p in s.token_logprobs)) for s in d]
            for d in drawn
        ]


class Stale(Embedded):
    """An engine that misses all new weights but the first."""

    def take_weights(self, version: int) -> None:
        """See `RolloutEngine`."""
        self._version = self._version or 0


def test_tokens_count_by_the_gap_up_to_the_cap(
    inputs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every weight is 1, e^0.05, then 1.02: the gradient is that of an exact engine times it."""
    norms, gaps = [], []
    for name, engine, off, cap in (
        ("exact", Embedded, 0.0, 2.0),
        ("no gap", Other, 0.0, 2.0),
        ("gap", Other, 0.05, 2.0),
        ("cap", Other, 0.05, 1.02),
    ):
        monkeypatch.setattr(Other, "OFF", off)
        monkeypatch.setattr(models, "Embedded", engine)
        options = GRPO.model_copy(
            update={"updates": 1, "epochs": 1, "minibatch": 12, "kl": 0.0, "importance_cap": cap}
        )
        rl_runs.run(options, *inputs, tmp_path / name)
        curve = json.loads((tmp_path / name / "out" / "curves.jsonl").read_text().splitlines()[0])
        norms.append(curve["gradient_norm"])
        gaps.append((curve.get("sampler_gap"), curve.get("sampler_gap_max")))
    assert gaps[0] == (None, None)
    for found, expected in zip(gaps[1:], (0.0, 0.05, 0.05), strict=True):
        assert found == pytest.approx((expected, expected), abs=1e-4)
    assert [norm / norms[0] for norm in norms] == pytest.approx([1.0, 1.0, math.exp(0.05), 1.02], rel=1e-3)


def test_a_gap_that_is_wide_stops_the_run(
    inputs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Other, "OFF", 0.3)
    monkeypatch.setattr(models, "Embedded", Other)
    summary = rl_runs.run(PPO, *inputs, tmp_path)
    assert summary["updates"] == summary["best_update"] == 0
    assert summary["stopped"].startswith(
        "sampler_gap, between the log-probabilities of the trainer and of the rollout engine, is 0.30 per token, "
        "above rl.guards.sampler_gap=0.1"
    )


def test_rollouts_of_other_weights_are_refused(
    inputs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "Embedded", Stale)
    with pytest.raises(
        StaleRollouts, match=r"update 2 asked for rollouts of the weights of version 1, and got rollouts of 0"
    ):
        rl_runs.run(PPO, *inputs, tmp_path)


class Murderer(Reporter):
    """Kills this process's rollout engine when an update is done."""

    def __init__(self, update: int) -> None:
        super().__init__()
        self._update = update

    def metrics(self, values: dict[str, float], step: int) -> None:
        """See `Reporter.metrics`."""
        if step == self._update and "kl" in values:
            (engine,) = _engines()
            os.kill(engine, signal.SIGKILL)


def _engines() -> list[int]:
    """Rollout engines of this process."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in descendants(os.getpid())}
    return [
        pid
        for pid, command in commands.items()
        if command[1:3] == ["-m", "e2h_pipeline.generation.engines.host"]
    ]


def test_a_run_that_loses_its_engine_fails_and_goes_on_with_two_to_what_one_process_makes(
    inputs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PPO.model_copy(update=rl_runs.LAG)
    rl_runs.run(options, *inputs, tmp_path / "one")
    monkeypatch.setenv("E2H_ROLLOUT_ENGINES", "1")
    with pytest.raises(RolloutEngineError, match=r"rollout engine 0 \(transformers\) ended by SIGKILL"):
        rl_runs.run(options, *inputs, tmp_path / "two", Murderer(2))
    assert _engines() == []
    assert [path.name for path in (tmp_path / "two" / "work").iterdir() if "engine" in path.name] == []
    monkeypatch.setenv("E2H_ROLLOUT_ENGINES", "2")
    rl_runs.run(options, *inputs, tmp_path / "two")
    assert _engines() == []
    one, two = (
        load_file(tmp_path / name / "work/update-000003/policy/model.safetensors") for name in ("one", "two")
    )
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=0, atol=1e-5)
    assert _same_rollouts(tmp_path / "one", tmp_path / "two") == [0, 0, 2]
    curves = [json.loads(line) for line in (tmp_path / "two/out/curves.jsonl").read_text().splitlines()]
    assert all(0 < curve["sampler_gap"] <= curve["sampler_gap_max"] for curve in curves)
    assert [curve["sampler_gap_max"] < 1e-4 for curve in curves] == [True, False, True]


class Here:
    """One live engine in this process, in the place of a fleet."""

    def __init__(
        self, engine: str, model: Path, tokenizer: object, settings: Settings, folder: Path, adapter_rank: int
    ) -> None:
        assert (engine, settings.engines, os.environ.get("RANK", "0")) == ("transformers", 1, "0")
        self._live, self._folder, self._adapted = LiveTransformers(model), folder, adapter_rank > 0

    def take_weights(self, weights: Weights, version: int) -> None:
        """See `Fleet`."""
        assert not self._adapted
        self._live.start()
        with torch.no_grad():
            for info, tensor in zip(weights.infos(), weights.tensors(), strict=True):
                self._live.model.get_parameter(info.name).copy_(tensor)
                assert tensor.shape == info.shape
        self._live._missing.clear()
        assert self._live.finish(version) == version

    def take_adapter(self, save: Callable[[Path], None], version: int) -> None:
        """See `Fleet`."""
        assert self._adapted
        folder = self._folder / f"adapter-{version}"
        save(folder)
        assert self._live.take_adapter(folder, version) == version

    def begin(self, requests: Sequence[SampleRequest], options: SamplingOptions) -> None:
        """See `Fleet`. It draws as late as it can."""
        self._asked = requests, options

    def drawn(self) -> list[list[Sample]]:
        """See `Fleet`."""
        return self._live.sample(*self._asked)

    def require_alive(self) -> None:
        """It is."""

    def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize(("rank", "sharded", "lag"), [(0, "true", 0), (2, "false", 1)])
def test_rank_0_drives_the_engine_with_lora_it_sends_the_adapter(
    rank: int,
    sharded: str,
    lag: int,
    inputs: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same rollouts as of one process that draws itself."""
    options = PPO.model_copy(
        update={"lora_rank": rank, "learning_rate": 3e-4, "lag": lag, "checkpoint_every": 2 + lag}
    )
    rl_runs.run(options, *inputs, tmp_path / "one")
    monkeypatch.setenv("E2H_ROLLOUT_ENGINES", "1")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", sharded)
    monkeypatch.setattr(rollout_engines, "Fleet", Here)
    assert in_ranks(2, lambda: rl_runs.run(options, *inputs, tmp_path / "two")) == [0, 0]
    made_by = _same_rollouts(tmp_path / "one", tmp_path / "two")
    assert made_by == ([0, 0, 1] if lag else [0, 1, 2])
    curves = [json.loads(line) for line in (tmp_path / "two/out/curves.jsonl").read_text().splitlines()]
    own = [version == update for update, version in enumerate(made_by)]
    assert [curve["sampler_gap_max"] < 1e-4 for curve in curves] == own
    sent = {f"adapter-{version}" for version in {*made_by, 3}} if rank else set()
    assert {path.name for path in (tmp_path / "two" / "work").glob("adapter-*")} == sent


def _same_rollouts(one: Path, two: Path) -> list[int]:
    """Compare the rollouts of two runs; the version of the weights that drew for each update."""
    tables = [read_table(folder / "out" / "rollouts.parquet") for folder in (one, two)]
    for column in ("update", "problem_id", "answer", "tokens", "weights"):
        assert tables[0][column] == tables[1][column]
    made = dict(zip(tables[1]["update"].to_pylist(), tables[1]["weights"].to_pylist(), strict=True))
    return [made[update] for update in sorted(made)]


def test_the_engine_is_in_the_key_where_it_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rl_policy.key.path == ["rl_policy"]
    spec = STAGES["rl_policy"]
    for key, expected in (("ladder", [False, True]), ("ladder/rl.algorithm=rest", [True, True])):
        view = narrow(Recipe.from_key(key), spec.sections)
        for engines, drawn in zip(("0", "2"), expected, strict=True):
            monkeypatch.setenv("E2H_ROLLOUT_ENGINES", engines)
            assert ("engine" in spec.registries(view)) == spec.samples(view) == drawn
