"""The models of an online run and their optimizers: how they learn, and their checkpoints."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from e2h_pipeline.generation.engines.transformers_engine import TransformersEngine
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.models.adapters import add_adapter, learning, load_adapter, merged, save_adapter, switched
from e2h_pipeline.models.base import save_model
from e2h_pipeline.models.strict import WeightsError, load_strictly
from e2h_pipeline.recipe import OnlineRl
from e2h_pipeline.rl.algorithms import EVALUATOR, SFT_POLICY
from e2h_pipeline.rl.online.shared_engine import SharedEngine
from e2h_pipeline.rl.progress import Progress
from e2h_pipeline.rl.ranks import sum_up
from e2h_pipeline.training.trainer import is_main_process, process_count

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import PreTrainedModel

    from e2h_pipeline.rl.algorithms import RlJob

OptionsOf = TypeVar("OptionsOf", bound=OnlineRl)

_FINAL_LR_RATIO = 0.01
_BETAS = (0.9, 0.95)  # the paper's released code
_ADAM_EPSILON = 1e-5
_MASTER = "master"  # beside the moments in checkpoints


class Run(Generic[OptionsOf]):
    """Models and optimizers of one run.

    Weights in half precision have a copy in float32 that the optimizer works on (`masters`):
    bfloat16 cannot represent a step of 2e-5.

    With `rl.lora_rank`, models that learn are adapters on frozen weights: the policy's on those of
    the SFT policy, the critic's on those of the evaluator. So the SFT policy and the evaluator are
    only borrowed for a while (`reference`, `judge`).

    Attributes:
        trained: models with an optimizer each: "policy", and those that an algorithm adds.
        learning: the parameters of each trained model that its optimizer moves.
        peaks: peak learning rate of each trained model.
        notes: what people should know of the set-up, for the summary.
    """

    def __init__(self, job: RlJob[OptionsOf]) -> None:
        from e2h_pipeline.models.load import load_evaluator, load_policy

        self.options, self._inputs, self._seed = job.options, job.inputs, job.work.seed
        self.sharded = False
        self.policy, self.tokenizer = load_policy(job.inputs[SFT_POLICY])
        self._reference = self.policy
        if not self.options.lora_rank:
            self._reference = load_policy(job.inputs[SFT_POLICY])[0].requires_grad_(False)
        self._evaluator, self.evaluator_tokenizer = load_evaluator(job.inputs[EVALUATOR])
        self._evaluator.requires_grad_(False)
        self.notes: dict[str, str] = {}
        self.trained: dict[str, PreTrainedModel] = {}
        self.learning: dict[str, list[Parameter]] = {}
        self.peaks: dict[str, float] = {}
        self.masters: dict[str, list[Tensor]] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.adapt("policy", self.policy)
        self.train("policy", self.policy, self.options.learning_rate)
        self.engine = SharedEngine(TransformersEngine(self.policy, self.tokenizer))

    def adapt(self, name: str, model: PreTrainedModel) -> None:
        """Freeze a model but for a new adapter of this name, if the recipe wants adapters."""
        options = self.options
        if options.lora_rank:
            seed = stream_key(self._seed, "rl/adapters", name)
            add_adapter(model, name, options.lora_rank, options.lora_targets, seed)

    def train(self, name: str, model: PreTrainedModel, learning_rate: float) -> None:
        """Give a model an optimizer, and a place in checkpoints."""
        self.trained[name], self.peaks[name] = model, learning_rate
        self.learning[name] = list(learning(model, name).values())
        self.masters[name] = [
            p if p.dtype == torch.float32 else p.detach().float() for p in self.learning[name]
        ]
        self.optimizers[name] = torch.optim.AdamW(
            self.masters[name], learning_rate, _BETAS, _ADAM_EPSILON, weight_decay=0.0
        )
        if self.options.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})

    @contextmanager
    def reference(self) -> Iterator[PreTrainedModel]:
        """The SFT policy. No other model may be used within."""
        with self._switched(self._reference, None):
            yield self._reference

    @contextmanager
    def judge(self) -> Iterator[PreTrainedModel]:
        """The easy evaluator. No other model may be used within."""
        with self._switched(self._evaluator, None):
            yield self._evaluator

    @contextmanager
    def using(self, name: str) -> Iterator[PreTrainedModel]:
        """A trained model, for a forward or a backward pass. The policy needs no such context."""
        with self._switched(self.trained[name], name):
            yield self.trained[name]

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
        halves = [(p, m) for p, m in zip(self.learning[name], masters, strict=True) if p is not m]
        for parameter, master in halves:
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        self._sum_gradients(masters)
        norm = torch.nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for parameter, master in halves:
                parameter.copy_(master)
        return norm

    def _sum_gradients(self, masters: Sequence[Tensor]) -> None:
        """Add up the gradients of all ranks; one that had no rows has none."""
        if process_count() == 1:
            return
        for master in masters:
            master.grad = torch.zeros_like(master) if master.grad is None else master.grad
        sum_up([master.grad for master in masters if master.grad is not None])

    def save(self, folder: Path, progress: Progress) -> None:
        """Write a checkpoint under a temporary name and rename it: it is whole or absent."""
        from safetensors.torch import save_file

        if not is_main_process():
            return
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        for name in self.trained:
            self._save_weights(name, temporary / name)
        self.tokenizer.save_pretrained(temporary / "policy")
        save_file(dict(self._optimizer_tensors()), temporary / "optimizers.safetensors")
        (temporary / "progress.json").write_text(json.dumps(progress.__dict__), encoding="utf-8")
        temporary.rename(folder)

    def restore(self, folder: Path) -> Progress:
        """Load a checkpoint written by `save`.

        Raises:
            ValueError: the checkpoint is of another model.
        """
        from safetensors.torch import load_file

        for name in self.trained:
            self._restore_weights(name, folder / name)
        tensors = load_file(folder / "optimizers.safetensors")
        for name, optimizer in self.optimizers.items():
            state = optimizer.state_dict()
            for key, tensor in tensors.items():
                owner, index, moment = key.split("/")
                if owner == name and moment == _MASTER:
                    self.masters[name][int(index)].copy_(tensor)
                elif owner == name:
                    state["state"].setdefault(int(index), {})[moment] = tensor
            optimizer.load_state_dict(state)
        return Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))

    def whole_policy(self, folder: Path) -> Path:
        """The policy of a checkpoint as a folder that `from_pretrained` loads."""
        if not self.options.lora_rank:
            return folder / "policy"
        whole = folder / "merged"
        model = load_strictly(AutoModelForCausalLM, self._inputs[SFT_POLICY])
        save_model(merged(model, folder / "policy"), self.tokenizer, whole)
        return whole

    def _save_weights(self, name: str, folder: Path) -> None:
        if self.options.lora_rank:
            save_adapter(self.trained[name], name, folder)
        else:
            self.trained[name].save_pretrained(folder)

    def _restore_weights(self, name: str, folder: Path) -> None:
        model = self.trained[name]
        if self.options.lora_rank:
            load_adapter(model, name, folder)
            return
        try:  # by transformers: a file may have other names and more tensors than the model
            saved = load_strictly(type(model), folder, config=model.config, dtype=model.dtype)
        except WeightsError as error:
            raise ValueError(
                f"{folder}: weights do not fit the model ({error}); remove the folder to start over"
            ) from None
        model.load_state_dict(saved.state_dict())

    def _optimizer_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, optimizer in self.optimizers.items():
            for i, (parameter, master) in enumerate(
                zip(self.learning[name], self.masters[name], strict=True)
            ):
                if parameter is not master:
                    yield f"{name}/{i}/{_MASTER}", master.clone()
            for index, moments in optimizer.state_dict()["state"].items():
                for moment, value in moments.items():
                    yield f"{name}/{index}/{moment}", torch.as_tensor(value).clone()


def lr_scale(update: int, options: OnlineRl) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine from 1 to 1%."""
    if update < options.warmup_updates:
        return (update + 1) / options.warmup_updates
    share = (update - options.warmup_updates) / max(1, options.updates - options.warmup_updates)
    return _FINAL_LR_RATIO + (1 - _FINAL_LR_RATIO) * 0.5 * (1 + math.cos(math.pi * share))
