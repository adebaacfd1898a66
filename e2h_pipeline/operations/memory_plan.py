"""What each stage of an experiment takes on a card, whether it fits, and which field to change.

Only the shapes of the base model are needed: nothing is loaded, and nothing was run before. A
stage is reckoned for its largest batch: longest prompts, completions that reach their limit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from e2h_pipeline.generation.engines.protocol import SamplingOptions
from e2h_pipeline.generation.memory import drawing, scoring
from e2h_pipeline.models.adapters import keep_lowest_layers
from e2h_pipeline.models.base import ModelError
from e2h_pipeline.models.classifier import score_head_name
from e2h_pipeline.models.memory import GB, Cards, Phase, added, all_weights, largest
from e2h_pipeline.models.shapes import evaluator, language_model, meta, published_config, unreal
from e2h_pipeline.orchestration.planning import stages_of
from e2h_pipeline.recipe import (
    Base,
    FineTuning,
    OnlineRl,
    OutsideReward,
    Recipe,
    RewardTraining,
    RoundsRl,
    TaughtLabels,
)
from e2h_pipeline.rl.memory import online
from e2h_pipeline.training.memory import fitting, next_token, token_scores

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

EMBEDDED = "transformers"
_PASSES = (None, 8192, 4096, 2048, 1024)
_RANK = 64
_MOST_CARDS = 64


@dataclass(frozen=True)
class StagePlan:
    """The memory of a stage.

    Attributes:
        stage: the asset.
        phases: what it takes over time, on a card.
        limit: bytes of a card.
        cards: how many cards it uses.
        advice: what to change where it does not fit; "" where it fits.
    """

    stage: str
    phases: tuple[Phase, ...]
    limit: int
    cards: int
    advice: str = ""

    @property
    def peak(self) -> Phase:
        """The largest phase."""
        return largest(self.phases)

    @property
    def fits(self) -> bool:
        """Whether a card holds it."""
        return self.peak.bytes <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """For JSON; bytes."""
        return {
            "stage": self.stage,
            "fits": self.fits,
            "cards": self.cards,
            "bytes": self.peak.bytes,
            "limit": self.limit,
            "phase": self.peak.name,
            "advice": self.advice,
            "phases": {phase.name: dict(phase.items) for phase in self.phases},
        }


def host_cards() -> Cards:
    """The cards of this host; where it has none, its memory as one card."""
    import torch

    if torch.cuda.is_available():
        size = torch.cuda.get_device_properties(0).total_memory
        return Cards(round(size * GB / 2**30), torch.cuda.device_count())
    return Cards(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), accelerator=False)


def memory_plan(
    recipe: Recipe,
    cards: Cards,
    engine: str = EMBEDDED,
    stages: Collection[str] | None = None,
    advise: bool = True,
) -> list[StagePlan]:
    """The plans of the stages that use a GPU, in the order of a run.

    Args:
        cards: those of the host; `ranks` of them in stages that several processes share.
        engine: the word of the engine that draws pools.
        stages: only these; all of the recipe's scope where None.
        advise: look for a change that makes a stage fit, which takes minutes where there are many.

    Raises:
        ModelError: the base model's config is not on this machine, or its code needs data to run.
    """
    import torch
    from torch._subclasses.fake_tensor import DataDependentOutputException, UnsupportedFakeTensorException

    wanted = stages_of(recipe) if stages is None else stages
    config = published_config(recipe.base)
    model = _Base(config, getattr(torch, recipe.base.dtype))
    try:
        found = _stages(recipe, model, cards, engine)
        return [_plan(*stage, advise) for stage in found if stage[0] in wanted]
    except (DataDependentOutputException, UnsupportedFakeTensorException) as error:
        raise ModelError(
            f"base.model '{recipe.base.model}': {config.model_type} looks at values, so it cannot be reckoned "
            f"without weights ({error})"
        ) from error


def weights_of(recipe: Recipe) -> int:
    """Bytes of the base model's weights.

    Raises:
        ModelError: the base model's config is not on this machine.
    """
    import torch

    with meta():
        model = language_model(published_config(recipe.base), getattr(torch, recipe.base.dtype))
    return int(model.num_parameters()) * torch.finfo(model.dtype).bits // 8


@dataclass(frozen=True)
class _Base:
    config: PretrainedConfig
    dtype: torch.dtype


_Reckon = Callable[[Cards], Iterable[Phase]]
_Change = tuple[dict[str, Any], _Reckon, Cards]
"""Fields (and variables of the environment) with other values, and the stage with them."""


def _stages(
    recipe: Recipe, base: _Base, cards: Cards, engine: str
) -> Iterator[tuple[str, _Reckon, Cards, Iterator[_Change]]]:
    """The arguments of `_plan` for each stage."""
    one = replace(cards, ranks=1, sharded=False)
    own = cards if _distributed("sft_policy", recipe) else one
    yield "sft_policy", _sft(recipe.sft, base), own, _lighter("sft", recipe.sft, _sft, base, own)
    for labels in recipe.labels:
        if isinstance(labels, TaughtLabels) and (taught := _teachers(labels, base)):
            training = labels.training
            make = partial(_taught, teachers=taught)
            yield (
                "easy_step_labels",
                make(training, base),
                one,
                _lighter("labels.training", training, make, base, one),
            )
    judges = _judges(recipe, base)
    reckon = partial(_scoring, judges=judges, longest=recipe.sampling.max_new_tokens)
    fewer = _fewer_tokens("scoring", recipe.scoring, reckon, one)
    if fitted := recipe.reward.fine_tuning:
        own = cards if _distributed("easy_evaluator", recipe) else one
        make_own: Any = _evaluator if isinstance(fitted, RewardTraining) else _sft
        lighter = _lighter("reward.training", fitted, make_own, base, own)
        yield "easy_evaluator", make_own(fitted, base), own, lighter
    else:
        yield "easy_evaluator", reckon(recipe.scoring), one, fewer
    for stage, section in (("easy_samples", "easy_samples"), ("benchmark_samples", "sampling")):
        options = getattr(recipe, section)
        drawn = stage != "benchmark_samples" or recipe.samples.drawn
        if options.samples and drawn:
            draws = partial(_sampling, base=base, engine=engine)
            yield stage, draws(options), one, _fewer_tokens(section, options, draws, one)
    fewer = _fewer_tokens("scoring", recipe.scoring, reckon, one)
    yield "rerank_scores", reckon(recipe.scoring), one, fewer
    if isinstance(recipe.rl, OnlineRl):
        several = _distributed("rl_policy", recipe)
        own = cards if several else one
        spread = _spread(cards) if several else iter(())
        online_run = partial(_online, base=base, judge=judges[0].config)
        yield "rl_policy", online_run(recipe.rl), own, _online_changes(recipe.rl, online_run, own, spread)
    elif isinstance(recipe.rl, RoundsRl):
        own = cards if _distributed("rl_policy", recipe) else one
        rounds = partial(_rounds, longest=recipe.sft.max_tokens)
        changes = _fewer_rows("rl", recipe.rl, rounds, base, own)
        yield "rl_policy", rounds(recipe.rl, base), own, changes


def _plan(stage: str, reckon: _Reckon, cards: Cards, changes: Iterator[_Change], advise: bool) -> StagePlan:
    """The plan of a stage, with the first change that makes it fit if it does not."""
    found = StagePlan(stage, tuple(reckon(cards)), cards.bytes, cards.ranks)
    if found.fits or not advise:
        return found
    enough = (
        fields
        for fields, changed, where in changes
        if all(phase.bytes <= where.bytes for phase in changed(where))  # stops at the first that does not fit
    )
    fields = next(enough, {})
    mend = ", ".join(f"{name}={value}" for name, value in fields.items())
    return replace(found, advice=mend or f"a card of {-(-found.peak.bytes // GB)} GB")


def _distributed(stage: str, recipe: Recipe) -> bool:
    """Whether several processes may share a stage."""
    from importlib import import_module

    from e2h_pipeline.stages.spec import STAGES, narrow

    import_module(f"assets.{stage}")  # registers the stage
    spec = STAGES[stage]
    return spec.distributed(narrow(recipe, spec.sections))


# Stages


def _sft(options: FineTuning, base: _Base) -> _Reckon:
    def reckon(cards: Cards) -> list[Phase]:
        from e2h_pipeline.training.adapters import prepare
        from e2h_pipeline.training.trainer import Settings

        with meta():
            trained = prepare(language_model(base.config, base.dtype), options)
        return fitting(trained, next_token, Settings.of(options, 0), (options.max_tokens, 1), cards)

    return reckon


def _rounds(options: Any, base: _Base, longest: int) -> _Reckon:
    pairs = 2 if options.algorithm == "dpo" else 1  # an example of preference training is a pair

    def reckon(cards: Cards) -> list[Phase]:
        from e2h_pipeline.training.trainer import Settings

        with meta():
            model = language_model(base.config, base.dtype)
        return fitting(model, next_token, Settings.of(options, 0), (longest, pairs), cards)

    return reckon


def _evaluator(options: RewardTraining, base: _Base) -> _Reckon:
    def reckon(cards: Cards) -> list[Phase]:
        from e2h_pipeline.training.adapters import prepare
        from e2h_pipeline.training.boundary import BATCH_TOKENS
        from e2h_pipeline.training.trainer import Settings

        with meta():
            model = evaluator(base.config, base.dtype)
            if options.layers is not None:
                keep_lowest_layers(model, options.layers)
            trained = prepare(model, options, [score_head_name(model)])
        if options.epochs:
            return fitting(trained, token_scores, Settings.of(options, 0), (options.max_tokens, 1), cards)
        with unreal(model):  # a head fitted to states
            added_by_pass = scoring(model, BATCH_TOKENS, options.max_tokens)
            return [Phase("a pass over the solutions", added(all_weights(model), added_by_pass))]

    return reckon


def _sampling(options: Any, base: _Base, engine: str) -> _Reckon:
    def reckon(_: Cards) -> list[Phase]:
        asked = SamplingOptions(
            options.temperature, options.max_new_tokens, options.top_k, options.top_p, options.batch_tokens
        )
        with meta():
            model = language_model(base.config, base.dtype)
        # Other engines fill what is left of the card, and need room for one sample at least.
        rows = options.samples * options.shard_questions if engine == EMBEDDED else 1
        with unreal(model):
            return [Phase("drawing", added(all_weights(model), drawing(model, asked, rows)))]

    return reckon


def _teachers(labels: TaughtLabels, base: _Base) -> list[tuple[int | None, _Base]]:
    """The evaluators that a source of labels trains for itself: layers that each keeps, and its model."""
    import torch

    if getattr(labels, "selection", "active") == "uniform" or getattr(labels, "labeller", "weak") != "weak":
        return []
    first = base
    if own := getattr(labels, "base", None):
        config = published_config(Base(model=own))
        first = _Base(config, config.dtype or torch.float32)
    return [(labels.training.layers, first), *((layers, base) for layers in getattr(labels, "middle", ()))]


def _taught(options: RewardTraining, _: _Base, teachers: Sequence[tuple[int | None, _Base]]) -> _Reckon:
    """The trainings of a source's own evaluators, one after the other."""
    each = [_evaluator(options.model_copy(update={"layers": layers}), base) for layers, base in teachers]
    return lambda cards: [phase for reckon in each for phase in reckon(cards)]


def _judges(recipe: Recipe, base: _Base) -> list[_Base]:
    """The models of the evaluator, the largest first: made of the base model, or those of others."""
    import torch

    if not isinstance(recipe.reward, OutsideReward):
        return [base]
    named = [
        published_config(Base(model=one.model, revision=one.revision)) for one in recipe.reward.evaluator
    ]
    found = [_Base(config, config.dtype or torch.float32) for config in named]
    return sorted(found, key=lambda one: -one.config.get_text_config().hidden_size)


def _scoring(options: Any, judges: Sequence[_Base], longest: int) -> _Reckon:
    def reckon(_: Cards) -> list[Phase]:
        with meta():
            models = [evaluator(one.config, one.dtype) for one in judges]
        with unreal(*models):  # they score one after the other
            most = scoring(models[0], options.batch_tokens, longest)
        return [Phase("scoring", added(all_weights(*models), most))]

    return reckon


def _online(options: OnlineRl, base: _Base, judge: PretrainedConfig) -> _Reckon:
    """An ensemble's largest model stands for it; a critic is reckoned as large."""
    return lambda cards: online(base.config, judge, base.dtype, options, cards)


# Changes, from the least cost in time or quality to the most


def _halves(value: int, least: int) -> Iterator[int]:
    while value > least:
        value = max(least, value // 2)
        yield value


def _fewer_tokens(
    section: str, options: Any, make: Callable[[Any], _Reckon], cards: Cards
) -> Iterator[_Change]:
    for count in _halves(options.batch_tokens, 1024):
        changed = options.model_copy(update={"batch_tokens": count})
        yield {f"{section}.batch_tokens": count}, make(changed), cards


def _fewer_rows(
    section: str, options: Any, make: Callable[[Any, _Base], _Reckon], base: _Base, cards: Cards
) -> Iterator[_Change]:
    for rows in _halves(options.micro_batch_size or options.batch_size, 1):
        changed = options.model_copy(update={"micro_batch_size": rows})
        yield {f"{section}.micro_batch_size": rows}, make(changed, base), cards


def _lighter(
    section: str, options: FineTuning, make: Callable[[Any, _Base], _Reckon], base: _Base, cards: Cards
) -> Iterator[_Change]:
    """Changes of a fine-tuning."""
    yield from _fewer_rows(section, options, make, base, cards)
    fields: dict[str, Any] = {"micro_batch_size": 1}
    for more in ({"gradient_checkpointing": True}, {"lora_rank": options.lora_rank or _RANK}):
        fields |= more
        shown = {f"{section}.{name}": str(value).lower() for name, value in fields.items()}
        yield shown, make(options.model_copy(update=fields), base), cards
    without = {"micro_batch_size": 1, "gradient_checkpointing": True}
    for setting, where in _spread(cards):
        yield setting, make(options.model_copy(update=without), base), where


def _online_changes(
    options: OnlineRl,
    make: Callable[[OnlineRl], _Reckon],
    cards: Cards,
    spread: Iterator[tuple[dict[str, Any], Cards]],
) -> Iterator[_Change]:
    for setting, where in chain([({}, cards)], spread):
        for rank in dict.fromkeys((options.lora_rank, options.lora_rank or _RANK)):
            for positions in _PASSES:
                fields: dict[str, Any] = {"gradient_checkpointing": True, "lora_rank": rank}
                fields |= {} if positions is None else {"pass_tokens": positions}
                changed = {name: value for name, value in fields.items() if getattr(options, name) != value}
                shown = {f"rl.{name}": str(value).lower() for name, value in changed.items()}
                if changed or setting:
                    yield shown | setting, make(options.model_copy(update=changed)), where


def _spread(cards: Cards) -> Iterator[tuple[dict[str, Any], Cards]]:
    """Shards over more and more cards."""
    ranks = 2
    while ranks <= _MOST_CARDS:
        if not cards.sharded or ranks > cards.ranks:
            setting = {"E2H_ACCELERATE_CONFIG": "deploy/accelerate/fsdp.yaml", "E2H_PROCESSES": ranks}
            yield setting, replace(cards, ranks=ranks, sharded=True, count=max(cards.count, ranks))
        ranks *= 2
