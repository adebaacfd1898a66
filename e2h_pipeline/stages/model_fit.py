"""Whether the stages of a recipe can use its base model: sampling, by the engine at hand, and training.

What a model and a tokenizer must be able to do in any recipe is checked when they are fetched. Here
are the reasons that depend on the recipe's lengths and on the engine, so a base model that is taken
from the store is looked at too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.recipe import with_inner
from e2h_pipeline.registry import DOMAINS, ENGINES, LABEL_SOURCES
from e2h_pipeline.solutions import prompt_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from e2h_pipeline.recipe import FineTuning, Recipe

_EMBEDDED = "transformers"


def model_findings(folder: Path, recipe: Recipe, engine: str) -> tuple[list[str], str | None]:
    """What a recipe asks for, and the base model cannot do.

    Returns:
        Reasons why it cannot be sampled from with the engine, or trained; and why reinforcement
        learning, which always draws with the embedded engine, cannot use it, or None.
    """
    from e2h_pipeline.models.load import load_policy

    domain = DOMAINS.load(recipe.problems.source)
    policy, tokenizer = load_policy(folder)
    prompt = len(prompt_tokens(tokenizer, domain.example.question, domain.text))
    drawn = {name: getattr(recipe, name).max_new_tokens for name in ("easy_samples", "sampling")}
    if not _has_policy(recipe):
        return _training_findings(policy, recipe), None
    longest = max(drawn, key=lambda name: drawn[name])
    found = _refusal(folder, policy, engine, prompt + drawn[longest])
    rl = _refusal(folder, policy, _EMBEDDED, prompt + getattr(recipe.rl, "max_new_tokens", 0))
    return [*([f"{longest}: {found}"] if found else []), *_training_findings(policy, recipe)], rl


def _has_policy(recipe: Recipe) -> bool:
    """Whether the experiment draws from a policy at all."""
    read = {
        asset
        for options in with_inner(recipe.labels)
        for asset in LABEL_SOURCES.load(options.source)().reads(options)
    }
    return recipe.scope != "evaluator" or bool(read & {"easy_samples", "sft_policy"})


def _refusal(folder: Path, policy: PreTrainedModel, engine: str, tokens: int) -> str | None:
    from e2h_pipeline.generation.engines.embedded import check_loaded

    try:
        if engine == _EMBEDDED:
            check_loaded(policy, tokens)
        else:
            ENGINES.load(engine)().check(folder, tokens)
    except ValueError as error:
        return str(error)
    return None


def _training_findings(policy: PreTrainedModel, recipe: Recipe) -> list[str]:
    from e2h_pipeline.models.probes import learned_positions
    from e2h_pipeline.training.batches import packed_attention

    positions = learned_positions(policy)
    stages: dict[str, FineTuning] = {"sft": recipe.sft}
    if recipe.reward.fine_tuning:
        stages["reward.training"] = recipe.reward.fine_tuning
    found = [
        f"{name}.max_tokens={options.max_tokens}, and the model knows {positions} positions: lower it"
        for name, options in stages.items()
        if positions and options.max_tokens > positions
    ]
    try:
        with packed_attention(policy, any(options.packing for options in stages.values())):
            pass
    except ValueError as error:
        found += [f"{name}: {error}" for name, options in stages.items() if options.packing]
    return found
