"""Reinforcement learning, and training in rounds: fields of each algorithm."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from e2h_pipeline.recipe.section import Family, Section
from e2h_pipeline.recipe.sections.fitting import Fitting

_ALGORITHM = "The algorithm that makes rl_policy."


class Guards(Section):
    """Limits that stop a run and keep its best policy so far (rl/guards.py). The first updates
    stand for the SFT policy."""

    window: int = Field(
        5,
        ge=1,
        description="Window: a metric's mean over its last updates is compared with that over its first.",
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
    blind: float = Field(
        0.1,
        ge=0,
        description="Rise of the share of answers that look at nothing they are asked, such as programs that write "
        "constants; 1 turns the guard off.",
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
    sampler_gap: float = Field(
        0.1,
        ge=0,
        description="Mean gap per token between the log-probabilities of the trainer and of the engine that drew, in one "
        "update.",
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
        description="learning_progress: share of questions drawn from all levels alike.",
    )
    chance: float = Field(
        0.0, ge=0, lt=1, description="learning_progress: share of answers that guessing gets right."
    )


class Rl(Section):
    """Fields of every algorithm that makes rl_policy (paper section 4.2, appendix C.3)."""

    algorithm: str = Field("ppo", description=_ALGORITHM)
    questions: Literal["all", "easy", "hard"] = Field("all", description="Questions to roll out on.")
    max_new_tokens: int = Field(768, ge=1, description="A rollout that reaches this is unfinished.")
    max_kl: float = Field(
        0.5,
        gt=0,
        description="Mean KL per token to the SFT policy at which the run stops, keeping the last good policy.",
    )
    guards: Guards = Field(default_factory=Guards, description="Limits that stop the run.")


class OnlineRl(Rl):
    """Algorithms that learn from each batch of rollouts at once."""

    updates: int = Field(100, ge=1, description="Rollout batches.")
    rollouts: int = Field(512, ge=2, description="Completions per rollout batch.")
    samples_per_question: int = Field(4, ge=1, description="Completions per drawn question.")
    minibatch: int = Field(128, ge=1, description="Completions per optimizer update.")
    epochs: int = Field(1, ge=1, description="Passes over each rollout batch.")
    pass_tokens: int | None = Field(
        None,
        ge=1,
        description="Positions of a forward pass, padding included, at least one completion; bounds the memory of an "
        "optimizer update. Unset: 1,536 on a CPU, 16,384 on an accelerator.",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Recompute activations in the backward pass: less memory, about a third more time.",
    )
    lora_rank: int = Field(
        0,
        ge=0,
        description="Rank of LoRA adapters of policy and critic, on weights shared with the SFT policy and the evaluator; "
        "0 trains all weights. Adapters want a higher learning rate.",
    )
    lora_targets: tuple[str, ...] = Field(
        (),
        description="Layers that get adapters, as the model calls them: q_proj,v_proj; every linear layer of the decoder "
        "where unset.",
    )
    learning_rate: float = Field(
        2e-5, gt=0, description="Peak learning rate of the policy, cosine to 1% of itself."
    )
    warmup_updates: int = Field(5, ge=0, description="Rollout batches spent warming up.")
    temperature: float = Field(
        0.7, gt=0, description="Rollout temperature; log-probabilities are taken at the same one."
    )
    clip: float = Field(0.2, gt=0, description="Clip range of the probability ratio.")
    importance_cap: float = Field(
        2.0,
        ge=1,
        description="Where a token was drawn with other log-probabilities than the trainer's (rollout engines, `lag`): "
        "most that it counts for being likelier to the trainer.",
    )
    lag: int = Field(
        0,
        ge=0,
        le=1,
        description="1 draws each batch of rollouts while the batch before is learned, so with the weights from before "
        "that; engines of their own then never wait (docs/rl.md). Batches after a checkpoint are drawn with its weights.",
    )
    kl: float = Field(
        0.01, ge=0, description="Coefficient of the per-token KL to the SFT policy, taken off the reward."
    )
    kl_target: float | None = Field(
        None,
        gt=0,
        description="Mean KL per token that the coefficient is moved to, from `kl` on (Ziegler et al. 2019); it "
        "stays `kl` where unset.",
    )
    kl_horizon: int = Field(
        10_000,
        ge=1,
        description="Rollouts in which the coefficient moves by about a fifth at most; `rollouts` or more.",
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
        0.1, gt=0, description="soft_minimum: the lower, the more the worst step counts (PURE: 0.1)."
    )
    error_threshold: float = Field(
        0.5, gt=0, le=1, description="first_error: a step that scores below it is wrong."
    )
    prefix_reward: float = Field(
        0.5,
        ge=0,
        le=1,
        description="first_error: reward of the right steps before the first wrong one (VPPO: 0.5).",
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
    unfinished_penalty: float = Field(1.0, ge=0, description="Subtracted where no answer is given.")
    checkpoint_every: int = Field(
        10,
        ge=1,
        description="Rollout batches between checkpoints; each is measured on easy validation, and the best is kept.",
    )
    curriculum: Curriculum = Field(
        default_factory=Curriculum, description="Which questions an update rolls out on."
    )

    @model_validator(mode="after")
    def _controller(self) -> OnlineRl:
        if self.kl_target is not None and (self.kl == 0 or self.kl_horizon < self.rollouts):
            raise ValueError(
                "kl_target needs a kl above 0 to start from, and a kl_horizon of rollouts or more"
            )
        if self.lora_targets and not self.lora_rank:
            raise ValueError("lora_targets name layers that get adapters: set lora_rank above 0 too")
        if self.lag and self.checkpoint_every == 1:
            raise ValueError(
                "lag has no effect where every update is a checkpoint: set checkpoint_every to 2 or more"
            )
        return self


class PpoRl(OnlineRl):
    """PPO with a critic, on step rewards less KL (paper section 4.2)."""

    algorithm: Literal["ppo"] = Field("ppo", description=_ALGORITHM)
    value_learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate of the critic.")
    value_warmup_updates: int = Field(
        0, ge=0, description="First rollout batches that train the critic alone."
    )
    value_clip: float = Field(0.2, gt=0, description="Clip range of the value prediction.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount per token.")
    lam: float = Field(1.0, ge=0, le=1, description="GAE lambda.")


class GrpoRl(OnlineRl):
    """Step-level GRPO: samples of a question are each other's baseline (DeepSeekMath, section
    4.1)."""

    algorithm: Literal["grpo"] = Field("grpo", description=_ALGORITHM)
    baseline: Literal["group", "leave_one_out"] = Field(
        "group",
        description="What step rewards are compared with: all steps of the question's samples, or the mean reward "
        "per token of its other samples, which does not pay for more or fewer steps (PURE).",
    )


class RoundsRl(Rl, Fitting):
    """Training in rounds: draw solutions of all questions, choose, train on the chosen ones,
    repeat."""

    rounds: int = Field(2, ge=1, description="Rounds at most; the best on easy validation is kept.")
    samples: int = Field(32, ge=2, le=64, description="Completions per question and round.")
    temperature: float = Field(1.0, gt=0, description="Temperature of these completions.")
    top_k: int = Field(40, ge=0, description="Keep the k likeliest tokens; 0 keeps all.")
    per_question: int = Field(10, ge=1, description="Most solutions kept per question.")
    probe_questions: int = Field(
        2560,
        ge=1,
        description="Questions that each round's policy answers once, for the guards; all where fewer.",
    )


class RestEmRl(RoundsRl):
    """ReST-EM (Singh et al. 2023; the paper's appendix C.3): the base model fine-tuned on solutions
    that are right."""

    algorithm: Literal["rest"] = Field("rest", description=_ALGORITHM)


class PreferenceRl(RoundsRl):
    """Iterative preference training on pairs of solutions (paper section 4.2: DPO)."""

    algorithm: Literal["dpo"] = Field("dpo", description=_ALGORITHM)
    rounds: int = Field(5, ge=1, description="Rounds at most; the best on easy validation is kept.")
    samples: int = Field(8, ge=2, le=64, description="Completions per question and round.")
    top_k: int = Field(20, ge=0, description="Keep the k likeliest tokens; 0 keeps all.")
    per_question: int = Field(3, ge=1, description="Most pairs kept per question.")
    epochs: int = Field(1, ge=1, description="Passes over the pairs.")
    batch_size: int = Field(64, ge=1, description="Pairs per optimizer update.")
    learning_rate: float = Field(2e-6, gt=0, description="Peak learning rate, cosine to 1% of itself.")
    loss: Literal["dpo", "simpo", "orpo", "sppo"] = Field(
        "dpo", description="The loss (rl/rounds/preference_losses.py)."
    )
    beta: float = Field(
        0.1,
        gt=0,
        description="dpo, sppo: pull to the round's first policy; simpo: scale of the mean log-probabilities.",
    )
    gamma: float = Field(
        0.5, ge=0, description="simpo: target margin of chosen above rejected, in its scale."
    )
    odds_weight: float = Field(0.1, ge=0, description="orpo: weight of the odds ratio.")
    margin: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Hard questions: by how much the evaluator must score chosen above rejected.",
    )
    evaluator_agrees: bool = Field(
        True, description="Easy questions: pairs of right and wrong count only where the evaluator agrees."
    )


RL = Family(
    "rl",
    "algorithm",
    "ppo",
    "e2h.algorithms",
    Rl,
    {"ppo": PpoRl, "grpo": GrpoRl, "rest": RestEmRl, "dpo": PreferenceRl},
)
