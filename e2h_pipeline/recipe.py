"""One experiment is one recipe: typed, documented, named by a key a person can read.

A key is a recipe's file name plus overrides, `ladder/rl.updates=50/seed=1`. It is the Dagster
partition key and says all there is to say: the file, the key and the artifacts are the whole
experiment. Dagster does not validate dynamic partition keys, and keys become paths and tags, so
`Recipe.from_key` is strict. A stage sees only the sections it declares (`Recipe.slice`); what it
cannot read cannot shape its result, which is what makes the cache key honest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

RECIPE_FOLDER = Path(__file__).parent / "recipes"
DEFAULT_KEY = "ladder"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
_OVERRIDE = re.compile(r"([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)=([A-Za-z0-9_.,+-]{1,60})")
_MAX_KEY_LENGTH = 200
_REMOTE_CODE = "base.trust_remote_code"
_WHOSE_CODE = ("base.model", "base.revision")


class RecipeError(ValueError):
    """A recipe file, key or override that cannot be used; the message names the mend."""


class Section(BaseModel):
    """A part of a recipe. Unknown fields are refused; values never change after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LadderWorld(Section):
    """The synthetic levelled world: chains of operations modulo 7, one operation a step.

    Misconceptions make it honest: for a share of the facts of each operator the web corpus is
    wrong more often than right, always in the same way, so majority voting agrees on mistakes.
    """

    seed: int = Field(0, description="Seed of the world itself: which facts are misconceived and how.")
    operators: str = Field("+-*", description="Operators, from common to rare.")
    misconceived: tuple[float, ...] = Field(
        (0.2, 0.3, 0.45), description="Share of each operator's 49 facts that the corpus has wrong."
    )
    belief: float = Field(
        0.65, ge=0, le=1, description="How often the corpus writes the misconception when it meets one."
    )
    steps: tuple[tuple[int, int], ...] = Field(
        ((1, 3), (2, 4), (3, 5), (4, 6), (5, 8)),
        description="Least and most operations of a problem, per level 1-5.",
    )
    rare: tuple[float, ...] = Field(
        (0.3, 0.35, 0.4, 0.5, 0.6),
        description="Share of steps, per level 1-5, drawn from the later (rarer, more misconceived) half of the operators.",
    )


class Problems(Section):
    """Where problems come from and which of them may be supervised (paper section 3)."""

    source: Literal["ladder", "math"] = Field("ladder", description="The problem source.")
    easy_levels: tuple[int, ...] = Field(
        (1, 2, 3), description="Levels with full supervision; the rest give questions only."
    )
    seed: int = Field(
        0,
        description="Seed of the drawn problems (ladder) and of every subsample and hold-out (all sources).",
    )
    validation: int = Field(
        100, ge=0, description="Easy problems held out for choosing checkpoints and thresholds."
    )
    easy_limit: int | None = Field(
        None, ge=1, description="Keep at most this many easy problems (drawn by seed)."
    )
    hard_limit: int | None = Field(
        None, ge=1, description="Keep at most this many hard questions (drawn by seed)."
    )
    benchmark_limit: int | None = Field(
        None, ge=1, description="Keep at most this many benchmark problems (drawn by seed)."
    )
    train_per_level: int = Field(
        200, ge=1, description="ladder: problems drawn per level for the training pool."
    )
    world: LadderWorld = Field(default_factory=LadderWorld, description="ladder: the world.")
    path: str | None = Field(
        None,
        description="math: folder with math_train, math_test and math500 files; E2H_DATA_DIR/math where unset.",
    )
    hub: str | None = Field(
        None, description="math: dataset name on the Hugging Face Hub, used instead of a folder."
    )
    hub_revision: str | None = Field(
        None, description="math: commit of the Hub data set; set it, or results can move."
    )
    strict_counts: bool = Field(
        True, description="math: refuse anything but the published 12,000/500 split and its level counts."
    )

    hard_answers: bool = Field(
        False,
        description="Control (the paper's dagger rows): hard questions carry their answers for reinforcement learning. "
        "Needs strict: false.",
    )

    @model_validator(mode="after")
    def _levels(self) -> Problems:
        if not self.easy_levels or not set(self.easy_levels) <= {1, 2, 3, 4, 5}:
            raise ValueError(f"easy_levels must be a non-empty subset of 1-5, got {self.easy_levels}")
        return self


class Base(Section):
    """The pretrained model everything starts from."""

    model: str = Field(
        "ladder-base", description="A model shipped with the package, a Hub name, or a local folder."
    )
    revision: str | None = Field(
        None,
        description="Commit of the Hub model; set it, or results can move: the newest is fetched, and a newer one is "
        "neither noticed nor in any key.",
    )
    train: bool = Field(
        False, description="ladder: train the base model from nothing instead of using the shipped one."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Number format the model is loaded in."
    )
    trust_remote_code: bool = Field(
        False, description="Run the Python a Hub model ships. Leave off unless you have read it."
    )
    seed: int = Field(0, description="Seed of the corpus and of the training of the base model.")
    hidden: int = Field(64, ge=8, description="Width of the model trained from nothing.")
    layers: int = Field(
        4, ge=1, description="Layers of the model trained from nothing; fewer than 3 cannot check a step."
    )
    heads: int = Field(4, ge=1, description="Attention heads of the model trained from nothing.")
    updates: int = Field(1800, ge=1, description="Optimizer updates of base training.")
    batch_size: int = Field(64, ge=1, description="Rows per update of base training.")
    row_tokens: int = Field(
        160, ge=16, description="Tokens per row: documents end to end, cut where the row is full."
    )
    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate of base training.")
    slips: float = Field(0.02, ge=0, le=1, description="Share of corpus steps with a random slip.")
    homework_slips: float = Field(
        0.25, ge=0, le=1, description="Share of steps with a slip in marked homework."
    )
    marked: float = Field(0.7, ge=0, le=1, description="Share of corpus documents that are marked homework.")
    mark_noise: float = Field(0.05, ge=0, le=1, description="Share of marks that are flipped at random.")


class Solutions(Section):
    """Whose solutions of easy problems the policy is taught (paper section 3.2, appendix C.1)."""

    source: Literal["reference", "prm800k", "metamath"] = Field(
        "reference",
        description="Those that come with the problems; steps of PRM800K's solutions that people rated right; or a file in "
        "MetaMathQA's format: rewritten easy problems of MATH and GSM8K with solutions.",
    )
    path: str | None = Field(
        None,
        description="prm800k: file or folder of labels, E2H_DATA_DIR/steps where unset; metamath: .json or .jsonl file, "
        "MetaMathQA* of E2H_DATA_DIR/metamath where unset.",
    )
    per_question: int | None = Field(
        None,
        ge=1,
        description="metamath: keep at most this many solutions of a (rewritten) question (drawn by problems.seed).",
    )

    @property
    def from_files(self) -> bool:
        """Whether they are others' solutions, so that what they must not show has to be known."""
        return self.source != "reference"


class Sft(Section):
    """Supervised fine-tuning on easy solutions (paper section 3.2, appendix C.1)."""

    problems: int | None = Field(
        None,
        ge=1,
        description="Use the solutions of only this many problems (drawn by seed); all where unset.",
    )
    epochs: int = Field(3, ge=1, description="Passes over the easy solutions.")
    batch_size: int = Field(128, ge=1, description="Solutions per optimizer update.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Solutions per forward pass; the whole batch where unset."
    )
    learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate, cosine to 1% of itself.")
    warmup: float = Field(
        0.2, ge=0, le=1, description="Share of updates spent warming up (the paper's code uses 0.2)."
    )
    max_tokens: int = Field(768, ge=8, description="Longer solutions are dropped, counted and shown.")


class Sampling(Section):
    """How completions are drawn."""

    samples: int = Field(32, ge=1, description="Completions per question (N).")
    temperature: float = Field(0.7, ge=0, description="0 is greedy.")
    top_k: int = Field(20, ge=0, description="Keep the k likeliest tokens; 0 keeps all.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Keep the smallest set of tokens with this probability."
    )
    max_new_tokens: int = Field(
        768, ge=1, description="A completion that reaches this is unfinished and has no answer."
    )
    batch_tokens: int = Field(
        65536,
        ge=64,
        description="Tokens that a batch has room for: prompts, which their samples share, and samples.",
    )
    stop: tuple[str, ...] = Field(
        (), description="Texts that end a completion and are left out of it; recorded as its stop reason."
    )
    shard_questions: int = Field(32, ge=1, description="Questions per shard: the unit that survives a kill.")
    shard_samples: int = Field(
        64,
        ge=1,
        description="Samples of each question per shard. Raising N keeps all whole shards: let it divide the N you "
        "start from.",
    )

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(texts):
            raise ValueError("an empty text would end every completion before its first token")
        return texts


class EasySamples(Sampling):
    """Solutions of easy problems that get step labels; hotter, so that there are mistakes to learn from."""

    samples: int = Field(
        16,
        ge=0,
        description="Completions per easy problem; 0 where labels are human and nothing is to be sampled.",
    )
    temperature: float = Field(1.4, ge=0, description="Hotter than evaluation: an evaluator needs negatives.")
    top_k: int = Field(0, ge=0, description="Keep the k likeliest tokens; 0 keeps all.")


class Labels(Section):
    """Step labels on easy problems; they stop at the first error (paper section 3.3, appendix L)."""

    source: Literal["checker", "prm800k", "shepherd", "monte_carlo"] = Field(
        "checker",
        description="Exact checker (ladder), PRM800K human labels, a file in Math-Shepherd's format, or completions "
        "of each step by the policy (Math-Shepherd's rule).",
    )
    neutral: Literal["positive", "negative", "soft", "drop"] = Field(
        "positive",
        description="What a neutral PRM800K rating becomes; the paper takes positive, soft is 0.5.",
    )
    path: str | None = Field(
        None,
        description="prm800k: file or folder of labels; shepherd: file of labels. In E2H_DATA_DIR/steps where unset, "
        "math-shepherd.jsonl or .jsonl.gz for shepherd.",
    )
    completions: int = Field(
        8, ge=1, description="monte_carlo: completions drawn behind each step (Math-Shepherd: 8)."
    )
    soft: bool = Field(
        False,
        description="monte_carlo: label a step by its share of right completions, not by whether there is one.",
    )
    limit: int | None = Field(
        None, ge=1, description="Keep at most this many labelled solutions (drawn by seed)."
    )
    balance: bool = Field(
        True,
        description="checker, monte_carlo: balance right and wrong solutions of each problem, as far as there are both.",
    )


class Reward(Section):
    """Which evaluator reranks and rewards."""

    kind: Literal["prm", "orm", "oprm", "pairwise"] = Field(
        "prm",
        description="Trained on step labels, on final answers, on both (paper section 3.3), or on pairs of solutions.",
    )


class RewardTraining(Section):
    """Training of an evaluator: a token-classification head with one label (paper section 3.3)."""

    init: Literal["base", "sft"] = Field(
        "base", description="Starting weights; the paper starts from the base model."
    )
    epochs: int = Field(2, ge=1, description="Passes over the labelled solutions.")
    batch_size: int = Field(128, ge=1, description="Solutions per optimizer update.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Solutions per forward pass; the whole batch where unset."
    )
    learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate, cosine to 1% of itself.")
    warmup: float = Field(0.2, ge=0, le=1, description="Share of updates spent warming up.")
    max_tokens: int = Field(768, ge=8, description="Longer solutions are dropped, counted and shown.")
    heading: str = Field(
        "# Question",
        description="First line of the evaluator's prompt, kept in its config. A base model that has seen marked "
        "work under a heading of its own checks best under that heading.",
    )
    frozen_layers: int = Field(
        0, ge=0, description="Lower layers (and the embedding) that stay as pretrained."
    )
    tokens: Literal["every", "last"] = Field(
        "every", description="orm, oprm: tokens of a completion that carry its outcome label (paper: every)."
    )
    outcome_share: float = Field(
        0.5, gt=0, lt=1, description="oprm: share of outcome examples among all examples."
    )
    lora_rank: int = Field(
        0, ge=0, description="Rank of LoRA adapters, merged when saved; 0 trains all weights."
    )
    packing: bool = Field(
        False,
        description="Several solutions in a row, kept apart by position and mask; padding is next to nothing.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, about a third more time."
    )
    mixed_precision: bool = Field(
        False,
        description="Weights and optimizer in float32, products in bfloat16, whatever the model is stored in (it is saved "
        "as it was). Where unset, a GPU does so with float32 models; bfloat16 ones stay bfloat16 throughout: "
        "half the memory, but small updates are lost in rounding.",
    )


class Scoring(Section):
    """Scoring of finished solutions: every step of a solution from one forward pass."""

    batch_tokens: int = Field(65536, ge=64, description="Upper bound on rows x length of one batch.")


class EarlyStop(Section):
    """Samples of the pool that the evaluator gives up on the way: tokens saved for what an evaluator would refuse."""

    enabled: bool = Field(
        False,
        description="Give samples up while the pool is drawn. Where unset, the pool is drawn whole and only what this "
        "would have saved and cost is reported.",
    )
    every: int = Field(
        32, ge=1, description="Tokens between two looks of the evaluator, counted from a sample's first."
    )
    lose: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Share of right easy validation solutions that may be lost: sets the step probability below which a "
        "sample is given up.",
    )


class Rerank(Section):
    """Reranking of the sample pool (paper section 3.4, appendix L)."""

    aggregations: tuple[Literal["product", "min", "mean", "last"], ...] = Field(
        ("product", "min", "mean", "last"),
        min_length=1,
        description="How step scores become a solution score.",
    )
    draws: int = Field(
        64, ge=1, description="Seeded subsamples per N for the vote curves; best-of-N and pass@N are exact."
    )


class Guards(Section):
    """What stops a run and keeps its best policy so far (rl/guards.py). The first updates are the SFT policy's."""

    window: int = Field(
        5, ge=1, description="Updates whose mean is compared: the last of a metric with its first."
    )
    unfinished: float = Field(
        0.3, ge=0, description="Rise of the share of rollouts without an answer; 1 turns the guard off."
    )
    one_step: float = Field(
        0.3, ge=0, description="Rise of the share of rollouts of one step or none; 1 turns the guard off."
    )
    repeated_steps: float = Field(
        0.3, ge=0, description="Rise of the share of rollouts that repeat a step; 1 turns the guard off."
    )
    more_steps: float = Field(1.4, ge=1, description="Most steps of a level, as a multiple of its first.")
    fewer_steps: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Fewest steps of a level, as a multiple of its first; 0 turns the guard off.",
    )
    hack_window: int = Field(
        20,
        ge=1,
        description="Updates over which the evaluator's mean and easy validation are compared with the best checkpoint.",
    )
    hack_fall: float = Field(
        0.1,
        ge=0,
        description="Fall of easy validation accuracy below its best, in all of the window, or of the accuracy of easy "
        "rollouts behind the evaluator's mean of them; 1 turns both guards off.",
    )
    hack_rise: float = Field(
        0.02, ge=0, description="Rise of the evaluator's mean that makes a fall a reward hack."
    )


class Curriculum(Section):
    """Which questions an update rolls out on (rl/curricula.py)."""

    kind: Literal["uniform", "easy_to_hard", "learning_progress"] = Field(
        "uniform",
        description="All questions equally often, levels one after the other, or levels by learning progress "
        "(Kanitscheider et al. 2021).",
    )
    entered_by: float = Field(
        0.5, ge=0, le=1, description="easy_to_hard: share of the updates after which all levels are in."
    )
    rate: float = Field(
        0.1,
        gt=0,
        le=1,
        description="learning_progress: weight of an update in the fast and the slow average.",
    )
    low_success: float = Field(
        0.1, gt=0, lt=1, description="learning_progress: success that is stretched to 1/2; lower looks lower."
    )
    uniform: float = Field(
        0.25,
        ge=0,
        le=1,
        description="learning_progress: share of questions drawn from all levels all the same.",
    )
    chance: float = Field(
        0.0, ge=0, lt=1, description="learning_progress: share of answers that guessing gets right."
    )


class Rounds(Section):
    """Training in rounds: draw solutions of all questions, choose, train on what was chosen, and again."""

    rounds: int = Field(2, ge=1, description="Rounds at most; the best on easy validation is kept.")
    samples: int = Field(32, ge=2, le=64, description="Completions per question and round.")
    temperature: float = Field(1.0, gt=0, description="Of these completions.")
    top_k: int = Field(40, ge=0, description="Keep the k likeliest tokens; 0 keeps all.")
    per_question: int = Field(10, ge=1, description="What is kept of a question, at most.")
    epochs: int = Field(3, ge=1, description="Passes over what was chosen.")
    batch_size: int = Field(128, ge=1, description="Solutions, or pairs, per optimizer update.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Of them per forward pass; the whole batch where unset."
    )
    learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate, cosine to 1% of itself.")
    warmup: float = Field(0.2, ge=0, le=1, description="Share of updates spent warming up.")


class RestEm(Rounds):
    """ReST-EM (Singh et al. 2023; the paper's appendix C.3): the base model fine-tuned on solutions that are right."""


class Preference(Rounds):
    """Iterative preference training on pairs of solutions (paper section 4.2: DPO)."""

    rounds: int = Field(5, ge=1, description="Rounds at most; the best on easy validation is kept.")
    samples: int = Field(8, ge=2, le=64, description="Completions per question and round.")
    top_k: int = Field(20, ge=0, description="Keep the k likeliest tokens; 0 keeps all.")
    per_question: int = Field(3, ge=1, description="Pairs of a question, at most.")
    epochs: int = Field(1, ge=1, description="Passes over the pairs.")
    batch_size: int = Field(64, ge=1, description="Pairs per optimizer update.")
    learning_rate: float = Field(2e-6, gt=0, description="Peak learning rate, cosine to 1% of itself.")
    loss: Literal["dpo", "simpo", "orpo", "sppo"] = Field("dpo", description="The loss (rl/preference.py).")
    beta: float = Field(
        0.1,
        gt=0,
        description="dpo, sppo: how strongly the round's first policy holds; simpo: scale of the mean log-probabilities.",
    )
    gamma: float = Field(
        0.5, ge=0, description="simpo: how far chosen is to lie above rejected, in its scale."
    )
    odds_weight: float = Field(0.1, ge=0, description="orpo: weight of the odds ratio.")
    margin: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Hard questions: by how much the evaluator must score chosen above rejected.",
    )


class Rl(Section):
    """Reinforcement learning on step rewards of the easy evaluator (paper section 4.2, appendix C.3)."""

    algorithm: Literal["ppo", "grpo", "rest", "dpo"] = Field(
        "ppo",
        description="The algorithm that makes rl_policy: PPO, step-level GRPO, ReST-EM, or iterative preference training.",
    )
    questions: Literal["all", "easy", "hard"] = Field("all", description="Questions to roll out on.")
    updates: int = Field(100, ge=1, description="Rollout batches.")
    rollouts: int = Field(512, ge=2, description="Completions per rollout batch.")
    samples_per_question: int = Field(4, ge=1, description="Completions per drawn question.")
    minibatch: int = Field(128, ge=1, description="Completions per optimizer update.")
    epochs: int = Field(1, ge=1, description="Passes over each rollout batch.")
    pass_tokens: int | None = Field(
        None,
        ge=1,
        description="ppo, grpo: positions of a forward pass, padding included, one completion at least: what bounds the "
        "memory of an optimizer update. Unset: 1,536 on a CPU, 16,384 on an accelerator.",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="ppo, grpo: recompute activations in the backward pass: less memory, about a third more time.",
    )
    learning_rate: float = Field(
        2e-5, gt=0, description="Peak learning rate of the policy, cosine to 1% of itself."
    )
    value_learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate of the critic.")
    warmup_updates: int = Field(5, ge=0, description="Rollout batches spent warming up.")
    value_warmup_updates: int = Field(
        0, ge=0, description="First rollout batches that train the critic alone."
    )
    temperature: float = Field(
        0.7, gt=0, description="Rollout temperature; log-probabilities are taken at the same one."
    )
    max_new_tokens: int = Field(768, ge=1, description="A rollout that reaches this is unfinished.")
    clip: float = Field(0.2, gt=0, description="Clip range of the probability ratio.")
    value_clip: float = Field(0.2, gt=0, description="Clip range of the value prediction.")
    baseline: Literal["group", "leave_one_out"] = Field(
        "group",
        description="grpo: what step rewards are compared with: all steps of the question's samples, or the mean reward "
        "per token of its other samples, which does not pay for more or fewer steps (PURE).",
    )
    gamma: float = Field(1.0, gt=0, le=1, description="Discount per token.")
    lam: float = Field(1.0, ge=0, le=1, description="GAE lambda.")
    kl: float = Field(
        0.01, ge=0, description="Coefficient of the per-token KL to the SFT policy, taken off the reward."
    )
    kl_target: float | None = Field(
        None,
        gt=0,
        description="ppo, grpo: mean KL per token that the coefficient is moved to, from `kl` on (Ziegler et al. 2019); it "
        "stays `kl` where unset.",
    )
    kl_horizon: int = Field(
        10_000,
        ge=1,
        description="Rollouts in which the coefficient moves by about a fifth at most; `rollouts` or more.",
    )
    max_kl: float = Field(
        0.5,
        gt=0,
        description="Mean KL per token to the SFT policy at which the run stops, keeping the last good policy.",
    )
    process_scale: float = Field(1.0, ge=0, description="Weight of the step rewards.")
    shaping: Literal[
        "running_minimum",
        "running_product",
        "soft_minimum",
        "strict_minimum",
        "delta",
        "clip",
        "first_error",
        "sum",
    ] = Field(
        "running_minimum",
        description="How step scores become step rewards: the paper's running minimum, or another of rl/shaping.py.",
    )
    upper_bound: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Start of the running minimum and product, threshold of clip: scores above it earn no penalty.",
    )
    soft_minimum_temperature: float = Field(
        0.1, gt=0, description="Of the soft minimum: the lower, the more the worst step counts (PURE: 0.1)."
    )
    error_threshold: float = Field(
        0.5, gt=0, le=1, description="Of first_error: a step that scores below it is wrong."
    )
    prefix_reward: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Of first_error: reward of the right steps before the first wrong one (VPPO: 0.5).",
    )
    step_bonus: float = Field(
        0.25,
        ge=0,
        description="Constant spread over the steps of a solution, whatever the shaping (paper's code: 0.25).",
    )
    outcome_reward: float = Field(
        1.0, ge=0, description="Reward of a right final answer; easy questions only."
    )
    hard_constant: float = Field(
        0.25, ge=0, description="Terminal reward of any finished answer to a hard question."
    )
    unfinished_penalty: float = Field(1.0, ge=0, description="Taken off where no answer is given.")
    checkpoint_every: int = Field(
        10,
        ge=1,
        description="Rollout batches between checkpoints; each is measured on easy validation, and the best is kept.",
    )
    rest: RestEm = Field(default_factory=RestEm, description="rest: rounds of ReST-EM.")
    preference: Preference = Field(default_factory=Preference, description="dpo: rounds of pairs.")
    curriculum: Curriculum = Field(
        default_factory=Curriculum, description="Which questions an update rolls out on."
    )
    guards: Guards = Field(default_factory=Guards, description="What stops the run.")

    @model_validator(mode="after")
    def _controller(self) -> Rl:
        if self.kl_target is not None and (self.kl == 0 or self.kl_horizon < self.rollouts):
            raise ValueError(
                "kl_target needs a kl above 0 to start from, and a kl_horizon of rollouts or more"
            )
        return self


class Evaluation(Section):
    """What is measured on the benchmark, and how sure we are."""

    easy_levels: tuple[int, ...] = Field(
        (1, 2, 3),
        description="Levels reported as easy, the rest as hard, whatever was supervised: ceilings are compared on these.",
    )
    samples: int = Field(
        16, ge=1, description="Completions per question for the voted accuracy of each policy."
    )
    bootstrap: int = Field(
        2000, ge=100, description="Bootstrap resamples over problems behind every interval."
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="Coverage of the intervals.")
    grader: Literal["math", "exact", "math-verify", "prm800k", "e2h-string"] = Field(
        "math",
        description="What decides that two answers are equal: our own, plain text, or what others report with.",
    )
    ceiling: str | None = Field(
        None, description="Key of the full-supervision recipe that PGR is measured against."
    )


class Recipe(Section):
    """All knobs of one experiment. `seed` moves every random draw that is not the world's."""

    name: str = Field(description="File name of the recipe, without .yaml.")
    description: str = Field("", description="One sentence for people.")
    strict: bool = Field(
        True,
        description="False marks runs that may see hard answers: ceilings, which feed only PGR, and controls.",
    )
    seed: int = Field(0, ge=0, description="Seed of training and sampling.")
    problems: Problems = Field(default_factory=Problems)
    base: Base = Field(default_factory=Base)
    solutions: Solutions = Field(default_factory=Solutions)
    sft: Sft = Field(default_factory=Sft)
    easy_samples: EasySamples = Field(default_factory=EasySamples)
    labels: Labels = Field(default_factory=Labels)
    reward: Reward = Field(default_factory=Reward)
    prm: RewardTraining = Field(default_factory=RewardTraining)
    orm: RewardTraining = Field(default_factory=RewardTraining)
    oprm: RewardTraining = Field(default_factory=RewardTraining)
    pairwise: RewardTraining = Field(default_factory=RewardTraining)
    sampling: Sampling = Field(default_factory=Sampling)
    scoring: Scoring = Field(default_factory=Scoring)
    early_stop: EarlyStop = Field(default_factory=EarlyStop)
    rerank: Rerank = Field(default_factory=Rerank)
    rl: Rl = Field(default_factory=Rl)
    evaluation: Evaluation = Field(default_factory=Evaluation)

    @model_validator(mode="after")
    def _firewall(self) -> Recipe:
        if self.strict and not set(self.problems.easy_levels) <= {1, 2, 3}:
            raise ValueError("levels 4-5 in problems.easy_levels need strict: false (a ceiling recipe)")
        if self.strict and self.problems.hard_answers:
            raise ValueError("problems.hard_answers needs strict: false (a control)")
        return self

    @classmethod
    def from_key(cls, key: str, folders: Iterable[Path] = ()) -> Recipe:
        """Parse `name/field=value/...` into a recipe.

        Recipe files are looked up in `folders` first, then among the shipped ones.

        Raises:
            RecipeError: unknown recipe or field, bad value, a key that is not well formed, or one that decides whose
                Python runs here.
        """
        name, overrides = _split_key(key)
        data = _load(name, [*folders, RECIPE_FOLDER])
        for field, text in overrides.items():
            _override(data, field, _parse_value(text), key)
        try:
            recipe = cls.model_validate({**data, "name": name})
        except ValidationError as error:
            raise RecipeError(f"recipe key '{key}': {_explain(error)}") from None
        _refuse_remote_code(recipe, overrides)
        return recipe

    def canonical_json(self) -> str:
        """The recipe as one sorted JSON text; equal recipes give equal texts."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def slice(self, sections: Iterable[str]) -> RecipeSlice:
        """The view a stage gets: only the named top-level fields can be read."""
        return RecipeSlice(self, tuple(sections))


class RecipeSlice:
    """The part of a recipe one stage may read. Reading anything else is an error, not a surprise."""

    def __init__(self, recipe: Recipe, sections: tuple[str, ...]) -> None:
        unknown = [s for s in sections if s not in Recipe.model_fields]
        if unknown:
            raise RecipeError(f"no such recipe section: {', '.join(unknown)}")
        self._recipe = recipe
        self.sections = sections

    def __getattr__(self, name: str) -> Any:
        if name in Recipe.model_fields:
            if name not in self.sections:
                raise RecipeError(
                    f"this stage reads recipe.{name}, which its slice {list(self.sections)} does not name; add it there"
                )
            return getattr(self._recipe, name)
        raise AttributeError(name)

    def as_dict(self) -> dict[str, Any]:
        """The slice as plain JSON data, for keys and manifests."""
        return self._recipe.model_dump(mode="json", include=set(self.sections))


def canonical_key(key: str) -> str:
    """The one spelling of a key: overrides sorted by field, values as YAML would print them.

    Raises:
        RecipeError: the key is not well formed.
    """
    name, overrides = _split_key(key)
    return "/".join([name, *(f"{field}={value}" for field, value in sorted(overrides.items()))])


def recipe_names(folders: Iterable[Path] = ()) -> list[str]:
    """Names of all recipes that can be found."""
    return sorted({path.stem for folder in [*folders, RECIPE_FOLDER] for path in Path(folder).glob("*.yaml")})


def _split_key(key: str) -> tuple[str, dict[str, str]]:
    if len(key) > _MAX_KEY_LENGTH:
        raise RecipeError(f"recipe key is longer than {_MAX_KEY_LENGTH} characters")
    name, *parts = key.split("/")
    if not _NAME.fullmatch(name):
        raise RecipeError(f"{name!r} is not a recipe name (lower-case letters, digits, - and _)")
    overrides: dict[str, str] = {}
    for part in parts:
        match = _OVERRIDE.fullmatch(part)
        if not match:
            raise RecipeError(f"{part!r} in key {key!r} is not of the form section.field=value")
        if match[1] in overrides:
            raise RecipeError(f"field {match[1]} is given twice in key '{key}'")
        overrides[match[1]] = match[2]
    return name, overrides


def _refuse_remote_code(recipe: Recipe, overrides: Mapping[str, str]) -> None:
    """A file says whose Python runs here, and of which model; a key, which anyone who reaches Dagster's page may type,
    says neither."""
    named = _WHOSE_CODE if recipe.base.trust_remote_code else ()
    for field in (_REMOTE_CODE, *named):
        if field in overrides:
            raise RecipeError(
                f"{field} cannot be set in a key, because it decides whose Python runs here: write a recipe file that "
                f"says `extends: {recipe.name}` and sets it"
            )


def _load(name: str, folders: list[Path], above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The data of a recipe file, laid over the recipe it `extends` where it names one."""
    path = next((p for folder in folders if (p := Path(folder) / f"{name}.yaml").is_file()), None)
    if path is None:
        raise RecipeError(f"no recipe '{name}'; there are: {', '.join(recipe_names(folders))}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML ({error})") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of sections, not a {type(data).__name__}")
    parent = data.pop("extends", None)
    if parent is None:
        return data
    if parent in (*above, name) or not isinstance(parent, str) or not _NAME.fullmatch(parent):
        raise RecipeError(f"{path}: extends: {parent} is not another recipe's name")
    return _laid_over(_load(parent, folders, (*above, name)), data)


def _laid_over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Values of `above` win; sections present in both are merged field by field."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _laid_over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _parse_value(text: str) -> Any:
    if "," in text:
        return [_parse_value(item) for item in text.split(",") if item]
    try:  # YAML reads 2e-5 as a string
        return float(text) if re.fullmatch(r"[0-9.]+e[+-]?[0-9]+", text) else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return text


def _override(data: dict[str, Any], field: str, value: Any, key: str) -> None:
    *parents, leaf = field.split(".")
    node = data
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, Mapping):
            raise RecipeError(f"{field} in key '{key}': {parent} is not a section")
        node = child  # type: ignore[assignment]
    node[leaf] = value


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    mend = " (no such field)" if first["type"] == "extra_forbidden" else ""
    return f"{where}: {first['msg']}{mend}" if where else str(first["msg"])
