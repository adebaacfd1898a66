"""The training loop of every supervised stage: transformers' Trainer, an objective, and resume.

What we add to Trainer: only complete checkpoints are resumed from (a kill may come in the middle of
a save), logs go to the stage's reporter, batches are padded to their longest row or packed, and the
objective is a function. Checkpoints live in the stage's work folder and vanish with it.

Under `accelerate launch` the same function runs in every process. An update sees the same examples
whatever the number of processes; only the main process reports and writes.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from e2h_pipeline.training.batches import WEIGHTS, Example, collate, packed_attention
from e2h_pipeline.training.boundary import passing
from e2h_pipeline.training.next_token import IGNORED

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.recipe import Fitting

CURVES = "curves.jsonl"  # beside a model: a line for each report of its training
GATHERED = "gathered"  # in the work folder: the whole model, where it was trained in shards
_COMPLETE = "complete"
_LARGE = 20_000_000  # parameters, from where matrix products take most of the time
_REPORTS = 50  # about this many points per curve


@dataclass(frozen=True)
class TrainingStep:
    """The state of training when an objective computes the loss of a batch.

    Attributes:
        total: labelled positions of the whole update, over micro-batches and processes; the sum of
            their weights where examples have `WEIGHTS`. An objective is a sum over positions
            divided by it.
        progress: share of training that is done, in [0, 1).
        number: of the update, from 0. Together with a seed it makes draws that a resumed run
            repeats.
    """

    total: torch.Tensor
    progress: float = 0.0
    number: int = 0


Objective = Callable[["PreTrainedModel", dict[str, Any], TrainingStep], "torch.Tensor"]
"""Model, batch of `batches.collate` and step to loss. `batches.run_model` runs the model over the
batch, and gives hidden states to an objective that asks for them."""


class Examples(Protocol):
    """A map-style data set: item i is {"input_ids": [...], "labels": [...]} and other columns of
    their length; with "lengths" where it is several documents (`batches.together`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


def is_main_process() -> bool:
    """True in the one process that writes and reports."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """Processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def sharding_asked() -> str | None:
    """The sharding that the accelerate config asks for: "FSDP", "DEEPSPEED" or None."""
    wanted = [n for n in ("FSDP", "DEEPSPEED") if os.environ.get(f"ACCELERATE_USE_{n}", "").lower() == "true"]
    return wanted[0] if wanted else None


@dataclass(frozen=True)
class Settings:
    """Settings of a training run, besides data and objective.

    Attributes:
        epochs: passes over the examples.
        batch_size: examples per update, over all processes.
        learning_rate: peak; the schedule is a cosine.
        warmup: share of updates spent warming up.
        seed: of the order of examples.
        micro_batch_size: examples of one forward pass, at most; the whole batch where None.
        weight_decay: of AdamW.
        max_grad_norm: gradients are scaled down to this norm.
        final_lr_ratio: learning rate at the end, as a share of the peak.
        checkpoints: approximate number saved on the way.
        order: `group_by_length` shuffles and puts examples of like length together, `sequential`
            takes them as they come.
        packing: several documents in a row instead of padding.
        gradient_checkpointing: recompute activations in the backward pass.
        mixed_precision: multiply in bfloat16. On a GPU, float32 models do so anyway.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float
    seed: int
    micro_batch_size: int | None = None
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    final_lr_ratio: float = 0.01
    checkpoints: int = 10
    order: Literal["group_by_length", "sequential"] = "group_by_length"
    packing: bool = False
    gradient_checkpointing: bool = False
    mixed_precision: bool = False

    @classmethod
    def of(cls, options: Fitting, seed: int) -> Settings:
        """The settings of a fine-tuning stage."""
        return cls(
            epochs=options.epochs,
            batch_size=options.batch_size,
            micro_batch_size=options.micro_batch_size,
            learning_rate=options.learning_rate,
            warmup=options.warmup,
            seed=seed,
            packing=getattr(options, "packing", False),
            gradient_checkpointing=getattr(options, "gradient_checkpointing", False),
            mixed_precision=getattr(options, "mixed_precision", False),
        )

    def micro_batch(self, processes: int) -> tuple[int, int]:
        """Examples of a forward pass, and forward passes per update, in each of `processes`.

        Raises:
            ValueError: the batch cannot be shared out evenly.
        """
        if self.batch_size % processes:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be shared by {processes} processes: make it a multiple"
            )
        share = self.batch_size // processes
        most = min(self.micro_batch_size or share, share)
        micro = max(size for size in range(1, most + 1) if share % size == 0)
        return micro, share // micro


def train(
    model: PreTrainedModel,
    examples: Examples,
    objective: Objective,
    settings: Settings,
    pad_id: int,
    work: Work,
    passed: int = 0,
) -> dict[str, Any]:
    """Train `model` in place and return {"updates", "examples", "final_loss"}.

    `passed` lowest layers are passed through: the examples have the states above them
    (`boundary.WithBoundary`).

    `work.out` gets `CURVES`: JSON lines of the loss (nats, mean since the line before), the
    learning rate and the gradient's norm over updates. They hold no times, so they are the same in
    every run.

    Where an accelerate config shards the model (FSDP, DeepSpeed), `GATHERED` in `work.folder` is
    the whole one afterwards.

    Resumes from the last complete checkpoint in `work.folder`. On one CPU the result is the same to
    the bit, killed or not.

    Raises:
        ValueError: there are no examples, the processes cannot share the batch, or accelerate would
            not shard the model as its config asks.
    """
    if len(examples) == 0:
        raise ValueError("no training examples: check the data limits and max_tokens of this stage")
    arguments = _arguments(settings, len(examples), model, work.folder)
    order = _Order(examples, settings)
    trainer = _objective_trainer(objective, order)(
        model=model,
        args=arguments,
        train_dataset=_WithBlanks(examples),
        data_collator=collate(pad_id, settings.packing),
        callbacks=[_callback(order, settings, work.reporter)],
    )
    sharded = _prepared(trainer)
    if told := _speed_advice(model, settings):
        work.reporter.message(told)
    with arguments.main_process_first(local=False):
        last = _last_checkpoint(work.folder)
    if process_count() > 1 and is_main_process():
        work.reporter.message(
            f"{process_count()} processes train together ({trainer.accelerator.distributed_type})"
        )
    with packed_attention(model, settings.packing), passing(model, passed):
        result = trainer.train(resume_from_checkpoint=last)
    if sharded:
        _gather(trainer, work.folder / GATHERED)
    logs = [log for log in trainer.state.log_history if "loss" in log]  # survives a kill
    if is_main_process():
        _write_curves(work.out / CURVES, logs)
    return {
        "updates": result.global_step,
        "examples": len(examples),
        "final_loss": logs[-1]["loss"] if logs else None,
    }


def _speed_advice(model: PreTrainedModel, settings: Settings) -> str:
    """What would make a large model faster on this CPU; nothing for a small one and on GPUs."""
    from e2h_pipeline.models.speed import advice, bfloat16_gain

    if model.device.type != "cpu" or model.num_parameters() < _LARGE:
        return ""
    return advice(settings.mixed_precision, bfloat16_gain())


def _callback(order: _Order, settings: Settings, reporter: Reporter) -> TrainerCallback:
    """Keeps the order's epoch, reports, and marks checkpoints that are complete."""
    import torch
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # Not `set_epoch`: with several processes it does not reach a resumed run's sampler.
            order.epoch = state.global_step * settings.epochs // state.max_steps

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not state.is_world_process_zero:
                return
            if "loss" in (logs or {}):
                reporter.metrics({k: v for k, v in logs.items() if isinstance(v, float)}, state.global_step)
            reporter.progress(state.global_step, state.max_steps, "updates")

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if process_count() > 1:
                torch.distributed.barrier()  # every process has written its part
            if state.is_world_process_zero:
                (Path(args.output_dir) / f"checkpoint-{state.global_step}" / _COMPLETE).touch()

    return Callback()


def _objective_trainer(objective: Objective, order: _Order) -> type[Trainer]:
    """A Trainer with this loss and order of examples."""
    from transformers import Trainer

    class ObjectiveTrainer(Trainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> torch.Tensor:
            done = self.state.global_step
            step = TrainingStep(num_items_in_batch, done / max(1, self.state.max_steps), done)
            # Trainer averages gradients over processes; a sum over a global count must undo that.
            return objective(model, inputs, step) * self.accelerator.num_processes

        def _get_num_items_in_batch(self, batch_samples: Any, device: Any) -> Any:
            if not batch_samples or WEIGHTS not in batch_samples[0]:
                return super()._get_num_items_in_batch(batch_samples, device)
            weights = [batch[WEIGHTS][batch["labels"] != IGNORED].sum() for batch in batch_samples]
            return self.accelerator.gather(sum(weights).to(device)).sum()

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return order

    return ObjectiveTrainer


def _prepared(trainer: Trainer) -> bool:
    """Set a trainer's counting and reports, and return whether it shards the model.

    Raises:
        ValueError: accelerate would not shard the model as its config asks.
    """
    from transformers.trainer_callback import PrinterCallback

    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if sharding_asked() and not sharded:  # accelerate does not warn
        raise ValueError(
            f"the accelerate config asks for {sharding_asked()}, but accelerate does not shard on "
            f"{trainer.accelerator.distributed_type}: run on GPUs, or unset E2H_ACCELERATE_CONFIG"
        )
    trainer.model_accepts_loss_kwargs = True  # objectives divide by the count of the whole batch
    trainer.remove_callback(PrinterCallback)
    return bool(sharded)


def _write_curves(path: Path, logs: Iterable[Mapping[str, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(_point(log)) + "\n" for log in logs), encoding="utf-8")


def _point(log: Mapping[str, float]) -> dict[str, float]:
    names = {"loss": "loss", "grad_norm": "gradient_norm", "learning_rate": "learning_rate"}
    values = {ours: log[theirs] for theirs, ours in names.items() if theirs in log}
    return {"update": log["step"], **{name: value for name, value in values.items() if math.isfinite(value)}}


def _gather(trainer: Trainer, folder: Path) -> None:
    """Write the whole model of a sharded one. All processes give their shards, the main one writes.

    Not `trainer.save_model`: for some configs, FSDP's default among them, it writes nothing or
    shards.
    """
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if is_main_process():
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder, state_dict=weights)


def _arguments(settings: Settings, examples: int, model: PreTrainedModel, work: Path) -> TrainingArguments:
    import torch
    from transformers import TrainingArguments

    micro, accumulation = settings.micro_batch(process_count())
    updates = -(-examples // settings.batch_size) * settings.epochs
    every = max(1, updates // _REPORTS)
    cuda = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": settings.final_lr_ratio},
        warmup_steps=round(settings.warmup * updates),
        seed=settings.seed,
        logging_steps=every,
        save_strategy="steps",
        # Only at the end of a report: a checkpoint does not hold Trainer's partial sum for the next
        # report, so a resumed run would report another loss.
        save_steps=max(1, updates // settings.checkpoints // every) * every,
        save_total_limit=2,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[],
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        bf16=multiplies_in_bfloat16(model, settings.mixed_precision),
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
    )
    if arguments.n_gpu > 1:  # one process sees several cards: Trainer would split and multiply the batch
        arguments._n_gpu = 1
    return arguments


def multiplies_in_bfloat16(model: PreTrainedModel, mixed_precision: bool) -> bool:
    """Whether the training of a model multiplies in bfloat16: where asked to, and float32 models on
    GPUs."""
    import torch

    return mixed_precision or (torch.cuda.is_available() and model.dtype == torch.float32)


class _WithBlanks:
    """Examples, followed by blanks without a label. Processes that run out of examples get blanks,
    so that all make the same number of steps and no example counts twice."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        if index < len(self._examples):
            return self._examples[index]
        return {**self._examples[0], "labels": [IGNORED] * len(self._examples[0]["labels"])}


class _Order:
    """The order of an epoch, drawn from (seed, epoch). Trainer's own sampler draws from the global
    generator, so a run resumed inside an epoch would continue in another order.

    With several processes, blanks fill up the last round of micro-batches.
    """

    def __init__(self, examples: Examples, settings: Settings) -> None:
        self._count, self._settings, self.epoch = len(examples), settings, 0
        grouped = settings.order == "group_by_length"
        self._lengths = [len(examples[i]["input_ids"]) for i in range(len(examples))] if grouped else []
        processes = process_count()
        at_once = settings.micro_batch(processes)[0] * processes
        self._blanks = -len(examples) % at_once if processes > 1 else 0

    def __len__(self) -> int:
        return self._count + self._blanks

    def __iter__(self) -> Iterator[int]:
        return iter([*self._drawn(), *range(self._count, len(self))])

    def _drawn(self) -> Sequence[int]:
        import torch
        from transformers.trainer_pt_utils import get_length_grouped_indices

        if self._settings.order == "sequential":
            return range(self._count)
        generator = torch.Generator().manual_seed((self._settings.seed << 20) + self.epoch)
        return get_length_grouped_indices(self._lengths, self._settings.batch_size, generator=generator)


def _last_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that was written to its end; torn ones are removed."""
    found = sorted(work.glob("checkpoint-*"), key=lambda p: int(p.name.rsplit("-", 1)[1]))
    for torn in [p for p in found if not (p / _COMPLETE).exists()]:
        shutil.rmtree(torn)
    whole = [p for p in found if p.exists()]
    return str(whole[-1]) if whole else None
