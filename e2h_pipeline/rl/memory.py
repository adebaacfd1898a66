"""What online RL takes on a card, by phases, reckoned from the shapes of the models alone.

The passes are counted by running the code of `online.passes` on tensors without data
(`models.shapes`), in the order of an update: the policy's pass, the critic's pass, the critic's
backward pass, the policy's. What is kept beside them follows from the number of weights
(`online.models.Run`).

Longest rows are assumed: completions that reach `rl.max_new_tokens`. Sharded models are put
together to draw and to measure, and layer by layer to learn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2h_pipeline.generation.engines.protocol import SamplingOptions
from e2h_pipeline.generation.memory import drawing, scoring
from e2h_pipeline.models.adapters import add_adapter, switched
from e2h_pipeline.models.classifier import score_head
from e2h_pipeline.models.memory import (
    COPIES,
    OPTIMIZER,
    PROMPT_TOKENS,
    WEIGHTS,
    Cards,
    Phase,
    added,
    all_weights,
    measured,
    split,
    tokens,
    unsharded,
)
from e2h_pipeline.models.shapes import (
    GRADIENTS,
    Meter,
    evaluator,
    language_model,
    meta,
    unreal,
    weight_bytes,
    weight_count,
)

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from e2h_pipeline.recipe import OnlineRl

TEMPORARY = "optimizer's temporary"
_SCORED_TOKENS = 65536  # positions of a pass of `rewards.scoring`, by default
_FLOAT32 = 4  # bytes


def online(
    policy: PretrainedConfig,
    judge: PretrainedConfig,
    dtype: torch.dtype,
    options: OnlineRl,
    cards: Cards,
    prompt: int = PROMPT_TOKENS,
) -> Iterator[Phase]:
    """The phases of an update, on the card that has most to do; the quickly reckoned ones first.

    Args:
        policy, judge: configs of policy and evaluator.
        dtype: number format of both.
        prompt: tokens of the longest prompt.
    """
    with meta():
        models = _models(policy, judge, dtype, options)
    run = _Update(models, options, cards, prompt + options.max_new_tokens)
    steps: dict[str, Callable[[], dict[str, int]]] = {
        "optimizer step": run.stepping,
        "drawing": lambda: run.drawing(prompt),
        "scoring": run.scoring,
        "log-probabilities": run.measuring,
        "learning": run.learning,
    }
    mode, held = unreal(models.policy, models.judge), models.held(cards)
    for name, reckon in steps.items():
        with mode:
            found = reckon()
        yield Phase(name, added(held, found))


@dataclass(frozen=True)
class _Models:
    """The models of a run.

    Attributes:
        learners: critic, if there is one, and policy, in the order of their optimizer steps.
        shared: adapters learn, so that policy and SFT policy, and critic and evaluator, share
            weights.
    """

    policy: PreTrainedModel
    judge: PreTrainedModel
    learners: tuple[PreTrainedModel, ...]
    shared: bool

    def held(self, cards: Cards) -> dict[str, int]:
        """What a card keeps through all phases: weights, Adam's two moments, and for weights in 16
        bits that learn copies in float32. Sharded, such weights are float32 themselves."""
        half = [p for m in self.learners for p in m.parameters() if p.requires_grad and p.element_size() < 4]
        copies = {COPIES: _FLOAT32 * sum(p.numel() for p in half)}
        if cards.shards > 1:
            copies = {WEIGHTS: copies[COPIES] - sum(p.nbytes for p in half)}
        again = () if self.shared else self.learners
        moments = {OPTIMIZER: 2 * _FLOAT32 * sum(weight_count(m, learning=True) for m in self.learners)}
        return split(added(all_weights(self.policy, self.judge, *again), copies, moments), cards.shards)


def _models(
    policy: PretrainedConfig, judge: PretrainedConfig, dtype: torch.dtype, options: OnlineRl
) -> _Models:
    critics = options.algorithm == "ppo"
    actor, critic = language_model(policy, dtype), evaluator(judge, dtype)
    critic.requires_grad_(critics)
    if options.lora_rank:
        add_adapter(actor, "policy", options.lora_rank, options.lora_targets, 0)
        if critics:
            add_adapter(critic, "critic", options.lora_rank, options.lora_targets, 0)
            score_head(critic).requires_grad_(True)
    return _Models(actor, critic, (critic, actor) if critics else (actor,), shared=options.lora_rank > 0)


@dataclass(frozen=True)
class _Update:
    """An update, phase by phase. Each method returns what a phase adds to `_Models.held`.

    Attributes:
        length: tokens of the longest row.
    """

    models: _Models
    options: OnlineRl
    cards: Cards
    length: int

    def drawing(self, prompt: int) -> dict[str, int]:
        """Rollouts by the embedded engine."""
        policy, options = self.models.policy, self.options
        asked = SamplingOptions(options.temperature, options.max_new_tokens, token_logprobs=True)
        return added(self._whole(policy), drawing(policy, asked, self._share(options.rollouts), prompt))

    def scoring(self) -> dict[str, int]:
        """A pass of the evaluator."""
        judge = self.models.judge
        positions = min(_SCORED_TOKENS, self._share(self.options.rollouts) * self.length)
        with switched(judge, None):
            return added(self._whole(judge), scoring(judge, positions, self.length))

    def measuring(self) -> dict[str, int]:
        """A pass of the policy, or of the SFT policy, without gradients."""
        import torch

        from e2h_pipeline.rl.online.passes import row_logprobs

        policy = self.models.policy

        def measure(_: Meter) -> None:
            ids = tokens(self._rows()[0], self.length)
            with torch.no_grad():
                row_logprobs(policy, ids, torch.ones_like(ids), self.options.temperature)

        return added(self._whole(policy), measured([policy], measure))

    def learning(self) -> dict[str, int]:
        """A pass with gradients, in the order of `online.optimize`."""
        import torch

        from e2h_pipeline.rl.online.passes import row_logprobs, row_values

        (rows, passes), models = self._rows(), self.models
        if self.options.gradient_checkpointing:
            for model in models.learners:
                _recompute(model)

        def learn(meter: Meter) -> None:
            if passes > 1:
                meter.keep_gradients()
            ids = tokens(rows, self.length)
            mask = torch.ones_like(ids)
            losses = [row_logprobs(models.policy, ids, mask, self.options.temperature)[0].sum()]
            if len(models.learners) > 1:
                losses.insert(0, row_values(models.judge, ids, mask).sum())
            for loss in losses:
                loss.backward()

        both = [models.policy, models.judge]
        return added(unsharded(both, self.cards), measured(both, learn, self._gradient_share()))

    def stepping(self) -> dict[str, int]:
        """The first optimizer step: its gradients in float32, those of the other models, and what
        Adam needs for a moment: on a GPU as much as the weights, on a CPU twice the largest
        weight."""
        first, *others = self.models.learners
        count = weight_count(first, learning=True)
        single = 2 * _FLOAT32 * max(p.numel() for p in first.parameters() if p.requires_grad)
        own = {
            GRADIENTS: _FLOAT32 * count,
            TEMPORARY: _FLOAT32 * count if self.cards.accelerator else single,
        }
        waiting = sum(weight_bytes(model, learning=True) for model in others)
        return added(split(own, self.cards.shards), {GRADIENTS: round(waiting * self._gradient_share())})

    def _share(self, rows: int) -> int:
        return -(-rows // self.cards.ranks)

    def _rows(self) -> tuple[int, int]:
        """Rows of a pass, and passes of an optimizer step."""
        from e2h_pipeline.rl.online.passes import most_positions

        share = self._share(self.options.minibatch)
        most = most_positions(self.options, cpu=not self.cards.accelerator)
        rows = min(share, max(1, most // self.length))
        return rows, -(-share // rows)

    def _whole(self, model: PreTrainedModel) -> dict[str, int]:
        """A sharded model that is put together."""
        return all_weights(model) if self.cards.shards > 1 else {}

    def _gradient_share(self) -> float:
        """The part of a gradient that stays on a card; sharded ones are float32."""
        if self.cards.shards == 1:
            return 1.0
        learning = [p for m in self.models.learners for p in m.parameters() if p.requires_grad]
        numbers, size = sum(p.numel() for p in learning), sum(p.nbytes for p in learning)
        return _FLOAT32 * numbers / size / self.cards.shards


def _recompute(model: PreTrainedModel) -> None:
    """As `Run.recomputing` does."""
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True
