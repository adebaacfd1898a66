"""Whether the stages of a recipe can use its base model: sampling, by the engine at hand, and training.

What a model and a tokenizer must be able to do in any recipe is checked when they are fetched. Here
are the reasons that depend on the recipe's lengths and on the engine, so a base model that is taken
from the store is looked at too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.registry import DOMAINS, ENGINES
from e2h_pipeline.solutions import prompt_tokens

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Recipe

_EMBEDDED = "transformers"


def model_findings(folder: Path, recipe: Recipe, engine: str) -> list[str]:
    """Reasons why the base model cannot be sampled from, or trained as the recipe says."""
    from transformers import AutoTokenizer

    domain = DOMAINS.load(recipe.problems.source)
    prompt = len(prompt_tokens(AutoTokenizer.from_pretrained(folder), domain.example.question, domain.text))
    lengths = {name: prompt + getattr(recipe, name).max_new_tokens for name in ("easy_samples", "sampling")}
    longest = max(lengths, key=lambda name: lengths[name])
    found = _refusal(engine, folder, lengths[longest])
    return [*([f"{longest}: {found}"] if found else []), *_training_findings(folder, recipe)]


def rl_refusal(folder: Path, recipe: Recipe, tokens: int = 0) -> str | None:
    """Why reinforcement learning cannot draw from the model, or None. It always uses the embedded
    engine."""
    return _refusal(_EMBEDDED, folder, tokens + getattr(recipe.rl, "max_new_tokens", 0))


def _refusal(engine: str, folder: Path, tokens: int) -> str | None:
    try:
        ENGINES.load(engine)().check(folder, tokens)
    except ValueError as error:
        return str(error)
    return None


def _training_findings(folder: Path, recipe: Recipe) -> list[str]:
    from e2h_pipeline.models.load import load_policy
    from e2h_pipeline.models.probes import learned_positions
    from e2h_pipeline.training.batches import packed_attention

    model, _ = load_policy(folder)
    positions = learned_positions(model)
    stages: dict[str, Any] = {"sft": recipe.sft, "reward.training": recipe.reward.training}
    found = [
        f"{name}.max_tokens={options.max_tokens}, and the model knows {positions} positions: lower it"
        for name, options in stages.items()
        if positions and options.max_tokens > positions
    ]
    if recipe.reward.training.packing:
        try:
            with packed_attention(model):
                pass
        except ValueError as error:
            found.append(f"reward.training: {error}")
    return found
