"""The loop that all reinforcement learning here runs in: roll out, reward, learn, validate, save.

An algorithm says what is learned from a batch of rewarded rollouts (`Algorithm`); the rest is the same for
all: questions of both kinds, rewards from the easy evaluator, checkpoints chosen on easy validation, never on hard
answers. Killed, a run goes on from its last checkpoint and ends with the same weights on a CPU: every draw is
counted, so models, optimizers and `Progress` are the whole state.

A run is one process on one device. It draws with the embedded engine, whatever the pipeline samples with: that one
samples from the weights that learn, and gives the log-probability of each token, which the ratio needs.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from e2h_pipeline.artifacts.tables import read_table, table_files, write_table
from e2h_pipeline.generation.engine import Engine, Request, SamplingOptions
from e2h_pipeline.generation.transformers_engine import TransformersEngine
from e2h_pipeline.rl.advantages import masked_mean
from e2h_pipeline.rl.curricula import State, draw_questions, observe
from e2h_pipeline.rl.guards import STEPS_OF_LEVEL, VALIDATION, trouble
from e2h_pipeline.rl.kl_controller import next_coefficient
from e2h_pipeline.rl.rollouts import (
    Batch,
    Grade,
    Question,
    Rollout,
    answer_of,
    collate,
    draw,
    drawn_logprobs,
    rewarded,
    rollout_table,
)
from e2h_pipeline.solutions import parse_completion

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel

    from e2h_pipeline.recipe import Rl
    from e2h_pipeline.reporter import Reporter

_FINAL_LR_RATIO = 0.01
_BETAS = (0.9, 0.95)  # the paper's released code
_ADAM_EPSILON = 1e-5
_MASTER = "master"  # beside the moments in checkpoints
# Positions of a forward pass. What a CPU holds of more leaves its caches and is allocated anew each time: on the ladder
# one pass of 128 rows took three times as long as four of 32 of like length (docs/log.md). On a GPU memory is the limit:
# logits over 32,000 words of so many positions are 2 GB in float32, and there are a few such tensors.
_PASS_TOKENS_ON_CPU, _PASS_TOKENS = 1536, 16_384


@dataclass
class Progress:
    """Where a run is; with the checkpoint's tensors it is the whole state, for every draw is counted."""

    update: int = 0
    best_update: int = 0
    best_accuracy: float = -1.0
    stopped: str | None = None
    kl_coefficient: float = 0.0
    curriculum: State = field(default_factory=dict)
    curves: list[dict[str, float]] = field(default_factory=list)

    def note(self, accuracy: float) -> None:
        """The best checkpoint so far; of equals the later one, which has seen more hard questions."""
        if accuracy >= self.best_accuracy:
            self.best_accuracy, self.best_update = accuracy, self.update


class Run:
    """Models and optimizers of one run, and how they are saved.

    Weights in half precision have a copy in float32 that the optimizer works on (`masters`): a step of 2e-5 is less
    than what bfloat16 can tell apart.

    Attributes:
        trained: models with an optimizer each: "policy", and what else an algorithm learns.
        reference: the policy as it was.
    """

    def __init__(self, policy: Path, evaluator: Path, options: Rl) -> None:
        from e2h_pipeline.models.load import load_evaluator, load_policy

        self.options = options
        self.policy, self.tokenizer = load_policy(policy)
        self.reference, _ = load_policy(policy)
        self.evaluator, self.evaluator_tokenizer = load_evaluator(evaluator)
        for frozen in (self.reference, self.evaluator):
            frozen.requires_grad_(False)
        self.trained: dict[str, PreTrainedModel] = {}
        self.peaks: dict[str, float] = {}
        self.masters: dict[str, list[Tensor]] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.train("policy", self.policy, options.learning_rate)
        self.engine = TransformersEngine(self.policy, self.tokenizer)

    def train(self, name: str, model: PreTrainedModel, learning_rate: float) -> None:
        """Give a model an optimizer, and a place in checkpoints."""
        self.trained[name], self.peaks[name] = model, learning_rate
        self.masters[name] = [
            p if p.dtype == torch.float32 else p.detach().float() for p in model.parameters()
        ]
        self.optimizers[name] = torch.optim.AdamW(
            self.masters[name], learning_rate, _BETAS, _ADAM_EPSILON, weight_decay=0.0
        )
        if self.options.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Within it trained models keep the inputs of their layers alone and recompute the rest (`gradient_checkpointing`).

        Layers do so in training mode only, and then without a key-value cache. They alone are put into it, for the time of
        learning: with their dropouts off, log-probabilities stay those of the draw, which needs the cache.
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
        """Those of one update."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.peaks[name] * lr_scale(update, self.options)

    def step(self, name: str) -> Tensor:
        """One optimizer step of a model, with the gradients since its last. Returns their norm before clipping at 1."""
        optimizer, masters = self.optimizers[name], self.masters[name]
        halves = [(p, m) for p, m in zip(self.trained[name].parameters(), masters, strict=True) if p is not m]
        for parameter, master in halves:
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        norm = torch.nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for parameter, master in halves:
                parameter.copy_(master)
        return norm

    def save(self, folder: Path, progress: Progress) -> None:
        """Write a checkpoint under a temporary name and rename it: it is whole or not there."""
        from safetensors.torch import save_file

        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        for name, model in self.trained.items():
            model.save_pretrained(temporary / name)
        self.tokenizer.save_pretrained(temporary / "policy")
        save_file(dict(self._optimizer_tensors()), temporary / "optimizers.safetensors")
        (temporary / "progress.json").write_text(json.dumps(progress.__dict__), encoding="utf-8")
        temporary.rename(folder)

    def restore(self, folder: Path) -> Progress:
        """Load a checkpoint written by `save`."""
        from safetensors.torch import load_file

        for name, model in self.trained.items():
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
                if owner == name and moment == _MASTER:
                    self.masters[name][int(index)].copy_(tensor)
                elif owner == name:
                    state["state"].setdefault(int(index), {})[moment] = tensor
            optimizer.load_state_dict(state)
        return Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))

    def _optimizer_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, optimizer in self.optimizers.items():
            for i, (parameter, master) in enumerate(
                zip(self.trained[name].parameters(), self.masters[name], strict=True)
            ):
                if parameter is not master:
                    yield f"{name}/{i}/{_MASTER}", master.clone()
            for index, moments in optimizer.state_dict()["state"].items():
                for moment, value in moments.items():
                    yield f"{name}/{index}/{moment}", torch.as_tensor(value).clone()


@dataclass(frozen=True)
class Update:
    """One batch of rewarded rollouts, of which an algorithm learns.

    Attributes:
        number: updates before this one.
        rollouts: in the order of the batch's rows.
        old, reference: (batch, length) log-probabilities of the tokens under the policy that drew them, and under
            the policy of the start.
        kl: coefficient of the KL to the policy of the start.
    """

    number: int
    seed: int
    rollouts: Sequence[Rollout]
    batch: Batch
    old: Tensor
    reference: Tensor
    kl: float


class Algorithm(Protocol):
    """What is learned from rollouts.

    Attributes:
        name: as people write it.
    """

    name: str

    def start(self, policy: Path, evaluator: Path, options: Rl) -> Run:
        """The models of a run and their optimizers."""
        ...

    def learn(self, run: Run, update: Update) -> dict[str, float]:
        """The optimizer steps of one rollout batch.

        Returns:
            Metrics, `gradient_norm` among them: one that is not finite stops the run.
        """
        ...


def train_policy(
    algorithm: Algorithm,
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

    Args:
        algorithm: makes a run of the two folders, and does its updates.

    `out` also gets `curves.jsonl`, one line per rollout batch, and `rollouts.parquet`, one row per rollout. Killed,
    it goes on from its last checkpoint in `work` and ends with the same weights.
    """
    from e2h_pipeline.grading.equivalence import Verdict, verdicts
    from e2h_pipeline.grading.equivalence import grader as open_grader

    questions, validation = read_questions(easy_problems, hard_questions, options)
    run = algorithm.start(policy, evaluator, options)
    work.mkdir(parents=True, exist_ok=True)
    checkpoints = sorted(work.glob("update-*"))
    progress = run.restore(checkpoints[-1]) if checkpoints else None
    with ExitStack() as stack:
        judge = stack.enter_context(open_grader(grader))

        def grade(pairs: Sequence[tuple[str, str]]) -> list[bool]:
            return [verdict is Verdict.EQUAL for verdict in verdicts(judge, pairs)]

        if progress is None:  # the SFT policy is the first candidate: a run that only harms it returns it
            progress = Progress(
                best_accuracy=easy_accuracy(run.engine, grade, validation, options.max_new_tokens),
                kl_coefficient=options.kl,
            )
        ahead: _Drawn | None = None
        while progress.update < options.updates and progress.stopped is None:
            started = time.monotonic()
            drawn = ahead or _draw(run, grade, questions, seed, progress)
            ahead = None
            metrics, seconds = _learn(algorithm, run, drawn)
            progress.stopped = _trouble(progress, [metrics], options)
            if progress.stopped is None:  # else its rollouts and what it learned from them do not count
                progress.update += 1
                progress.curriculum = observe(drawn.curriculum, drawn.update.rollouts, options)
                progress.kl_coefficient = next_coefficient(
                    progress.kl_coefficient, metrics["kl"], len(drawn.update.rollouts), options
                )
                write_table(rollouts_of(work, progress.update), drawn.table)
                if progress.update % options.checkpoint_every == 0 or progress.update == options.updates:
                    accuracy = easy_accuracy(run.engine, grade, validation, options.max_new_tokens)
                    # A checkpoint is judged by its own rollouts: those of the next update, behind the last by some more.
                    ahead = _draw(run, grade, questions, seed, progress)
                    seen = [metrics, ahead.metrics | {VALIDATION: accuracy}]
                    progress.stopped = _trouble(progress, seen, options)
                    metrics[VALIDATION] = accuracy
            progress.curves.append(metrics)
            at = len(progress.curves)
            reporter.metrics({**metrics, **seconds, "seconds": time.monotonic() - started}, at)
            if progress.stopped:
                if ahead:  # what the guard saw
                    progress.curves.append(ahead.metrics)
                    reporter.metrics(ahead.metrics, at + 1)
                reporter.message(
                    f"{algorithm.name} stops at update {progress.update}: {progress.stopped}; the last good policy is kept"
                )
                break
            reporter.progress(progress.update, options.updates, f"{algorithm.name} updates")
            if VALIDATION in metrics:
                progress.note(metrics[VALIDATION])
                run.save(work / f"update-{progress.update:06d}", progress)
                _drop_old(work, progress)
    best = work / f"update-{progress.best_update:06d}" / "policy" if progress.best_update else policy
    return finish(progress, best, out, work)


def read_questions(
    easy_problems: Path, hard_questions: Path, options: Rl
) -> tuple[list[Question], list[Question]]:
    """Questions to roll out on, and easy validation questions. Hard ones come with an answer in controls alone, whose
    table of hard questions has a column of answers (`problems.hard_answers`)."""
    easy = read_table(
        easy_problems / "data.parquet", ["problem_id", "level", "question", "answer", "split"]
    ).to_pylist()
    hard = [
        Question(r["problem_id"], r["question"], r.get("answer"), r["level"], hard=True)
        for r in read_table(hard_questions / "data.parquet").to_pylist()
    ]
    train = [
        Question(r["problem_id"], r["question"], r["answer"], r["level"])
        for r in easy
        if r["split"] == "train"
    ]
    asked = {"all": [*train, *hard], "easy": train, "hard": hard}[options.questions]
    validation = [
        Question(r["problem_id"], r["question"], r["answer"]) for r in easy if r["split"] == "validation"
    ]
    return asked, validation


def _trouble(progress: Progress, latest: Sequence[dict[str, float]], options: Rl) -> str | None:
    return trouble([*progress.curves, *latest], options, progress.best_update, progress.best_accuracy)


@dataclass(frozen=True)
class _Drawn:
    """A rollout batch of the policy as it is, not learned from yet.

    Attributes:
        metrics: what people and guards watch of the policy that drew.
        seconds: where the time went.
        curriculum: its state behind the draw.
        table: what is kept of the rollouts.
    """

    update: Update
    metrics: dict[str, float]
    seconds: dict[str, float]
    curriculum: State
    table: pa.Table


def _draw(run: Run, grade: Grade, questions: Sequence[Question], seed: int, progress: Progress) -> _Drawn:
    """The rollout batch that comes next."""
    options, update, began = run.options, progress.update, time.monotonic()
    drawn, curriculum = draw_questions(questions, options, progress.curriculum, seed, update)
    completions = draw(run.engine, drawn, options, seed, update)
    rolled_out = time.monotonic()
    rollouts = rewarded(completions, run.tokenizer, run.evaluator, run.evaluator_tokenizer, grade, options)
    seconds = {"seconds_rollout": rolled_out - began, "seconds_score": time.monotonic() - rolled_out}
    rollouts.sort(key=lambda r: len(r.prompt_ids) + len(r.sample.token_ids))
    batch = collate(rollouts, run.tokenizer.pad_token_id, run.policy.device)
    if run.policy.dtype == torch.float32:
        old = drawn_logprobs(rollouts, batch)
    else:  # in 16 bits the products of drawing and of learning round apart, and the first ratio must be 1
        old = by_rows(batch, options, lambda part: token_logprobs(run.policy, part, options.temperature)[0])
    reference = by_rows(
        batch, options, lambda part: token_logprobs(run.reference, part, options.temperature)[0]
    )
    divergence = (old - reference) * batch.mask
    return _Drawn(
        Update(update, seed, rollouts, batch, old, reference, progress.kl_coefficient),
        {**describe(rollouts), "kl": masked_mean(divergence, batch.mask).item()},
        seconds,
        curriculum,
        rollout_table(rollouts, update + 1, divergence.sum(1).tolist()),
    )


def _learn(algorithm: Algorithm, run: Run, drawn: _Drawn) -> tuple[dict[str, float], dict[str, float]]:
    """The optimizer steps of a rollout batch: metrics, and where the time went."""
    began = time.monotonic()
    run.set_learning_rates(drawn.update.number)
    with run.recomputing():
        learned = algorithm.learn(run, drawn.update)
    metrics = drawn.metrics | learned | {"kl_coefficient": drawn.update.kl}
    return metrics, drawn.seconds | {"seconds_update": time.monotonic() - began}


def minibatches(batch: Batch, options: Rl, seed: int, update: int) -> Iterator[Tensor]:
    """Rows of each optimizer step, in an order drawn from what they are drawn for."""
    for epoch in range(options.epochs):
        order = list(range(len(batch.ids)))
        random.Random(f"rl/minibatches/{seed}/{update}/{epoch}").shuffle(order)
        yield from torch.tensor(order).split(options.minibatch)


def passes(batch: Batch, rows: Tensor, options: Rl) -> Iterator[tuple[Tensor, float]]:
    """Rows of a minibatch that are one forward pass, and their share of its completion tokens. Rows of like length go
    together, equal ones side by side; `rl.pass_tokens` says how many.

    A mean over the minibatch's tokens is the sum of share x mean over the passes.
    """
    most = pass_tokens(batch.ids.device, options)
    lengths = batch.attention[rows].sum(1).tolist()
    ids = batch.ids[rows].tolist()
    groups: list[list[int]] = [[]]
    distinct = 0
    for place in sorted(range(len(rows)), key=lambda i: (lengths[i], ids[i])):
        distinct += not groups[-1] or ids[place] != ids[groups[-1][-1]]
        if groups[-1] and distinct * lengths[place] > most:
            groups.append([])
            distinct = 1
        groups[-1].append(place)
    tokens = batch.mask[rows].sum(1).cpu()
    for group in groups:
        yield rows[group], (tokens[group].sum() / tokens.sum().clamp(min=1)).item()


def pass_tokens(device: torch.device, options: Rl) -> int:
    """Positions of a forward pass, padding included, at most; a pass has one row at least."""
    return options.pass_tokens or (_PASS_TOKENS_ON_CPU if device.type == "cpu" else _PASS_TOKENS)


@torch.no_grad()
def by_rows(batch: Batch, options: Rl, measure: Callable[[Batch], Tensor]) -> Tensor:
    """Something of each token of a batch, (batch, length), no more than a minibatch at a time."""
    found = torch.zeros_like(batch.rewards)
    for some in torch.arange(len(batch.ids)).split(options.minibatch):
        for rows, _ in passes(batch, some, options):
            part = measure(some_rows(batch, rows))
            found[rows, : part.shape[1]] = part
    return found


def token_logprobs(model: PreTrainedModel, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each token of `batch.ids` given what stands before it, and the entropy there, without gradient.

    Both (batch, length) at the rollout temperature; position 0 holds 0.
    """
    (ids, attention), of = distinct_rows(batch)
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, :-1]
    log_p = (logits.float() / temperature).log_softmax(-1)
    chosen = log_p.gather(-1, ids[:, 1:, None]).squeeze(-1)
    with torch.no_grad():  # it is watched, not learned from
        entropy = -(log_p.exp() * log_p).sum(-1)
    return shift(chosen)[of], shift(entropy)[of]


def distinct_rows(batch: Batch) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Tokens and attention of rows that differ, and which of them each row is: a model says the same of equal ones.

    Samples of an easy question, or of a policy that is sure, are often word for word the same.
    """
    both = torch.cat([batch.ids, batch.attention], 1)
    rows, of = both.unique(dim=0, return_inverse=True)
    if len(rows) == len(both):  # all differ: they stay in their order
        rows, of = both, torch.arange(len(both), device=both.device)
    ids, attention = rows.chunk(2, 1)
    return (ids, attention), of


def shift(values: Tensor) -> Tensor:
    """(batch, length - 1) to (batch, length): what is known of each token but the first, 0 there."""
    return torch.nn.functional.pad(values, (1, 0))


def lr_scale(update: int, options: Rl) -> float:
    """Linear warm-up, then cosine from 1 to 1%."""
    if update < options.warmup_updates:
        return (update + 1) / options.warmup_updates
    share = (update - options.warmup_updates) / max(1, options.updates - options.warmup_updates)
    return _FINAL_LR_RATIO + (1 - _FINAL_LR_RATIO) * 0.5 * (1 + math.cos(math.pi * share))


def describe(rollouts: Iterable[Rollout]) -> dict[str, float]:
    """What people and guards watch: rewards, evaluator scores by kind of question, lengths by level, and shares of
    rollouts without an answer, with one step, with a step said twice. What no question was drawn for is left out."""
    return dict(sorted(means(measures(rollout) for rollout in rollouts).items()))


def measures(rollout: Rollout) -> dict[str, float]:
    """What `describe` takes the means of."""
    kind = "hard" if rollout.question.hard else "easy"
    found = {
        f"evaluator_{kind}": rollout.evaluator_score,
        "no_answer": not rollout.answered,
        "tokens": len(rollout.sample.token_ids),
        "steps": rollout.steps,
        "one_step": rollout.steps < 2,
        "repeated_steps": repeats(rollout.sample.completion),
        f"{STEPS_OF_LEVEL}{rollout.question.level}": rollout.steps,
    }
    if rollout.rewards:
        found["reward"] = sum(rollout.rewards)
    if kind == "easy":
        found["easy_accuracy"] = bool(rollout.right)
    return found


def weighted(measured: Iterable[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    """Sum of each metric times its weight."""
    sums: dict[str, float] = {}
    for weight, metrics in measured:
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + weight * value
    return sums


def means(measured: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over those that have it, which are gone over once."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for metrics in measured:
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + float(value)
            counts[name] = counts.get(name, 0) + 1
    return {name: total / counts[name] for name, total in sums.items()}


def repeats(completion: str) -> bool:
    """Whether a step is said twice."""
    steps = parse_completion(completion).steps
    return len(set(steps)) < len(steps)


def some_rows(batch: Batch, rows: Tensor) -> Batch:
    """Some rows of a batch, trimmed to the longest of them."""
    attention = batch.attention[rows]
    length = int(attention.sum(1).max())
    return Batch(
        batch.ids[rows, :length],
        attention[:, :length],
        batch.mask[rows, :length],
        batch.rewards[rows, :length],
    )


def easy_accuracy(engine: Engine, grade: Grade, validation: Sequence[Question], max_new_tokens: int) -> float:
    """Greedy accuracy on easy validation problems."""
    requests = [Request(q.question, 0, 1) for q in validation]
    drawn = engine.sample(requests, SamplingOptions(0.0, max_new_tokens))
    pairs = [(q.answer, answer_of(samples[0])) for q, samples in zip(validation, drawn, strict=True)]
    right = grade([(gold, answer) for gold, answer in pairs if gold is not None and answer is not None])
    return sum(right) / len(pairs) if pairs else 0.0


def _drop_old(work: Path, progress: Progress) -> None:
    kept = {f"update-{progress.update:06d}", f"update-{progress.best_update:06d}"}
    for folder in work.glob("update-*"):
        if folder.name not in kept:
            shutil.rmtree(folder)


def rollouts_of(work: Path, update: int) -> Path:
    """Where a run keeps what is kept of an update's rollouts, until it ends."""
    return work / "rollouts" / f"part-{update:06d}.parquet"


def _write_rollouts(work: Path, out: Path, updates: int) -> None:
    """All rollouts of a run in one table; a run killed behind its last checkpoint left some that do not count."""
    import pyarrow.parquet as pq

    parts = table_files(work / "rollouts")[:updates] if updates else []
    if not parts:
        return
    with pq.ParquetWriter(out / "rollouts.parquet", pq.read_schema(parts[0]), compression="zstd") as writer:
        for part in parts:
            writer.write_table(read_table(part))


def finish(progress: Progress, best: Path, out: Path, work: Path) -> dict[str, Any]:
    """Save the best policy, the curves and the rollouts of a run to `out`, and give its summary."""
    shutil.copytree(best, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
    lines = [
        json.dumps({"update": i + 1, **{name: v for name, v in metrics.items() if math.isfinite(v)}})
        for i, metrics in enumerate(progress.curves)
    ]
    (out / "curves.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_rollouts(work, out, progress.update)
    return {
        "updates": progress.update,
        "best_update": progress.best_update,
        "easy_validation_accuracy": progress.best_accuracy,
        "stopped": progress.stopped,
        **{
            f"final_{name}": value for name, value in (progress.curves[-1] if progress.curves else {}).items()
        },
    }
