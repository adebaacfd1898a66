"""The training loop of every supervised stage: transformers' Trainer, an objective, and resume.

What we add to Trainer: checkpoints are believed only when they are complete (a killed save is not
resumed from), logs go to the stage's reporter, batches are padded to their longest row, and the
objective is a function. Checkpoints live in the stage's work folder and vanish with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from e2h_pipeline.training.objectives import IGNORED

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from e2h_pipeline.recipe import RewardTraining, Sft
    from e2h_pipeline.reporter import Reporter

_COMPLETE = "complete"

Objective = Callable[["PreTrainedModel", dict[str, "torch.Tensor"], "torch.Tensor"], "torch.Tensor"]


class Examples(Protocol):
    """A map-style data set: item i is {"input_ids": [...], "labels": [...]}, both of one length."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Sequence[float]]: ...


@dataclass(frozen=True)
class Settings:
    """What a training run needs beside data and objective. `batch_size` counts examples per update;
    `group_by_length` shuffles and puts examples of like length together, `sequential` takes them as they come."""

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

    @classmethod
    def of(cls, options: Sft | RewardTraining, seed: int) -> Settings:
        """The settings of a fine-tuning stage."""
        return cls(
            epochs=options.epochs,
            batch_size=options.batch_size,
            micro_batch_size=options.micro_batch_size,
            learning_rate=options.learning_rate,
            warmup=options.warmup,
            seed=seed,
        )


def train(
    model: PreTrainedModel,
    examples: Examples,
    objective: Objective,
    settings: Settings,
    *,
    pad_id: int,
    work: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    """Train `model` in place and return {"updates", "tokens_per_second"-like figures, "final_loss"}.

    Resumes from the last complete checkpoint in `work`. On one CPU the result is the same to the
    bit, killed or not.

    Raises:
        ValueError: there is nothing to train on.
    """
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    if len(examples) == 0:
        raise ValueError("no training examples: check the data limits and max_tokens of this stage")
    micro = min(settings.micro_batch_size or settings.batch_size, settings.batch_size, len(examples))
    accumulation = max(1, min(settings.batch_size, len(examples)) // micro)
    updates = max(1, -(-len(examples) // (micro * accumulation))) * settings.epochs

    class ReportCallback(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in (logs or {}):
                reporter.metrics({k: v for k, v in logs.items() if isinstance(v, float)}, state.global_step)
            reporter.progress(state.global_step, state.max_steps, "updates")

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / _COMPLETE).touch()

    class ObjectiveTrainer(Trainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> torch.Tensor:
            loss = objective(model, inputs, num_items_in_batch)
            # Trainer averages gradients over processes; a sum over a global count must undo that.
            return loss * self.accelerator.num_processes

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            if settings.order == "sequential":
                return super()._get_train_sampler(train_dataset)
            lengths = [len(examples[i]["input_ids"]) for i in range(len(examples))]
            return _LikeLengths(lengths, micro * accumulation, settings.seed)

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
        logging_steps=max(1, updates // 50),
        save_strategy="steps",
        save_steps=max(1, updates // settings.checkpoints),
        save_total_limit=2,
        train_sampling_strategy=settings.order,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        bf16=torch.cuda.is_available() and model.dtype == torch.float32,
    )
    trainer = ObjectiveTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        data_collator=_pad(pad_id),
        callbacks=[ReportCallback()],
    )
    trainer.model_accepts_loss_kwargs = True  # objectives divide by the count of the whole batch
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    result = trainer.train(resume_from_checkpoint=_last_checkpoint(work))
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]  # survives a kill
    return {
        "updates": result.global_step,
        "examples": len(examples),
        "final_loss": losses[-1] if losses else None,
    }


class _LikeLengths:
    """Trainer's grouping by length, but an epoch's order is drawn from (seed, epoch): Trainer's own sampler
    draws from the global generator, so a run that resumes inside an epoch would go on in another order."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = list(lengths), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        import torch
        from transformers.trainer_pt_utils import get_length_grouped_indices

        generator = torch.Generator().manual_seed((self._seed << 20) + self._epoch)
        return iter(get_length_grouped_indices(self._lengths, self._batch_size, generator=generator))


def _last_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that was written to its end; torn ones are removed."""
    found = sorted(work.glob("checkpoint-*"), key=lambda p: int(p.name.rsplit("-", 1)[1]))
    for torn in [p for p in found if not (p / _COMPLETE).exists()]:
        shutil.rmtree(torn)
    whole = [p for p in found if p.exists()]
    return str(whole[-1]) if whole else None


def _pad(pad_id: int) -> Callable[[list[Mapping[str, Sequence[float]]]], dict[str, torch.Tensor]]:
    def collate(rows: list[Mapping[str, Sequence[float]]]) -> dict[str, torch.Tensor]:
        import torch

        longest = max(len(row["input_ids"]) for row in rows)

        def stack(name: str, fill: float) -> torch.Tensor:
            return torch.tensor([[*row[name], *[fill] * (longest - len(row[name]))] for row in rows])

        mask = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
        return {
            "input_ids": stack("input_ids", pad_id),
            "attention_mask": torch.tensor(mask),
            "labels": stack("labels", IGNORED),
        }

    return collate
