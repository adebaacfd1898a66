"""PPO on step rewards of the easy evaluator, all questions, gold answers of easy ones only (paper 4.2, C.3).

What differs from the released code, and why: whitening and losses are masked (padding has no say),
the end-of-sequence token is part of the completion and gets its gradient, KL is the plain k1 estimator
taken off the reward, and checkpoints are chosen on easy validation, never on hard answers.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.generation.engine import Request, SamplingOptions
from e2h_pipeline.generation.transformers_engine import TransformersEngine
from e2h_pipeline.rl.advantages import generalized_advantages, masked_mean, whiten
from e2h_pipeline.rl.rollouts import (
    Batch,
    Grade,
    Question,
    Rollout,
    answer_of,
    collate,
    draw_questions,
    roll_out,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from e2h_pipeline.recipe import Rl
    from e2h_pipeline.reporter import Reporter

_FINAL_LR_RATIO = 0.01
_BETAS = (0.9, 0.95)  # the paper's released code
_ADAM_EPSILON = 1e-5


def clipped_policy_loss(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> Tensor:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7), a mean over completion tokens.

    All arguments are (batch, length); `old` are the log-probabilities the rollouts were drawn with.
    """
    ratio = (logprobs - old).exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)
    return -masked_mean(torch.minimum(ratio * advantages, bounded * advantages), mask)


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half the squared error, the worse of clipped and unclipped prediction; (batch, length) each."""
    bounded = old + (values - old).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (bounded - returns) ** 2), mask)


def token_logprobs(model: PreTrainedModel, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each token of `batch.ids` given what stands before it, and the entropy there.

    Both (batch, length) at the rollout temperature; position 0 holds 0.
    """
    logits = model(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False).logits[:, :-1]
    log_p = (logits.float() / temperature).log_softmax(-1)
    chosen = log_p.gather(-1, batch.ids[:, 1:, None]).squeeze(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return _shift(chosen), _shift(entropy)


def token_values(critic: PreTrainedModel, batch: Batch) -> Tensor:
    """Value of the state each token is chosen in: (batch, length), position t read before token t."""
    return _shift(
        critic(input_ids=batch.ids, attention_mask=batch.attention).logits.squeeze(-1).float()[:, :-1]
    )


def _shift(values: Tensor) -> Tensor:
    return torch.nn.functional.pad(values, (1, 0))


@dataclass
class Progress:
    """Where a run is; with the checkpoint's tensors it is the whole state, for every draw is counted."""

    update: int = 0
    best_update: int = 0
    best_accuracy: float = -1.0
    stopped: str | None = None
    curves: list[dict[str, float]] = field(default_factory=list)


class PpoRun:
    """Policy, reference, critic and optimizers of one run, and how they are saved."""

    def __init__(self, policy: Path, evaluator: Path, options: Rl) -> None:
        from e2h_pipeline.models.load import load_evaluator, load_policy

        self.options = options
        self.policy, self.tokenizer = load_policy(policy)
        self.reference, _ = load_policy(policy)
        self.evaluator, self.evaluator_tokenizer = load_evaluator(evaluator)
        self.critic, _ = load_evaluator(evaluator)  # the paper starts the critic from the reward model
        self.critic.score.weight.data.zero_()
        for frozen in (self.reference, self.evaluator):
            frozen.requires_grad_(False)
        self.optimizers = {
            "policy": torch.optim.AdamW(
                self.policy.parameters(), options.learning_rate, _BETAS, _ADAM_EPSILON, weight_decay=0.0
            ),
            "critic": torch.optim.AdamW(
                self.critic.parameters(), options.value_learning_rate, _BETAS, _ADAM_EPSILON, weight_decay=0.0
            ),
        }
        self.engine = TransformersEngine(self.policy, self.tokenizer)

    def save(self, folder: Path, progress: Progress) -> None:
        """Write a checkpoint under a temporary name and rename it: it is whole or not there."""
        from safetensors.torch import save_file

        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        self.policy.save_pretrained(temporary / "policy")
        self.tokenizer.save_pretrained(temporary / "policy")
        self.critic.save_pretrained(temporary / "critic")
        save_file(dict(self._optimizer_tensors()), temporary / "optimizers.safetensors")
        (temporary / "progress.json").write_text(json.dumps(progress.__dict__), encoding="utf-8")
        temporary.rename(folder)

    def restore(self, folder: Path) -> Progress:
        """Load a checkpoint written by `save`."""
        from safetensors.torch import load_file

        for name, model in (("policy", self.policy), ("critic", self.critic)):
            state = load_file(folder / name / "model.safetensors")
            missing, unexpected = model.load_state_dict(state, strict=False)
            if unexpected or any(key != "lm_head.weight" for key in missing):  # tied heads are not stored
                raise ValueError(
                    f"{folder / name}: weights do not fit the model; remove the folder to start over"
                )
        tensors = load_file(folder / "optimizers.safetensors")
        for name, optimizer in self.optimizers.items():
            state = optimizer.state_dict()
            for key, tensor in tensors.items():
                owner, index, moment = key.split("/")
                if owner == name:
                    state["state"].setdefault(int(index), {})[moment] = tensor
            optimizer.load_state_dict(state)
        return Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))

    def _optimizer_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, optimizer in self.optimizers.items():
            for index, moments in optimizer.state_dict()["state"].items():
                for moment, value in moments.items():
                    yield f"{name}/{index}/{moment}", torch.as_tensor(value).clone()


def train_ppo(
    policy: Path,
    evaluator: Path,
    easy_problems: Path,
    hard_questions: Path,
    out: Path,
    work: Path,
    options: Rl,
    seed: int,
    grader: str,
    reporter: Reporter,
) -> dict[str, Any]:
    """Train the policy in `policy` and save the checkpoint that is best on easy validation to `out`.

    `out` also gets `curves.jsonl`, one line per rollout batch. Killed, it goes on from its last
    checkpoint in `work` and ends with the same weights.
    """
    from e2h_pipeline.grading.equivalence import Verdict, verdicts
    from e2h_pipeline.grading.equivalence import grader as open_grader

    questions, validation = read_questions(easy_problems, hard_questions, options)
    run = PpoRun(policy, evaluator, options)
    work.mkdir(parents=True, exist_ok=True)
    checkpoints = sorted(work.glob("update-*"))
    progress = run.restore(checkpoints[-1]) if checkpoints else None
    with ExitStack() as stack:
        judge = stack.enter_context(open_grader(grader))

        def grade(pairs: Sequence[tuple[str, str]]) -> list[bool]:
            return [verdict is Verdict.EQUAL for verdict in verdicts(judge, pairs)]

        if progress is None:  # the SFT policy is the first candidate: a run that only harms it returns it
            progress = Progress(best_accuracy=_validate(run, grade, validation))
        while progress.update < options.updates and progress.stopped is None:
            started = time.monotonic()
            metrics = _update(run, grade, questions, seed, progress.update)
            progress.stopped = trouble(metrics, options)
            if progress.stopped:
                reporter.message(
                    f"PPO stops at update {progress.update}: {progress.stopped}; the last good policy is kept"
                )
                break
            progress.update += 1
            if progress.update % options.checkpoint_every == 0 or progress.update == options.updates:
                metrics["easy_validation_accuracy"] = _validate(run, grade, validation)
                _note_best(progress, metrics["easy_validation_accuracy"])
            progress.curves.append(metrics)
            reporter.metrics({**metrics, "seconds": time.monotonic() - started}, progress.update)
            reporter.progress(progress.update, options.updates, "PPO updates")
            if "easy_validation_accuracy" in metrics:
                run.save(work / f"update-{progress.update:06d}", progress)
                _drop_old(work, progress)
    return _finish(run, progress, policy, out, work)


def read_questions(
    easy_problems: Path, hard_questions: Path, options: Rl
) -> tuple[list[Question], list[Question]]:
    """Training questions (hard ones without answer) and easy validation questions."""
    easy = read_table(
        easy_problems / "data.parquet", ["problem_id", "question", "answer", "split"]
    ).to_pylist()
    hard = read_table(hard_questions / "data.parquet", ["problem_id", "question"]).to_pylist()
    train = [Question(r["problem_id"], r["question"], r["answer"]) for r in easy if r["split"] == "train"]
    if options.questions == "all":
        train += [Question(r["problem_id"], r["question"], None) for r in hard]
    validation = [
        Question(r["problem_id"], r["question"], r["answer"]) for r in easy if r["split"] == "validation"
    ]
    return train, validation


def trouble(metrics: dict[str, float], options: Rl) -> str | None:
    """Why the run must stop, or None."""
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        return f"{', '.join(broken)} is not a finite number"
    if metrics["kl"] > options.max_kl:
        return f"KL to the SFT policy is {metrics['kl']:.2f} per token, above rl.max_kl={options.max_kl}"
    return None


def _update(
    run: PpoRun, grade: Grade, questions: Sequence[Question], seed: int, update: int
) -> dict[str, float]:
    """One rollout batch and its optimizer steps."""
    options = run.options
    rollouts = roll_out(
        run.engine,
        run.evaluator,
        run.evaluator_tokenizer,
        grade,
        draw_questions(questions, options, seed, update),
        options,
        seed,
        update,
    )
    rollouts.sort(key=lambda r: len(r.prompt_ids) + len(r.sample.token_ids))
    batch = collate(rollouts, run.tokenizer.pad_token_id, run.policy.device)
    rows = torch.arange(len(rollouts)).split(options.minibatch)
    with torch.no_grad():
        old = _stitch(
            [token_logprobs(run.policy, _rows(batch, r), options.temperature)[0] for r in rows], batch
        )
        reference = _stitch(
            [token_logprobs(run.reference, _rows(batch, r), options.temperature)[0] for r in rows], batch
        )
        values = _stitch([token_values(run.critic, _rows(batch, r)) for r in rows], batch)
    divergence = (old - reference) * batch.mask
    advantages, returns = generalized_advantages(
        batch.rewards - options.kl * divergence, values * batch.mask, batch.mask, options.gamma, options.lam
    )
    learned = _optimize(run, batch, old, values, whiten(advantages, batch.mask), returns, seed, update)
    unexplained = masked_mean((returns - values) ** 2, batch.mask)
    spread = masked_mean((returns - masked_mean(returns, batch.mask)) ** 2, batch.mask)
    return {
        **describe(rollouts),
        **learned,
        "kl": masked_mean(divergence, batch.mask).item(),
        "explained_variance": (1 - unexplained / spread.clamp(min=1e-8)).item(),
    }


def _optimize(
    run: PpoRun,
    batch: Batch,
    old: Tensor,
    values: Tensor,
    advantages: Tensor,
    returns: Tensor,
    seed: int,
    update: int,
) -> dict[str, float]:
    options = run.options
    learn_policy = update >= options.value_warmup_updates
    for name, peak in (("policy", options.learning_rate), ("critic", options.value_learning_rate)):
        for group in run.optimizers[name].param_groups:
            group["lr"] = peak * lr_scale(update, options)
    sums: dict[str, float] = {}
    steps = 0
    for epoch in range(options.epochs):
        order = list(range(len(batch.ids)))
        random.Random(f"rl/minibatches/{seed}/{update}/{epoch}").shuffle(order)
        for rows in torch.tensor(order).split(options.minibatch):
            part = _rows(batch, rows)
            length = part.ids.shape[1]
            mask, was = part.mask, old[rows, :length]
            logprobs, entropy = token_logprobs(run.policy, part, options.temperature)
            policy_loss = clipped_policy_loss(logprobs, was, advantages[rows, :length], mask, options.clip)
            value_loss = clipped_value_loss(
                token_values(run.critic, part),
                values[rows, :length],
                returns[rows, :length],
                mask,
                options.value_clip,
            )
            norm = _step(run.optimizers["critic"], run.critic, value_loss)
            if learn_policy:
                norm = norm + _step(run.optimizers["policy"], run.policy, policy_loss)
            outside = ((logprobs - was).exp() - 1).abs() > options.clip
            for name, value in (
                ("gradient_norm", norm),  # not finite: the step has broken the weights
                ("policy_loss", policy_loss),
                ("value_loss", value_loss),
                ("entropy", masked_mean(entropy, mask)),
                ("clip_fraction", masked_mean(outside.float(), mask)),
            ):
                sums[name] = sums.get(name, 0.0) + value.item()
            steps += 1
    return {name: total / steps for name, total in sums.items()}


def _step(optimizer: torch.optim.Optimizer, model: PreTrainedModel, loss: Tensor) -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return norm


def lr_scale(update: int, options: Rl) -> float:
    """Linear warm-up, then cosine from 1 to 1%."""
    if update < options.warmup_updates:
        return (update + 1) / options.warmup_updates
    share = (update - options.warmup_updates) / max(1, options.updates - options.warmup_updates)
    return _FINAL_LR_RATIO + (1 - _FINAL_LR_RATIO) * 0.5 * (1 + math.cos(math.pi * share))


def describe(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """What people watch: rewards, evaluator scores by kind of question, lengths, no-answer share."""
    easy = [r for r in rollouts if r.question.answer is not None]
    hard = [r for r in rollouts if r.question.answer is None]

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values) if values else 0.0

    return {
        "reward": mean([sum(r.rewards) for r in rollouts]),
        "evaluator_easy": mean([r.evaluator_score for r in easy]),
        "evaluator_hard": mean([r.evaluator_score for r in hard]),
        "easy_accuracy": mean([float(bool(r.right)) for r in easy]),
        "no_answer": mean([float(not r.answered) for r in rollouts]),
        "tokens": mean([len(r.sample.token_ids) for r in rollouts]),
        "steps": mean([r.steps for r in rollouts]),
    }


def _rows(batch: Batch, rows: Tensor) -> Batch:
    """Some rows of a batch, trimmed to the longest of them."""
    attention = batch.attention[rows]
    length = int(attention.sum(1).max())
    return Batch(
        batch.ids[rows, :length],
        attention[:, :length],
        batch.mask[rows, :length],
        batch.rewards[rows, :length],
    )


def _stitch(parts: Sequence[Tensor], batch: Batch) -> Tensor:
    """Row-wise parts of differing length back into (batch, length)."""
    length = batch.ids.shape[1]
    return torch.cat([torch.nn.functional.pad(part, (0, length - part.shape[1])) for part in parts])


def _validate(run: PpoRun, grade: Grade, validation: Sequence[Question]) -> float:
    """Greedy accuracy on easy validation problems."""
    requests = [Request(q.question, 0, 1) for q in validation]
    drawn = run.engine.sample(requests, SamplingOptions(0.0, run.options.max_new_tokens))
    pairs = [(q.answer, answer_of(samples[0])) for q, samples in zip(validation, drawn, strict=True)]
    right = grade([(gold, answer) for gold, answer in pairs if gold is not None and answer is not None])
    return sum(right) / len(pairs) if pairs else 0.0


def _note_best(progress: Progress, accuracy: float) -> None:
    """The best checkpoint so far; of equals the later one, which has seen more hard questions."""
    if accuracy >= progress.best_accuracy:
        progress.best_accuracy, progress.best_update = accuracy, progress.update


def _drop_old(work: Path, progress: Progress) -> None:
    kept = {f"update-{progress.update:06d}", f"update-{progress.best_update:06d}"}
    for folder in work.glob("update-*"):
        if folder.name not in kept:
            shutil.rmtree(folder)


def _finish(run: PpoRun, progress: Progress, policy: Path, out: Path, work: Path) -> dict[str, Any]:
    best = work / f"update-{progress.best_update:06d}" / "policy" if progress.best_update else policy
    shutil.copytree(best, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
    lines = [json.dumps({"update": i + 1, **metrics}) for i, metrics in enumerate(progress.curves)]
    (out / "curves.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "updates": progress.update,
        "best_update": progress.best_update,
        "easy_validation_accuracy": progress.best_accuracy,
        "stopped": progress.stopped,
        **{
            f"final_{name}": value for name, value in (progress.curves[-1] if progress.curves else {}).items()
        },
    }
