import math
from pathlib import Path
from typing import Any

import pytest
import torch

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.rewards.kinds.goal_conditioned import (
    WEIGHT,
    contrastive_loss,
    goal_state,
    q_filter,
    q_values,
    source_and_goal,
)
from e2h_pipeline.rewards.kinds.pairwise import pairwise_loss
from e2h_pipeline.training.batches import run_model, together
from e2h_pipeline.training.next_token import IGNORED
from e2h_pipeline.training.trainer import Settings, train

RIGHT, UP = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])


def test_the_worked_numbers() -> None:
    """reference/oversight-methods.md, section h: best, orthogonal, worst."""
    assert contrastive_loss(RIGHT, 3 * RIGHT, RIGHT, -RIGHT).item() == pytest.approx(0.626523, abs=1e-6)
    assert contrastive_loss(RIGHT, UP, RIGHT, UP).item() == pytest.approx(1.386294, abs=1e-6)
    assert contrastive_loss(RIGHT, -RIGHT, RIGHT, RIGHT).item() == pytest.approx(2.626523, abs=1e-6)


def test_the_mean_is_inside_the_logarithm() -> None:
    source, goal = torch.cat([RIGHT, RIGHT]), torch.cat([RIGHT, -RIGHT])
    near = (1 / (1 + math.exp(-1)) + 1 / (1 + math.exp(1))) / 2  # 1/2
    far = 1 / (1 + math.exp(-1))
    loss = contrastive_loss(source, goal, source, torch.cat([RIGHT, RIGHT])).item()
    assert loss == pytest.approx(-math.log(near) - math.log(1 - far), abs=1e-6)


def test_a_source_is_before_its_goal_and_all_pairs_are_drawn() -> None:
    i, j = source_and_goal(3, 6, torch.Generator().manual_seed(0), draws=3000)
    assert ((i >= 3) & (i < j) & (j < 6)).all()
    pairs = list(zip(i.tolist(), j.tolist(), strict=True))
    assert all(900 < pairs.count(pair) < 1100 for pair in [(3, 4), (3, 5), (4, 5)])
    with pytest.raises(ValueError, match="1 tokens"):
        source_and_goal(3, 4, torch.Generator())


def test_q_is_the_cosine_with_the_mean_right_end() -> None:
    goal = goal_state(torch.tensor([[1.0, 1.0], [3.0, -1.0]]))
    states = torch.tensor([[[5.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 1.0]]])
    assert q_values(states, goal)[0].tolist() == pytest.approx([1, 0, -1, 2**-0.5])


def test_the_filter_drops_at_the_first_low_token() -> None:
    values = [[0.1] * 8, [0.1] * 5 + [-0.1, 0.2, 0.3], [-0.9] * 5 + [0.1], [0.2, -0.5]]
    kept = q_filter(values)
    assert kept.kept == (0, 2, 3)  # early tokens cannot drop
    assert kept.cut == (8, 6, 6, 2)
    assert kept.saved == 2
    strict = q_filter(values, unjudged=0)
    assert (strict.kept, strict.cut, strict.saved) == ((0,), (8, 6, 1, 2), 7)


def test_where_all_would_be_dropped_all_are_kept() -> None:
    filtered = q_filter([[-1.0], [-1.0, 1.0]], unjudged=0)
    assert (filtered.kept, filtered.cut, filtered.saved) == ((0, 1), (1, 2), 0)
    assert q_filter([]).kept == ()


def _spans(batch: dict[str, Any]) -> list[tuple[int, int, int]]:
    """(row, start, stop) of each completion of a batch, padded or packed."""
    found = []
    for row, marks in enumerate(batch["completion"].tolist()):
        edges = [t for t in range(1, len(marks) + 1) if t == len(marks) or marks[t] != marks[t - 1]]
        starts = [0, *edges[:-1]]
        found += [(row, a, b) for a, b in zip(starts, edges, strict=True) if marks[a]]
    return found


@pytest.mark.parametrize("packing", [False, True])
def test_the_trainer_takes_it_as_an_objective(ladder_evaluator: Path, tmp_path: Path, packing: bool) -> None:
    """Pairs in one micro-batch, hidden states from the model, a column that marks completions."""
    draws = torch.Generator().manual_seed(0)
    seen: list[float] = []

    def objective(model: Any, batch: dict[str, Any], total: torch.Tensor) -> torch.Tensor:
        output = run_model(model, batch, output_hidden_states=True)
        states = output.hidden_states[-1]
        spans = _spans(batch)
        assert len(spans) % 2 == 0
        parts: list[list[torch.Tensor]] = [[], [], [], []]
        for right, wrong in zip(spans[0::2], spans[1::2], strict=True):
            i, j = source_and_goal(right[1], right[2], draws)
            n, _ = source_and_goal(wrong[1], wrong[2], draws)
            for part, (row, positions) in zip(
                parts, [(right[0], i), (right[0], j), (right[0], i), (wrong[0], n)], strict=True
            ):
                part.append(states[row, positions])
        contrast = contrastive_loss(*(torch.cat(part) for part in parts))
        seen.append(contrast.item())
        share = (batch["labels"] != IGNORED).sum() / total
        return pairwise_loss(output.logits, batch["labels"], total) + WEIGHT * share * contrast

    def solution(token: int, label: float) -> dict[str, Any]:
        length = 6 + token % 3
        return {
            "input_ids": [4, 5, 6, *[token] * length],
            "labels": [IGNORED] * (2 + length) + [label],
            "completion": [0, 0, 0, *[1] * length],
        }

    pairs = [together(solution(8 + i % 3, 1.0), solution(12 + i % 4, 0.0)) for i in range(12)]
    model, _ = load_evaluator(ladder_evaluator)
    settings = Settings(8, 4, 3e-3, 0, 0, micro_batch_size=2, packing=packing)
    summary = train(model.train(), pairs, objective, settings, pad_id=0, work=tmp_path, reporter=Reporter())
    assert summary["updates"] == 24
    assert seen[-1] < seen[0] - 0.2
    assert seen[-1] > 0.626
