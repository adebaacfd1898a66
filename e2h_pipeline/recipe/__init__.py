"""One experiment is one recipe: typed, documented, and named by a key that a person can read."""

from e2h_pipeline.recipe.families import FAMILIES
from e2h_pipeline.recipe.keys import DEFAULT_KEY, RECIPE_FOLDER, canonical_key, recipe_names
from e2h_pipeline.recipe.recipe import Recipe, RecipeSlice
from e2h_pipeline.recipe.section import Family, RecipeError, Section
from e2h_pipeline.recipe.sections.evaluation import Evaluation, Rerank
from e2h_pipeline.recipe.sections.fitting import FineTuning, Fitting
from e2h_pipeline.recipe.sections.human_steps import HumanSteps
from e2h_pipeline.recipe.sections.labels import (
    CheckerLabels,
    Labels,
    MonteCarloLabels,
    PeopleLabels,
    Prm800kLabels,
    PrmBenchLabels,
    ShepherdLabels,
)
from e2h_pipeline.recipe.sections.policy import Base, EasySamples, Sampling, Sft
from e2h_pipeline.recipe.sections.problems import (
    SPLIT_FIELDS,
    Gsm8kProblems,
    LadderProblems,
    LadderWorld,
    MathProblems,
    MetaMathSolutions,
    Prm800kSolutions,
    Problems,
    ReferenceSolutions,
    Solutions,
)
from e2h_pipeline.recipe.sections.reward import (
    EarlyStop,
    GoalConditionedReward,
    OprmReward,
    OrmReward,
    PairwiseReward,
    PrmReward,
    Reward,
    RewardTraining,
    Scoring,
    WeakToStrongReward,
)
from e2h_pipeline.recipe.sections.rl import (
    Curriculum,
    GrpoRl,
    Guards,
    OnlineRl,
    PpoRl,
    PreferenceRl,
    RestEmRl,
    Rl,
    RoundsRl,
)
from e2h_pipeline.recipe.sections.samples import FileSamples, PolicySamples, Samples
from e2h_pipeline.recipe.sections.search import IndependentSearch, Search

__all__ = [
    "DEFAULT_KEY",
    "FAMILIES",
    "RECIPE_FOLDER",
    "SPLIT_FIELDS",
    "Base",
    "CheckerLabels",
    "Curriculum",
    "EarlyStop",
    "EasySamples",
    "Evaluation",
    "Family",
    "FileSamples",
    "FineTuning",
    "Fitting",
    "GoalConditionedReward",
    "GrpoRl",
    "Gsm8kProblems",
    "Guards",
    "HumanSteps",
    "IndependentSearch",
    "Labels",
    "LadderProblems",
    "LadderWorld",
    "MathProblems",
    "MetaMathSolutions",
    "MonteCarloLabels",
    "OnlineRl",
    "OprmReward",
    "OrmReward",
    "PairwiseReward",
    "PeopleLabels",
    "PolicySamples",
    "PpoRl",
    "PreferenceRl",
    "Prm800kLabels",
    "Prm800kSolutions",
    "PrmBenchLabels",
    "PrmReward",
    "Problems",
    "Recipe",
    "RecipeError",
    "RecipeSlice",
    "ReferenceSolutions",
    "Rerank",
    "RestEmRl",
    "Reward",
    "RewardTraining",
    "Rl",
    "RoundsRl",
    "Samples",
    "Sampling",
    "Scoring",
    "Search",
    "Section",
    "Sft",
    "ShepherdLabels",
    "Solutions",
    "WeakToStrongReward",
    "canonical_key",
    "recipe_names",
]
