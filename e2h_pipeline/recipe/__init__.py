"""One experiment is one recipe: typed, documented, and named by a key that a person can read."""

from e2h_pipeline.recipe.keys import DEFAULT_KEY, RECIPE_FOLDER, canonical_key, recipe_names
from e2h_pipeline.recipe.recipe import Recipe, RecipeSlice
from e2h_pipeline.recipe.section import RecipeError, Section
from e2h_pipeline.recipe.sections.evaluation import Evaluation, Rerank
from e2h_pipeline.recipe.sections.policy import Base, EasySamples, Sampling, Sft
from e2h_pipeline.recipe.sections.problems import LadderWorld, Problems, Solutions
from e2h_pipeline.recipe.sections.reward import EarlyStop, Labels, Reward, RewardTraining, Scoring
from e2h_pipeline.recipe.sections.rl import Curriculum, Guards, Preference, RestEm, Rl, Rounds

__all__ = [
    "DEFAULT_KEY",
    "RECIPE_FOLDER",
    "Base",
    "Curriculum",
    "EarlyStop",
    "EasySamples",
    "Evaluation",
    "Guards",
    "Labels",
    "LadderWorld",
    "Preference",
    "Problems",
    "Recipe",
    "RecipeError",
    "RecipeSlice",
    "Rerank",
    "RestEm",
    "Reward",
    "RewardTraining",
    "Rl",
    "Rounds",
    "Sampling",
    "Scoring",
    "Section",
    "Sft",
    "Solutions",
    "canonical_key",
    "recipe_names",
]
