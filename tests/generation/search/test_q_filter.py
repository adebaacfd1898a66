"""Filtering by Q values: dropped samples are those that a replay of plain samples drops."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from e2h_pipeline.generation.engines.loading import load_engine
from e2h_pipeline.generation.engines.protocol import SampleRequest, SamplingOptions
from e2h_pipeline.generation.noise import stream_key
from e2h_pipeline.generation.search.protocol import Tools
from e2h_pipeline.generation.search.q_filter import QFilter
from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import QFilterSearch, Recipe, RecipeError
from e2h_pipeline.rewards.kinds.goal_conditioned import GOAL, GOAL_FILE, UNJUDGED
from e2h_pipeline.rewards.token_values import GoalJudge, Q, token_values

SHIPPED = Path(__file__).parents[3] / "e2h_pipeline/models/shipped/ladder-base"
HOT = SamplingOptions(temperature=1.0, max_new_tokens=40)
REQUESTS = [SampleRequest(q, LADDER.text, stream_key(0, "test", q), 6) for q in ("3+5", "6*6*6", "1-2*4+5")]


@pytest.fixture(scope="module")
def judge(ladder_evaluator: Path, tmp_path_factory: pytest.TempPathFactory) -> GoalJudge:
    """The tiny evaluator with a goal that about half of its states point to."""
    folder = tmp_path_factory.mktemp("goal") / "evaluator"
    shutil.copytree(ladder_evaluator, folder)
    width = load_evaluator(ladder_evaluator)[0].config.hidden_size
    generator = torch.Generator().manual_seed(1)
    save_file({GOAL: torch.randn(width, generator=generator)}, folder / GOAL_FILE)
    return GoalJudge(folder, LADDER.text)


@pytest.mark.parametrize("every", [1, 5])
def test_it_drops_what_a_replay_drops(judge: GoalJudge, every: int) -> None:
    engine = load_engine("transformers", SHIPPED)
    plain = engine.sample(REQUESTS, HOT)
    flat = [(r, s) for r, own in zip(REQUESTS, plain, strict=True) for s in own]
    solutions = [(r.question, s.completion, s.finish_reason == "stop") for r, s in flat]
    values = token_values(judge.evaluator, solutions, LADDER.text)
    lows = [own[UNJUDGED:] for own in np.split(values.signals[Q], np.cumsum(values.lengths)[:-1])]
    threshold = float(np.quantile([low.min(initial=1.0) for low in lows], 0.5)) + 1e-4
    options = QFilterSearch(threshold=threshold, every=every)
    found = QFilter().search(Tools(engine, token_judge=judge), REQUESTS, HOT, options)
    dropped = 0
    for (_, sample), low, kept, cost in zip(
        flat,
        lows,
        [s for own in found.samples for s in own],
        [c for own in found.costs or () for c in own],
        strict=True,
    ):
        below = bool((low < threshold).any())
        assert (kept.finish_reason == "abandoned") == below
        assert kept.token_ids == sample.token_ids[: len(kept.token_ids)]
        if not below:
            assert replace(kept, logprob=0.0) == replace(sample, logprob=0.0)
        elif every == 1:  # at its first token below the threshold
            assert len(kept.token_ids) <= UNJUDGED + 1 + int(np.flatnonzero(low < threshold)[0])
        assert cost.drawn_tokens == len(kept.token_ids) and cost.read_tokens > 0
        dropped += below
    assert 0 < dropped < len(flat)


def test_another_kind_of_evaluator_is_refused() -> None:
    why = "q_filter asks an evaluator of reward.kind=goal_conditioned, and this recipe has prm"
    for key in ("ladder/search.method=q_filter", "ladder/searches.method=q_filter"):
        with pytest.raises(RecipeError, match=why):
            Recipe.from_key(key)
        assert Recipe.from_key(f"{key}/reward.kind=goal_conditioned")
