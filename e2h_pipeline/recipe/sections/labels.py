"""Where step labels of easy problems come from: one source, or several with weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from e2h_pipeline.recipe.section import Family, Section
from e2h_pipeline.recipe.sections.reward import RewardTraining

_SOURCE = "Where the labels come from."


class Labels(Section):
    """Step labels on easy problems; they stop at the first error (paper section 3.3, appendix
    L)."""

    source: str = Field("checker", description=_SOURCE)
    weight: float = Field(
        1.0,
        gt=0,
        description="Weight of these labels in the evaluator's loss, beside those of other sources.",
    )
    limit: int | None = Field(
        None, ge=1, description="Keep at most this many labelled solutions (drawn by seed)."
    )


class CheckerLabels(Labels):
    """Labels of the policy's own solutions by the domain's exact checker."""

    source: Literal["checker"] = Field("checker", description=_SOURCE)
    balance: bool = Field(
        True, description="Balance right and wrong solutions of each problem, as far as there are both."
    )


class Prm800kLabels(Labels):
    """Human step labels of PRM800K (Lightman et al. 2023)."""

    source: Literal["prm800k"] = Field("prm800k", description=_SOURCE)
    path: str | None = Field(None, description="File or folder of labels; E2H_DATA_DIR/steps where unset.")
    neutral: Literal["positive", "negative", "soft", "drop"] = Field(
        "positive", description="Label of a neutral rating; the paper takes positive, soft is 0.5."
    )


class PeopleLabels(Labels):
    """Step labels that people gave on the page of `e2h label`."""

    source: Literal["people"] = Field("people", description=_SOURCE)
    path: str | None = Field(
        None,
        description="File that `e2h label` wrote; people.jsonl or .jsonl.gz in E2H_DATA_DIR/steps where unset.",
    )
    neutral: Literal["positive", "negative", "soft", "drop"] = Field(
        "positive", description="Label of a neutral rating; soft is 0.5."
    )


class ShepherdLabels(Labels):
    """Step labels from a file in Math-Shepherd's format."""

    source: Literal["shepherd"] = Field("shepherd", description=_SOURCE)
    path: str | None = Field(
        None,
        description="File of labels; math-shepherd.jsonl or .jsonl.gz in E2H_DATA_DIR/steps where unset.",
    )


class PrmBenchLabels(Labels):
    """Step labels of PRMBench: planted errors, as a control."""

    source: Literal["prmbench"] = Field("prmbench", description=_SOURCE)
    path: str | None = Field(
        None, description="File of labels; prmbench.jsonl or .jsonl.gz in E2H_DATA_DIR/steps where unset."
    )


class MonteCarloLabels(Labels):
    """Labels from completions of each step by the policy (Math-Shepherd's rule)."""

    source: Literal["monte_carlo"] = Field("monte_carlo", description=_SOURCE)
    completions: int = Field(8, ge=1, description="Completions drawn after each step (Math-Shepherd: 8).")
    soft: bool = Field(
        False,
        description="Label a step by its share of right completions, not by whether there is one.",
    )
    balance: bool = Field(
        True, description="Balance right and wrong solutions of each problem, as far as there are both."
    )


def _one_source(value: Any) -> Any:
    """A source may be named by its word alone, where its own fields keep their defaults."""
    return LABELS.parse(value if isinstance(value, Mapping | Labels) else {"source": str(value)})


class TaughtLabels(Labels):
    """Labels by way of an evaluator that the source trains itself, on labels that it buys from
    another source."""

    of: Annotated[SerializeAsAny[Labels], BeforeValidator(_one_source)] = Field(
        default_factory=CheckerLabels,
        description="The source of the ground truth that is bought: a word, or a section like `labels` itself, without "
        "weight, limit and balance. It must be able to label chosen solutions: checker, prm800k, people, shepherd, "
        "prmbench and monte_carlo can.",
    )
    training: RewardTraining = Field(
        default_factory=RewardTraining, description="Training of the source's own evaluator."
    )
    validation_solutions: int = Field(
        400,
        ge=0,
        description="Labels of this many solutions of easy validation problems are bought too (drawn by seed). They train "
        "nothing: thresholds and figures come from them.",
    )

    def composed_of(self) -> tuple[Section, ...]:
        """The source that is bought from."""
        return (self.of,)

    @model_validator(mode="after")
    def _trains_once(self) -> TaughtLabels:
        if self.training.folds:
            raise ValueError("training.folds: the evaluator of a label source is trained once; set it to 0")
        for field in ("weight", "limit", "balance"):  # what is bought is chosen here
            default = type(self.of).model_fields[field].default if hasattr(self.of, field) else None
            if getattr(self.of, field, None) != default:
                raise ValueError(f"of.{field} is not read where labels are bought; leave it out")
        return self


class BoughtLabels(TaughtLabels):
    """Labels bought up to a budget."""

    budget: int = Field(
        2000, ge=1, description="Labels of training solutions that are bought, by the unit of `unit`."
    )
    unit: Literal["steps", "solutions"] = Field(
        "steps",
        description="What the budget counts. With steps, the last solution is labelled as far as the budget goes, so two "
        "recipes of one budget have exactly as many labels.",
    )


class ActiveLabels(BoughtLabels):
    """Labels of the solutions that a selector finds most convincing (Lightman et al. 2023, section 4)."""

    source: Literal["active"] = Field("active", description=_SOURCE)
    selection: Literal["active", "uniform"] = Field(
        "active",
        description="active: what convinces the selector most. uniform: drawn by seed, the control with as many labels.",
    )
    convincing: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Share of convincing solutions with a wrong answer; the others are the most convincing of the rest.",
    )
    rounds: int = Field(
        1, ge=1, description="Times that the selector is trained, each time on all labels bought so far."
    )
    selector_problems: int | None = Field(
        None,
        ge=1,
        description="The first selector learns from one solution of this many problems (drawn by seed), which the budget "
        "pays for; of all where unset, as in the paper.",
    )


class WeakToStrongLabels(TaughtLabels):
    """Labels by a weaker evaluator (Burns et al. 2023): `training` is the weak one's, for which `layers` keeps
    only the lowest."""

    source: Literal["weak_to_strong"] = Field("weak_to_strong", description=_SOURCE)
    form: Literal["easy", "hard"] = Field(
        "easy",
        description="Solutions that the weak evaluator labels. easy: of the other half of the easy problems (the paper's "
        "form). hard: of hard questions, drawn here; no answer of theirs is read (the easy-to-hard form).",
    )
    labeller: Literal["weak", "flips", "simulable", "truth"] = Field(
        "weak",
        description="Who labels. weak: the weak evaluator. truth: `of`, the ceiling on the same rows. simulable and flips: "
        "`of` with errors, by a rule that a model can learn, or the same number at random (the paper's appendix E). "
        "All but weak need form=easy.",
    )
    errors: float = Field(
        0.2, gt=0, lt=0.5, description="labeller=simulable or flips: share of wrong labels, at most."
    )
    base: str | None = Field(
        None,
        description="Another model that the weak evaluator starts from: a local folder. The recipe's base where unset.",
    )
    middle: tuple[int, ...] = Field(
        (),
        description="Bootstrapping: layers of evaluators between the weak one and the student, each taught by the one "
        "before on the same solutions.",
    )
    soft: bool = Field(True, description="Label a step by the weak evaluator's probability, not by 0 or 1.")
    per_problem: int = Field(
        8, ge=1, description="Solutions of each problem, at most (drawn by seed), in both halves."
    )
    temperature: float = Field(
        1.4, ge=0, description="form=hard: of the draws, beside the settings in `sampling`."
    )

    @field_validator("middle", mode="before")
    @classmethod
    def _one_is_a_list(cls, layers: object) -> object:
        """A key says `labels.middle=3`, without a comma that would make it a list."""
        return (layers,) if isinstance(layers, int) else layers

    @field_validator("middle")
    @classmethod
    def _some_layers(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if any(count < 1 for count in layers):
            raise ValueError("an evaluator needs at least one layer")
        return layers

    @model_validator(mode="after")
    def _no_truth_of_hard(self) -> WeakToStrongLabels:
        if self.form == "hard" and self.labeller != "weak":
            raise ValueError(
                f"labeller={self.labeller} would need ground truth of hard questions: set form=easy, or labeller=weak"
            )
        if self.middle and self.labeller != "weak":
            raise ValueError("middle: there is no weak evaluator to go on from; set labeller=weak")
        return self


class NonCausalLabels(BoughtLabels):
    """Labels by an evaluator that reads a solution in both directions, and sees the known answer of its easy
    problem (the idea of Baker et al. 2022, VPT)."""

    source: Literal["non_causal"] = Field("non_causal", description=_SOURCE)
    causal: bool = Field(False, description="Let it read in one direction only: the control.")
    known_answer: bool = Field(
        True, description="Show it the answer of the easy problem. It labels easy solutions only."
    )
    confident: float = Field(
        0.9,
        ge=0.5,
        lt=1,
        description="Steps have no label where the labeller's larger probability is below this.",
    )
    soft: bool = Field(True, description="Label a step by the labeller's probability, not by 0 or 1.")
    per_problem: int = Field(
        8, ge=1, description="Solutions of each problem that it labels, at most (drawn by seed)."
    )

    @model_validator(mode="after")
    def _reads_both_ways(self) -> NonCausalLabels:
        training = self.training
        if self.causal:
            return self
        for field in ("packing", "cache_frozen"):
            if getattr(training, field):
                raise ValueError(
                    f"training.{field} is for attention in one direction: set it to false, or causal=true"
                )
        if training.head != "zeros":
            raise ValueError("training.head=regression reads causal states: set head=zeros, or causal=true")
        return self


LABELS = Family(
    "labels",
    "source",
    "checker",
    "e2h.labels",
    Labels,
    {
        "checker": CheckerLabels,
        "prm800k": Prm800kLabels,
        "shepherd": ShepherdLabels,
        "prmbench": PrmBenchLabels,
        "monte_carlo": MonteCarloLabels,
        "people": PeopleLabels,
        "active": ActiveLabels,
        "weak_to_strong": WeakToStrongLabels,
        "non_causal": NonCausalLabels,
    },
)
