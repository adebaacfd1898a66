"""Stage bodies that run in several processes, for the tests of `accelerate launch`. Not assets."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.recipe import PrmReward
from e2h_pipeline.solutions import MARKED
from resources.compute import BODIES

# 31 examples in batches of 8: the last has 7, which two processes cannot share evenly
OPTIONS = {"epochs": 2, "batch_size": 8, "micro_batch_size": 2, "learning_rate": 3e-3}


class At(Reporter):
    """Does something in the report of the given update."""

    def __init__(self, update: int, act: Callable[[int], None]) -> None:
        super().__init__()
        self._update, self._act = update, act

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        if step == self._update:
            self._act(step)


def die(_: int) -> None:
    """SIGKILL to this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def stumble(update: int) -> None:
    """An error like that of a reporter."""
    raise ValueError(f"cannot report update {update}")


def train(job: StageJob) -> dict[str, Any]:
    """A tiny process reward model from the files that E2H_TEST_INPUTS names."""
    from e2h_pipeline.rewards.train import train_reward_model

    print(f"rank {os.environ.get('RANK')} speaks", flush=True)
    if os.environ.get("E2H_TEST_SHARD_ON_CPU"):
        shard_on_cpu()
    policy, labels = (Path(os.environ["E2H_TEST_INPUTS"]) / name for name in ("policy", "labels"))
    training = {**OPTIONS, "packing": bool(os.environ.get("E2H_TEST_PACKING"))}
    update = os.environ.get("E2H_TEST_KILL_AT")
    work = replace(job.work, reporter=At(int(update), die)) if update else job.work
    options = PrmReward.model_validate({"training": training})
    return train_reward_model(policy, {"steps": labels}, options, MARKED, work)


FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
}
"""Variables that accelerate's launcher sets for deploy/accelerate/fsdp.yaml."""


def shard_on_cpu() -> None:
    """Let accelerate shard on CPUs. It reads FSDP's settings only if processes have an accelerator
    (`accelerate.state.AcceleratorState`), although torch can shard on any device. Nothing else is
    changed."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    found = PartialState.__init__

    def called_gpu(self: Any, *args: Any, **options: Any) -> None:
        found(self, *args, **options)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = called_gpu


def stumbling_rl(job: StageJob) -> dict[str, Any]:
    """GRPO of which rank 1 fails in update 3 (E2H_TEST_STUMBLE_AT). Files of E2H_TEST_INPUTS."""
    import rl_runs

    inputs = Path(os.environ["E2H_TEST_INPUTS"])
    update = int(os.environ.get("E2H_TEST_STUMBLE_AT", "3"))
    reporter = At(update, stumble) if os.environ["RANK"] == "1" else job.work.reporter
    options = rl_runs.GRPO.model_copy(update={"learning_rate": 3e-4})
    return rl_runs.run(options, rl_runs.SHIPPED, inputs / "evaluator", inputs, job.work.folder, reporter)


def broken(job: StageJob) -> dict[str, Any]:
    """Rank 1 fails by itself, and rank 0 because of rank 1."""
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=True)
    if state.process_index == 1:
        raise ValueError("bad example in line 7")
    torch.distributed.all_reduce(torch.ones(1))
    return {}


def killed(job: StageJob) -> dict[str, Any]:
    """Rank 1 dies as if memory had run out."""
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=True)
    if state.process_index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.all_reduce(torch.ones(1))
    return {}


def endless(job: StageJob) -> dict[str, Any]:
    """Each rank notes its pid and never ends."""
    (Path(os.environ["TOY_PIDS"]) / os.environ["RANK"]).write_text(str(os.getpid()))
    time.sleep(600)
    return {}


BODIES.update(train=train, stumbling_rl=stumbling_rl, broken=broken, killed=killed, endless=endless)
