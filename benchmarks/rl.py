"""The cost of an update of reinforcement learning on a CPU: our GRPO next to TRL's `GRPOTrainer`.

    python benchmarks/rl.py [--rounds 5] [--updates 4] [--temperature 1] [--threads 1 2]
        [--ways ours trl]

An update draws completions of the questions, scores them with the evaluator, grades them, and takes
the optimizer steps with KL to the starting policy. Both sides have the same model (the shipped
ladder model), questions in the same order, evaluator (the same model with a random head: its speed
does not depend on training), completions per question, minibatches, temperature, limit, clip range,
KL coefficient, optimizer and precision. Two sizes: `ladder`, as in the recipe of that name (128
completions, one optimizer step), and `default`, a recipe's defaults (512 completions, four steps).

- `ours`: `Grpo().train(...)`, step-level;
- `ours, engine`: the same with one rollout engine, the embedded one in a process of its own, whose
  processor seconds count too;
- `trl`: `GRPOTrainer` with `generate` and `loss_type="bnpo"`, the mean over a minibatch's tokens as
  ours. Its reward function calls our scorer and our grader, and sums the rewards that ours spreads
  over the steps. Its defaults that cost time on a CPU are off: gradient checkpointing, bfloat16,
  padding to multiples, importance weights in the KL, logs;
- `trl, continuous batching`: the same with transformers' `generate_batch`, at the faster of two
  sizes of its cache.

The benchmark checks and prints that both do the same work: completions, tokens, optimizer steps,
mean length and mean reward. `distinct` is the share of different completions. Ours scores and
learns equal completions of a question together, so a higher temperature saves less.

Every way has its own process at each thread count, and the rounds go through all of them in turn. A
round is a run from the start: one update to warm up, then `--updates` timed ones, from the end of
one to the end of the next, without validation and checkpoints. The tables compare medians over all
timed updates, each way at its better thread count. Time is split into drawing completions, scoring
them, and the rest (log-probabilities and learning). Tables for people, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from resources.supervise import descendants

if TYPE_CHECKING:
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.grading.verdicts import Grader
    from e2h_pipeline.recipe import GrpoRl
    from e2h_pipeline.rl.algorithms import RlJob
    from e2h_pipeline.rl.online.models import Run
    from e2h_pipeline.rl.online.protocol import Update as RolloutBatch

# Completions per update, and per optimizer step.
SIZES = {"ladder": (128, 128), "default": (512, 128)}
SAMPLES_PER_QUESTION = 4
LIMIT = 80
PARTS = ("drawing", "scoring", "learning")
# By default continuous batching takes nearly all memory on a CPU, and its attention covers its
# whole cache.
CACHE_PAGE, CACHE_BLOCKS = 32, (256, 1024)
# Mean lengths after a few updates on different rewards.
LENGTH_TOLERANCE = 0.1
TARGET = 2.0  # from the issue: times TRL's speed, at least

Update = dict[
    str, float
]  # of one update: seconds by part and clock, tokens, completions, optimizer steps, reward
Way = Callable[[Mapping[str, Any], int], list[Update]]  # of a spec and a seed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=4, help="timed ones of a round")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(json.loads(options.worker))
    line: dict[str, Any] = {"benchmark": "rl", "cpus": len(os.sched_getaffinity(0)), "target": TARGET}
    line |= {name: getattr(options, name) for name in ("rounds", "updates", "threads", "temperature")}
    with tempfile.TemporaryDirectory() as scratch:
        folders = make_inputs(Path(scratch))
        for size in options.sizes:
            line[size] = measure(size, folders, options)
    for size in options.sizes:
        times = line[size]["times_trl"]
        if times:
            met = "met" if times >= TARGET else "MISSED"
            print(f"{size}: {times:.2f} times TRL, target at least {TARGET:g}: {met}")
    print(json.dumps(line))
    return None


# What is measured


def measure(size: str, folders: Mapping[str, str], options: argparse.Namespace) -> dict[str, Any]:
    """Rounds through all workers in turn.

    Raises:
        SystemExit: the ways did not do the same work.
    """
    rollouts, minibatch = SIZES[size]
    shared = {**folders, "rollouts": rollouts, "minibatch": minibatch}
    shared |= {name: getattr(options, name) for name in ("updates", "temperature")}
    keys = [(way, threads) for way in options.ways for threads in options.threads]
    workers = {key: Worker({**shared, "way": key[0], "threads": key[1]}) for key in keys}
    found: dict[tuple[str, int], list[Update]] = {key: [] for key in keys}
    for number in range(options.rounds):
        for key, worker in workers.items():
            found[key] += worker.round(number)
    rows = [summary(way, threads, found[way, threads]) for way, threads in keys]
    for worker in workers.values():
        worker.end()
    best = {row["way"]: row for row in sorted(rows, key=lambda row: -row["wall"])}
    report(size, rows, best)
    check_work(rows)
    theirs = [row["wall"] for way, row in best.items() if way.startswith("trl")]
    times = min(theirs) / best["ours"]["wall"] if theirs and "ours" in best else None
    return {"rows": rows, "times_trl": times}


def summary(way: str, threads: int, updates: Sequence[Update]) -> dict[str, Any]:
    """Medians of times; means of counts."""
    row: dict[str, Any] = {"way": way, "threads": threads}
    for clock in ("wall", "processor"):
        row[clock] = statistics.median(u[clock] for u in updates)
        row |= {f"{clock}_{part}": statistics.median(u[f"{clock}_{part}"] for u in updates) for part in PARTS}
    row["fastest"], row["slowest"] = min(u["wall"] for u in updates), max(u["wall"] for u in updates)
    row |= {
        name: statistics.mean(u[name] for u in updates)
        for name in ("completions", "tokens", "distinct", "steps", "reward")
    }
    return row


def check_work(rows: Sequence[Mapping[str, Any]]) -> None:
    """See `measure`."""
    usual = statistics.median(row["tokens"] for row in rows)
    for row in rows:
        same = all(row[name] == rows[0][name] for name in ("completions", "steps"))
        if not same or abs(row["tokens"] / usual - 1) > LENGTH_TOLERANCE:
            raise SystemExit(f"{row['way']} does other work than {rows[0]['way']}")


def report(size: str, rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> None:
    """A table."""
    rollouts, minibatch = SIZES[size]
    print(
        f"\n{size}: {rollouts} completions an update, minibatches of {minibatch}; * the better thread count"
    )
    print(
        f"{'way':26}{'threads':>8}{'seconds':>9}{'(range)':>13}"
        + "".join(f"{part:>10}" for part in PARTS)
        + f"{'CPU-s':>8}{'ours is':>9}{'in CPU-s':>10}{'tokens':>9}{'length':>8}{'distinct':>10}{'steps':>7}{'reward':>8}"
    )
    ours = best.get("ours", {"wall": float("nan"), "processor": float("nan")})
    for row in rows:
        mark = "*" if best[row["way"]] is row else " "
        spans = f"({row['fastest']:.2f}-{row['slowest']:.2f})"
        print(
            f"{row['way']:26}{row['threads']:7}{mark}{row['wall']:9.3f}{spans:>13}"
            + "".join(f"{row[f'wall_{part}']:10.3f}" for part in PARTS)
            + f"{row['processor']:8.3f}{row['wall'] / ours['wall']:8.2f}x"
            f"{row['processor'] / ours['processor']:9.2f}x{row['tokens']:9,.0f}"
            f"{row['tokens'] / row['completions']:8.1f}"
            f"{row['distinct'] / row['completions']:10.0%}{row['steps']:7.0f}{row['reward']:8.3f}"
        )


# Model, evaluator and questions


def make_inputs(scratch: Path) -> dict[str, str]:
    """An evaluator and the tables that a run reads."""
    import torch
    from transformers import AutoModelForTokenClassification

    from e2h_pipeline.artifacts.tables import write_table
    from e2h_pipeline.models.base import SHIPPED, save_model
    from e2h_pipeline.models.load import load_policy
    from e2h_pipeline.problems.records import easy_table, question_table
    from e2h_pipeline.problems.source import load_split
    from e2h_pipeline.recipe import LadderProblems

    policy = SHIPPED / "ladder-base"
    torch.manual_seed(0)
    evaluator = AutoModelForTokenClassification.from_pretrained(policy, num_labels=1)
    save_model(evaluator, load_policy(policy)[1], scratch / "evaluator")
    split = load_split(LadderProblems(train_per_level=400, validation=100))
    for name, table in (("easy", easy_table(split)), ("hard", question_table(split.hard))):
        (scratch / name).mkdir()
        write_table(scratch / name / "data.parquet", table)
    return {
        "policy": str(policy),
        **{name: str(scratch / name) for name in ("evaluator", "easy", "hard")},
    }


def make_options(spec: Mapping[str, Any]) -> GrpoRl:
    """The options of the recipe `ladder`, with the sizes of the spec."""
    from e2h_pipeline.recipe import GrpoRl

    return GrpoRl(
        updates=spec["updates"] + 2,  # the first warms up; validation and a checkpoint follow the last
        rollouts=spec["rollouts"],
        minibatch=spec["minibatch"],
        samples_per_question=SAMPLES_PER_QUESTION,
        learning_rate=3e-4,
        warmup_updates=0,
        temperature=spec["temperature"],
        max_new_tokens=LIMIT,
        kl=0.05,
        checkpoint_every=spec["updates"] + 2,
    )


def make_job(spec: Mapping[str, Any], options: GrpoRl, work: Work) -> RlJob[GrpoRl]:
    """The job of a run of ours."""
    from e2h_pipeline.problems.ladder.domain import LADDER
    from e2h_pipeline.rl import algorithms as rl

    inputs = {
        rl.SFT_POLICY: Path(spec["policy"]),
        rl.EVALUATOR: Path(spec["evaluator"]),
        rl.EASY_PROBLEMS: Path(spec["easy"]),
        rl.HARD_QUESTIONS: Path(spec["hard"]),
    }
    return rl.RlJob(inputs, options, LADDER, "exact", work)


class Clock:
    """Wall and processor seconds of updates and of their parts, those of child processes too."""

    def __init__(self) -> None:
        self.updates: list[Update] = []
        self._at = self._now()
        self.counts: dict[str, float] = {}

    def _now(self) -> tuple[float, float]:
        children = sum(map(processor_seconds, descendants(os.getpid())))
        return time.perf_counter(), time.process_time() + children

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the seconds of the block for this part."""
        wall, processor = self._now()
        yield
        ended = self._now()
        self.count(f"wall_{name}", ended[0] - wall)
        self.count(f"processor_{name}", ended[1] - processor)

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Wrap a function so that its seconds count for a part."""

        def inside(*args: Any) -> Any:
            with self.part(part):
                return function(*args)

        return inside

    def count_drawn(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> None:
        """Count the completions of an update."""
        self.count("completions", len(completions))
        self.count("tokens", sum(map(len, completions)))
        pairs = zip(prompts, completions, strict=True)
        self.count("distinct", len({(tuple(prompt), tuple(ids)) for prompt, ids in pairs}))

    def count(self, name: str, value: float) -> None:
        """Add to a count of the update."""
        self.counts[name] = self.counts.get(name, 0) + value

    def end_update(self) -> None:
        """End an update and begin the next."""
        now = self._now()
        for i, clock in enumerate(("wall", "processor")):
            self.counts[clock] = now[i] - self._at[i]
            other = sum(self.counts[f"{clock}_{part}"] for part in ("drawing", "scoring"))
            self.counts[f"{clock}_learning"] = self.counts[clock] - other
        self.updates.append(self.counts)
        self.counts, self._at = {}, now


def processor_seconds(pid: int) -> float:
    """Processor seconds of a process so far; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# The ways


def ours(spec: Mapping[str, Any], seed: int) -> list[Update]:
    """A run of ours."""
    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.rl.online import loop
    from e2h_pipeline.rl.online.grpo import Grpo

    clock = Clock()
    options = make_options(spec)

    class Counted(Grpo):
        def start(self, job: RlJob[GrpoRl]) -> Run[GrpoRl]:
            run = super().start(job)
            run.optimizers["policy"].register_step_post_hook(lambda *_: clock.count("steps", 1))
            return run

        def learn(self, run: Run[GrpoRl], update: RolloutBatch) -> dict[str, float]:
            found = super().learn(run, update)
            rollouts = update.rollouts
            clock.count_drawn([r.prompt_ids for r in rollouts], [r.sample.token_ids for r in rollouts])
            return found

    class Times(Reporter):
        def metrics(self, values: Mapping[str, float], step: int) -> None:
            clock.count("reward", values["reward"])
            clock.end_update()

    timed = [
        (loop._Training, "_begin", "drawing"),
        (loop._Training, "_completions", "drawing"),
        (loop, "rewarded", "scoring"),
    ]
    whole = [(place, name, getattr(place, name)) for place, name, _ in timed]
    for place, name, part in timed:
        setattr(place, name, clock.timed(getattr(place, name), part))
    try:
        with tempfile.TemporaryDirectory() as folder:
            work = Work(Path(folder) / "out", Path(folder) / "work", seed, Times())
            Counted().train(make_job(spec, options, work))
    finally:
        for place, name, function in whole:
            setattr(place, name, function)
    return clock.updates[1:-1]


def ours_with_engine(spec: Mapping[str, Any], seed: int) -> list[Update]:
    """A run of ours whose rollouts another process draws."""
    os.environ["E2H_ROLLOUT_ENGINES"] = "1"
    return ours(spec, seed)


def trl(spec: Mapping[str, Any], seed: int, cache_blocks: int | None = None) -> list[Update]:
    """A run of TRL's trainer on the questions that ours draws.

    Args:
        cache_blocks: size of the cache of continuous batching, which is used if this is given.
    """
    import datasets
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from e2h_pipeline.grading.graders import grader
    from e2h_pipeline.rl import algorithms as rl
    from e2h_pipeline.rl.curricula import draw_questions
    from e2h_pipeline.rl.questions import read_questions
    from e2h_pipeline.solutions import MARKED

    clock = Clock()
    options = make_options(spec)
    steps = options.rollouts // options.minibatch
    inputs = {rl.EASY_PROBLEMS: Path(spec["easy"]), rl.HARD_QUESTIONS: Path(spec["hard"])}
    questions, _ = read_questions(inputs, options)
    drawn = [
        q
        for update in range(spec["updates"] + 1)
        for q in draw_questions(questions, options, {}, seed, update)[0]
    ]
    rows = [{"prompt": MARKED.prompt(q.question), "question": q.question, "answer": q.answer} for q in drawn]

    class Timed(GRPOTrainer):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            with clock.part("drawing"):
                made = super()._generate(*args, **kwargs)
            clock.count_drawn(made[0], made[1])
            return made

        def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
            with clock.part("scoring"):
                rewards = super()._calculate_rewards(*args, **kwargs)
            clock.count("reward", rewards.mean().item())
            return rewards

    class Steps(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.count("steps", 1)
            if state.global_step % steps == 0:
                clock.end_update()

    cache = None if cache_blocks is None else {"page_size": CACHE_PAGE, "num_blocks": cache_blocks}
    with grader("exact") as judge, tempfile.TemporaryDirectory() as folder:
        trainer = Timed(
            model=spec["policy"],
            processing_class=AutoTokenizer.from_pretrained(spec["policy"], padding_side="left"),
            reward_funcs=reward_function(spec, options, judge),
            train_dataset=datasets.Dataset.from_list(rows),
            callbacks=[Steps()],
            args=GRPOConfig(
                output_dir=folder,
                seed=seed,
                max_steps=(spec["updates"] + 1) * steps,
                per_device_train_batch_size=options.minibatch,
                steps_per_generation=steps,
                gradient_accumulation_steps=1,
                num_generations=options.samples_per_question,
                max_completion_length=options.max_new_tokens,
                temperature=options.temperature,
                loss_type="bnpo",
                beta=options.kl,
                epsilon=options.clip,
                use_bias_correction_kl=False,
                learning_rate=options.learning_rate,
                lr_scheduler_type="constant",
                adam_beta1=0.9,
                adam_beta2=0.95,
                adam_epsilon=1e-5,
                shuffle_dataset=False,
                generation_kwargs={"use_cache": True},
                use_transformers_continuous_batching=cache_blocks is not None,
                transformers_continuous_batching_config=cache,
                pad_to_multiple_of=None,
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=True,
                model_init_kwargs={"dtype": "float32"},
                dataloader_pin_memory=False,
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
        )
        trainer.train()
    return clock.updates[1:]


def reward_function(spec: Mapping[str, Any], options: GrpoRl, judge: Grader) -> Callable[..., list[float]]:
    """A reward function for TRL: it sums the rewards that ours spreads over a completion's
    tokens."""
    from e2h_pipeline.grading.verdicts import Gold, Verdict, decide
    from e2h_pipeline.models.load import load_evaluator
    from e2h_pipeline.problems.ladder.domain import LADDER
    from e2h_pipeline.rewards.scoring import score_solutions
    from e2h_pipeline.rl.shaping import step_rewards, terminal_reward, without_steps

    evaluator, tokenizer = load_evaluator(Path(spec["evaluator"]))
    end = tokenizer.eos_token_id

    def reward(
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        question: Sequence[str],
        answer: Sequence[str | None],
        **_: Any,
    ) -> list[float]:
        finished = [ids[-1] == end for ids in completion_ids]
        logits = score_solutions(
            evaluator, tokenizer, list(zip(question, completions, finished, strict=True))
        )
        answers = [LADDER.answer_of(text, f) for text, f in zip(completions, finished, strict=True)]
        pairs = [
            None if gold is None or own is None else (Gold(gold), own)
            for gold, own in zip(answer, answers, strict=True)
        ]
        verdicts = decide(judge, pairs).verdicts
        rewards = []
        for i, own in enumerate(logits):
            scores = [_sigmoid(logit) for logit in own]
            process = sum(step_rewards(scores, options)) if scores else without_steps(options)
            right = None if answer[i] is None else verdicts[i] is Verdict.EQUAL
            terminal = terminal_reward(right, answers[i] is not None, options)
            rewards.append(options.process_scale * process + terminal)
        return rewards

    return reward


def _sigmoid(logit: float) -> float:
    import math

    return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))


class ContinuousBatching:
    """`trl` with continuous batching, at the cache size that was the fastest in the warm-up."""

    def __init__(self) -> None:
        self._blocks: int | None = None

    def __call__(self, spec: Mapping[str, Any], seed: int) -> list[Update]:
        if self._blocks is None:
            short = {**spec, "updates": 1}
            self._blocks = min(CACHE_BLOCKS, key=lambda blocks: trl(short, seed, blocks)[0]["wall"])
        return trl(spec, seed, self._blocks)


WAYS: dict[str, Way] = {
    "ours": ours,
    "ours, engine": ours_with_engine,
    "trl": trl,
    "trl, continuous batching": ContinuousBatching(),
}


# A process for each way


class Worker:
    """A process for one way and thread count, which runs on request."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": str(spec["threads"]),
                "CUDA_VISIBLE_DEVICES": "",
                "HF_HUB_OFFLINE": "1",
            },
        )
        self._answer()  # it is warm

    def round(self, seed: int) -> list[Update]:
        """Run once."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> list[Update]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise SystemExit(f"a worker died:\n{self._log.read().decode(errors='replace')[-4000:]}")
        found: list[Update] = json.loads(line)
        return found


def work(spec: dict[str, Any]) -> None:
    """The worker's side: warm up, then a round for every line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # prints of libraries must not come between the answers
    import torch

    torch.set_num_threads(spec["threads"])
    way = WAYS[spec["way"]]
    way({**spec, "updates": 1}, 0)
    print("[]", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(way(spec, int(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
