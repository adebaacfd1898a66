"""The evaluator: its kind, its training, and how it scores."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from e2h_pipeline.recipe.section import Family, Section, known_word
from e2h_pipeline.recipe.sections.fitting import FineTuning

INITIAL = {"base": "base_model", "sft": "sft_policy", "random": "base_model"}
"""The asset that `training.init` starts from."""


class RewardTraining(FineTuning):
    """Training of an evaluator: a token-classification head with one label (paper section 3.3)."""

    init: Literal["base", "sft", "random"] = Field(
        "base",
        description="Starting weights; the paper starts from the base model. random: its architecture with random weights, "
        "the control without pretraining.",
    )
    layers: int | None = Field(
        None,
        ge=1,
        description="Keep only this many of the lowest decoder layers: the head reads their output. In small models the "
        "middle layers tell a wrong step better than the last (docs/real.md).",
    )
    head: Literal["zeros", "regression"] = Field(
        "zeros",
        description="How the head begins. regression: fitted to the labels on the model as it is, by logistic regression "
        "(linear probing, then fine-tuning: Kumar et al. 2022).",
    )
    ridge: float = Field(
        300.0,
        gt=0,
        description="head=regression: penalty on its squared weights, over features of unit variance.",
    )
    epochs: int = Field(
        2,
        ge=0,
        description="Passes over the labelled solutions; 0 leaves the model as it is, with the head of a regression.",
    )
    folds: int = Field(
        0,
        ge=0,
        description="Folds of cross-validation by problem, for few labelled problems: each solution is judged once by an "
        "evaluator that has not seen its problem, and the threshold comes from these scores; then one is trained on "
        "all. 0: judge on the problems held out by problems.validation.",
    )
    heading: str = Field(
        "",
        description="First line of the evaluator's prompt, kept in its config; the domain's own where unset. A base model "
        "that has seen marked work under a heading of its own checks best under that heading.",
    )
    cache_frozen: bool = Field(
        False,
        description="Compute the frozen layers once for each solution, and keep their output in the work folder while the "
        "stage runs (4 bytes x width for each token).",
    )

    @model_validator(mode="after")
    def _usable(self) -> RewardTraining:
        if self.folds == 1:
            raise ValueError("folds: one fold leaves nothing to train on; set 0, or 2 and more")
        if not self.epochs and self.head != "regression":
            raise ValueError("epochs: 0 trains nothing; set head=regression, or 1 and more")
        if self.init == "random" and (self.frozen_layers or self.head == "regression"):
            raise ValueError("init: random weights are all trained; set frozen_layers=0 and head=zeros")
        if self.cache_frozen and not self.frozen_layers:
            raise ValueError("cache_frozen: no layers are frozen; set frozen_layers too")
        if self.cache_frozen and self.gradient_checkpointing:
            raise ValueError(
                "cache_frozen and gradient_checkpointing cannot be used together; set one to false"
            )
        return self


class AnyEvaluator(Section):
    """Which evaluator reranks and rewards, and how it is trained."""

    easy_only: ClassVar[bool] = True
    """It has seen easy supervision alone, as far as the recipe says."""

    kind: str = Field("prm", description="The kind of evaluator.")

    @property
    def fine_tuning(self) -> FineTuning | None:
        """Its training; None where it is trained already."""
        return None

    @property
    def initial(self) -> str | None:
        """The asset that its training starts from."""
        return None

    @property
    def layouts(self) -> tuple[str, ...]:
        """The layouts (`registry.LAYOUTS`) that it is read by."""
        return ()


class Reward(AnyEvaluator):
    """An evaluator that is trained here: one model with a score per token."""

    training: RewardTraining = Field(default_factory=RewardTraining, description="Its training.")

    @property
    def fine_tuning(self) -> FineTuning:
        """See `AnyEvaluator.fine_tuning`."""
        return self.training

    @property
    def initial(self) -> str:
        """See `AnyEvaluator.initial`."""
        return INITIAL[self.training.init]


class PrmReward(Reward):
    """Process reward model: trained on step labels (paper section 3.3)."""

    kind: Literal["prm"] = Field("prm", description="The kind of evaluator.")


class OrmReward(Reward):
    """Outcome reward model: trained on whether final answers are right (paper section 3.3)."""

    kind: Literal["orm"] = Field("orm", description="The kind of evaluator.")
    tokens: Literal["every", "last"] = Field(
        "every", description="Tokens of a completion that carry its outcome label (paper: every)."
    )


class OprmReward(Reward):
    """Outcome and process reward model: one model, trained on both kinds of labels (paper section
    3.3)."""

    kind: Literal["oprm"] = Field("oprm", description="The kind of evaluator.")
    tokens: Literal["every", "last"] = Field(
        "every", description="Tokens of a completion that carry its outcome label (paper: every)."
    )
    outcome_share: float = Field(0.5, gt=0, lt=1, description="Share of outcome examples among all examples.")


class PairwiseReward(Reward):
    """Bradley-Terry reward model: trained on pairs of a right and a wrong solution."""

    kind: Literal["pairwise"] = Field("pairwise", description="The kind of evaluator.")


class GoalConditionedReward(Reward):
    """Pairwise reward model with goal-conditioned representations (Nath et al. 2024)."""

    kind: Literal["goal_conditioned"] = Field("goal_conditioned", description="The kind of evaluator.")
    contrastive_weight: float = Field(
        0.5, ge=0, description="Weight lambda of the contrastive loss (the paper tried 0.1, 0.5 and 0.9)."
    )
    pairs_per_solution: int = Field(
        16, ge=1, description="Pairs of source and goal drawn per solution and update (authors' code: 16)."
    )


class WeakToStrongReward(Reward):
    """Process reward model that keeps an opinion of its own where labels are weak (Burns et al.
    2023)."""

    kind: Literal["weak_to_strong"] = Field("weak_to_strong", description="The kind of evaluator.")
    confidence: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Largest weight of the evaluator's own hardened opinion in the target (paper: 0.5).",
    )
    confidence_warmup: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of training over which that weight grows from 0 (paper: 0.2; its released code: 0.1).",
    )
    schedule: Literal["linear", "jump"] = Field(
        "linear",
        description="How that weight grows. linear: to its largest value at the end of the warm-up (paper). jump: by the "
        "share of training that is done, times its largest value, which it jumps to at the end (released code).",
    )
    threshold: Literal["mean_label", "half"] = Field(
        "mean_label",
        description="An opinion is positive above a threshold of the batch. mean_label: as many are as the mean weak label "
        "says (released code; most steps are right). half: half of them (paper, for balanced classes).",
    )


class GenerativeTraining(FineTuning):
    """Training of an evaluator that writes verdicts: next-token prediction of the verdicts."""

    init: Literal["base", "sft"] = Field("base", description="Starting weights.")
    epochs: int = Field(
        2, ge=0, description="Passes over the labelled solutions; 0: the prompt alone makes it an evaluator."
    )
    heading: str = Field(
        "", description="First line of the domain's own prompt, where `prompt` begins with that."
    )


class GenerativeReward(AnyEvaluator):
    """A language model that writes a verdict behind each step, and may write a critique before it. Its
    `training` has no `layers`, `head`, `ridge`, `folds` and `cache_frozen`."""

    kind: Literal["generative"] = Field("generative", description="The kind of evaluator.")
    training: GenerativeTraining = Field(default_factory=GenerativeTraining, description="Its training.")
    prompt: str = Field(
        "marked",
        description="How a solution is put to it: a prompt shipped with the package (marked, critique), or a YAML file "
        "(docs/oversight.md).",
    )
    critiques: int = Field(
        0,
        ge=0,
        description="Critiques of a step, each written before a verdict; the score is the mean probability of the right "
        "verdict. 0: the verdict alone, all steps in one pass. Critiques are not trained.",
    )
    critique_tokens: int = Field(128, ge=1, description="Longest critique.")
    temperature: float = Field(0.7, ge=0, description="Of critiques; 0 is greedy.")

    @model_validator(mode="after")
    def _different_critiques(self) -> GenerativeReward:
        if self.critiques > 1 and not self.temperature:
            raise ValueError(
                "critiques: at temperature 0 all are the same; set critiques=1, or a temperature"
            )
        return self

    @property
    def fine_tuning(self) -> FineTuning:
        """See `AnyEvaluator.fine_tuning`."""
        return self.training

    @property
    def initial(self) -> str:
        """See `AnyEvaluator.initial`."""
        return INITIAL[self.training.init]


LAYOUTS = ("qwen-prm", "math-shepherd", "rlhflow", "skywork", "trl", "implicit", "auto")
"""The layouts of this project; installed packages add more (entry points e2h.layouts)."""


class NamedEvaluator(Section):
    """An evaluator that others have trained."""

    model: str = Field(min_length=1, description="A local folder, or a Hub name.")
    revision: str | None = Field(
        None, description="Commit of the Hub model. Set it: a newer one is not noticed and changes no key."
    )
    layout: str = Field(
        "auto",
        description="How its files are read and solutions are written for it (docs/models.md). auto: as config.json tells; "
        "a folder of no layout is read as an evaluator of this project.",
    )
    reference: str | None = Field(
        None, min_length=1, description="implicit: folder or Hub name of the model that it was trained from."
    )
    beta: float | None = Field(None, gt=0, description="implicit: coefficient of the log ratio.")
    system: str | None = Field(None, description="qwen-prm: the system prompt.")
    tag: str | None = Field(None, description="math-shepherd: the text that ends a step.")
    separator: str | None = Field(None, description="trl: the text that ends a step.")

    @field_validator("layout")
    @classmethod
    def _known_layout(cls, word: str) -> str:
        return known_word(word, LAYOUTS, "e2h.layouts")

    def options(self) -> dict[str, Any]:
        """Options of its layout that are set."""
        named = {name: getattr(self, name) for name in ("reference", "beta", "system", "tag", "separator")}
        return {name: value for name, value in named.items() if value is not None}


def _evaluators(value: Any) -> Any:
    """One evaluator may be written without a list around it, and by its name alone."""
    listed = value if isinstance(value, list | tuple) else [value]
    return [{"model": str(one)} if isinstance(one, str) else one for one in listed]


class OutsideReward(AnyEvaluator):
    """An evaluator that others have trained, on data that nobody here knows: needs `strict: false`, and
    has no `training`."""

    easy_only: ClassVar[bool] = False

    kind: Literal["outside"] = Field("outside", description="The kind of evaluator.")
    evaluator: Annotated[tuple[NamedEvaluator, ...], BeforeValidator(_evaluators)] = Field(
        (), description="Its folder or Hub name, or these with fields; several make an ensemble."
    )
    rule: Literal["mean", "min", "disagreement"] = Field(
        "mean",
        description="Score of a step by an ensemble: mean of the probabilities; the lowest; the mean less their standard "
        "deviation.",
    )

    @property
    def layouts(self) -> tuple[str, ...]:
        """See `AnyEvaluator.layouts`."""
        return tuple(one.layout for one in self.evaluator)


REWARD = Family(
    "reward",
    "kind",
    "prm",
    "e2h.evaluators",
    AnyEvaluator,
    {
        "prm": PrmReward,
        "orm": OrmReward,
        "oprm": OprmReward,
        "pairwise": PairwiseReward,
        "goal_conditioned": GoalConditionedReward,
        "weak_to_strong": WeakToStrongReward,
        "generative": GenerativeReward,
        "outside": OutsideReward,
    },
    plain=Reward,
)


class Scoring(Section):
    """Scoring of finished solutions: every step of a solution from one forward pass."""

    batch_tokens: int = Field(65536, ge=64, description="Upper bound on rows x length of one batch.")


class EarlyStop(Section):
    """Giving up samples of the pool while they are drawn: saves tokens of solutions that the
    evaluator would refuse."""

    enabled: bool = Field(
        False,
        description="Give samples up while the pool is drawn. If false, the pool is drawn whole, and the savings and "
        "costs of early stopping are only reported.",
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
