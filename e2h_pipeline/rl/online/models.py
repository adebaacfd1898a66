"""The models of an online run and their optimizers: how they learn, and their checkpoints."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.models.adapters import (
    adapter_tensors,
    add_adapter,
    learning,
    merged,
    save_adapter,
    switched,
)
from e2h_pipeline.models.base import save_model
from e2h_pipeline.models.strict import load_strictly
from e2h_pipeline.recipe import OnlineRl
from e2h_pipeline.rewards.evaluators import Evaluator, open_evaluator
from e2h_pipeline.rl.algorithms import EVALUATOR, SFT_POLICY
from e2h_pipeline.rl.online import shards
from e2h_pipeline.rl.online.rollout_engines import Embedded, RolloutEngine
from e2h_pipeline.rl.online.shared_engine import SharedEngine
from e2h_pipeline.rl.progress import Progress
from e2h_pipeline.rl.ranks import wait
from e2h_pipeline.training.trainer import is_main_process

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import PreTrainedModel

    from e2h_pipeline.rl.algorithms import RlJob

OptionsOf = TypeVar("OptionsOf", bound=OnlineRl)

_FINAL_LR_RATIO = 0.01
_BETAS = (0.9, 0.95)  # the paper's released code
_ADAM_EPSILON = 1e-5
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's, as torch names them


class Run(Generic[OptionsOf]):
    """Models and optimizers of one run.

    Weights in half precision have a copy in float32 that the optimizer works on (`masters`):
    bfloat16 cannot represent a step of 2e-5.

    With `rl.lora_rank`, models that learn are adapters on frozen weights: the policy's on those of
    the SFT policy, the critic's on those of the evaluator. So the SFT policy and the evaluator are
    only borrowed for a while (`reference`, `judge`).

    Attributes:
        sharded: models are split over the ranks.
        dtype: number format of the policy's products and of its file.
        parameters: of the policy, without adapters.
        trained: models with an optimizer each: "policy", and those that an algorithm adds.
        learning: the parameters of each trained model that its optimizer moves.
        peaks: peak learning rate of each trained model.
        notes: what people should know of the set-up, for the summary.
    """

    def __init__(self, job: RlJob[OptionsOf]) -> None:
        from e2h_pipeline.models.load import load_policy

        self.options, self._inputs, self._seed = job.options, job.inputs, job.work.seed
        self.sharded = shards.wanted()
        self.policy, self.tokenizer = load_policy(job.inputs[SFT_POLICY])
        self.dtype, self.parameters = self.policy.dtype, self.policy.num_parameters()
        self._reference = self.policy
        if not self.options.lora_rank:
            self._reference = load_policy(job.inputs[SFT_POLICY])[0].requires_grad_(False)
        self._evaluator = open_evaluator(job.inputs[EVALUATOR])
        for model in self._evaluator.models:
            model.requires_grad_(False)
        self.notes: dict[str, str] = {}
        self.trained: dict[str, PreTrainedModel] = {}
        self.learning: dict[str, list[Parameter]] = {}
        self.peaks: dict[str, float] = {}
        self.masters: dict[str, list[Tensor]] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.adapt("policy", self.policy)
        self.train("policy", self.policy, self.options.learning_rate)
        shared = SharedEngine(
            TransformersEngine(self.policy, self.tokenizer), lambda: self.measuring("policy")
        )
        # In 16 bits drawing and learning round differently.
        self.engine: RolloutEngine = Embedded(shared, exact=self.dtype == torch.float32)

    def split_frozen(self) -> None:
        """Split the models that do not learn over the ranks, where that is wanted."""
        if self.sharded:
            for model in (self._reference, *self._evaluator.models):
                shards.split(model, layers_only=bool(self.options.lora_rank))

    def adapt(self, name: str, model: PreTrainedModel) -> None:
        """Freeze a model but for a new adapter of this name, if the recipe wants adapters."""
        options = self.options
        if options.lora_rank:
            seed = stream_key(self._seed, "rl/adapters", name)
            add_adapter(model, name, options.lora_rank, options.lora_targets, seed)

    def train(self, name: str, model: PreTrainedModel, learning_rate: float) -> None:
        """Give a model an optimizer, and a place in checkpoints."""
        if self.sharded:
            shards.split(model, layers_only=bool(self.options.lora_rank))
        self.trained[name], self.peaks[name] = model, learning_rate
        self.learning[name] = list(learning(model, name).values())
        self.masters[name] = [
            p if p.dtype == torch.float32 else p.detach().float() for p in self.learning[name]
        ]
        self.optimizers[name] = torch.optim.AdamW(
            self.masters[name],
            learning_rate,
            _BETAS,
            _ADAM_EPSILON,
            weight_decay=0.0,
            foreach=False if self.sharded else None,  # it cannot take shards and whole tensors together
        )
        if self.options.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})

    @contextmanager
    def reference(self) -> Iterator[PreTrainedModel]:
        """The SFT policy. No other model may be used within."""
        with self._switched(self._reference, None), shards.whole(self._reference):
            yield self._reference

    @contextmanager
    def judge(self) -> Iterator[Evaluator]:
        """The easy evaluator. No other model may be used within."""
        with ExitStack() as stack:
            for model in self._evaluator.models:
                stack.enter_context(self._switched(model, None))
                stack.enter_context(shards.whole(model))
            yield self._evaluator

    @contextmanager
    def using(self, name: str) -> Iterator[PreTrainedModel]:
        """A trained model, for a forward or a backward pass. The policy needs no such context."""
        with self._switched(self.trained[name], name):
            yield self.trained[name]

    @contextmanager
    def measuring(self, name: str) -> Iterator[PreTrainedModel]:
        """A trained model, to draw or to measure without gradients; each rank for itself."""
        with self.using(name) as model, shards.whole(model):
            yield model

    def _switched(self, model: PreTrainedModel, adapter: str | None) -> AbstractContextManager[None]:
        return switched(model, adapter) if self.options.lora_rank else nullcontext()

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Within it, trained models recompute activations (`rl.gradient_checkpointing`).

        Layers do so in training mode only, and then without a key-value cache, which drawing needs.
        So they are in training mode only while the models learn. Dropout stays off, so
        log-probabilities stay those of the draw.
        """
        layers = [
            module
            for model in self.trained.values()
            for module in model.modules()
            if getattr(module, "gradient_checkpointing", False)
        ]
        for layer in layers:
            layer.training = True
        yield
        for layer in layers:
            layer.training = False

    def set_learning_rates(self, update: int) -> None:
        """Set the learning rates of one update."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.peaks[name] * lr_scale(update, self.options)

    def step(self, name: str) -> Tensor:
        """One optimizer step of a model; returns the norm of its gradients before clipping at 1."""
        optimizer, masters = self.optimizers[name], self.masters[name]
        for parameter, master in zip(self.learning[name], masters, strict=True):
            if parameter is not master:
                master.grad = None if parameter.grad is None else parameter.grad.float()
                parameter.grad = None
        shards.sum_gradients(masters)
        norm = shards.clip_gradients(masters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self._take_masters(name)
        return norm

    def save(self, folder: Path, progress: Progress) -> None:
        """Write a checkpoint under a temporary name and rename it: it is whole or absent.

        Each rank writes its shards, see `shards.write`.
        """
        temporary = folder.with_name(f".{folder.name}.tmp")
        if is_main_process():
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        wait()
        shards.write(temporary, dict(self._state()))
        self._save_policy(temporary / "policy")
        wait()
        if is_main_process():
            (temporary / "progress.json").write_text(json.dumps(progress.__dict__), encoding="utf-8")
            temporary.rename(folder)

    def restore(self, folder: Path) -> Progress:
        """Load a checkpoint written by `save`, by any number of ranks.

        Raises:
            ValueError: the checkpoint is of another model.
        """
        saved = shards.names(folder)
        for name, masters in self.masters.items():
            for i, master in enumerate(masters):
                for moment in _MOMENTS:
                    if f"{name}/{i}/{moment}" in saved:
                        made = torch.zeros(()) if moment == "step" else torch.zeros_like(master)
                        self.optimizers[name].state[master][moment] = made
        shards.read(folder, dict(self._state()))
        for name in self.trained:
            self._take_masters(name)
        return Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))

    def whole_policy(self, folder: Path) -> Path:
        """The policy of a checkpoint as a folder that `from_pretrained` loads."""
        if not self.options.lora_rank:
            return folder / "policy"
        whole = folder / "merged"
        model = load_strictly(AutoModelForCausalLM, self._inputs[SFT_POLICY])
        save_model(merged(model, folder / "policy"), self.tokenizer, whole)
        return whole

    def _save_policy(self, folder: Path) -> None:
        """The policy, or its adapter, for people and for `whole_policy`; rank 0 writes it."""
        if self.options.lora_rank:
            adapter = adapter_tensors(self.policy, "policy")
            tensors = {path: shards.gathered(p.detach()) for path, p in adapter.items()}
            if is_main_process():
                save_adapter(self.policy, "policy", tensors, folder)
        else:
            shards.save_whole(self.policy, self.dtype, folder)
        if is_main_process():
            self.tokenizer.save_pretrained(folder)

    def _take_masters(self, name: str) -> None:
        """Round the weights that learn from their float32 copies, where there are such."""
        with torch.no_grad():
            for parameter, master in zip(self.learning[name], self.masters[name], strict=True):
                if parameter is not master:
                    parameter.copy_(master)

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        """Float32 weights and Adam's moments of all that learns, by name."""
        for name, masters in self.masters.items():
            for i, master in enumerate(masters):
                yield f"{name}/{i}/master", master.detach()
                for moment, value in self.optimizers[name].state.get(master, {}).items():
                    yield f"{name}/{i}/{moment}", value


def lr_scale(update: int, options: OnlineRl) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine from 1 to 1%."""
    if update < options.warmup_updates:
        return (update + 1) / options.warmup_updates
    share = (update - options.warmup_updates) / max(1, options.updates - options.warmup_updates)
    return _FINAL_LR_RATIO + (1 - _FINAL_LR_RATIO) * 0.5 * (1 + math.cos(math.pi * share))
