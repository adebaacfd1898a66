import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.recipe import GoalConditionedReward, PairwiseReward
from e2h_pipeline.rewards.kinds.goal_conditioned import (
    GOAL,
    GOAL_FILE,
    GOAL_TOLD,
    GoalConditioned,
    contrastive_loss,
    goal_state,
    q_filter,
    q_values,
    source_and_goal,
)
from e2h_pipeline.rewards.kinds.pairwise import pairwise_objective
from e2h_pipeline.rewards.train import train_reward_model
from e2h_pipeline.solutions import MARKED, encode
from e2h_pipeline.training.batches import collate, packed_attention, together
from e2h_pipeline.training.next_token import IGNORED
from e2h_pipeline.training.trainer import TrainingStep

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
        source_and_goal(3, 4, torch.Generator(), draws=1)


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


def _rows(count: int, split: str) -> list[dict[str, Any]]:
    """A solution is right if its answer is even; four per problem."""
    rng = random.Random(f"goal/{split}")
    return [
        {
            "problem_id": f"{split}/{i // 4}",
            "split": split,
            "question": "1+1",
            "completion": MARKED.completion([f"1+1={digit}"], str(digit)),
            "finished": True,
            "outcome": 1 - digit % 2,
        }
        for i in range(count)
        for digit in [rng.randrange(8)]
    ]


def _pairs(tok: PreTrainedTokenizerFast, count: int = 12) -> list[Any]:
    options = GoalConditionedReward()
    return GoalConditioned().examples(tok, {"outcomes": _rows(count, "train")}, options, 0, MARKED)["pairs"]


def test_completions_are_marked_and_judged_at_their_last_segment(ladder_tok: PreTrainedTokenizerFast) -> None:
    pair = _pairs(ladder_tok)[0]
    right = {name: pair[name][: pair["lengths"][0]] for name in ("input_ids", "labels", "completion")}
    row = next(row for row in _rows(12, "train") if row["outcome"] == 1)
    encoded = encode(ladder_tok, row["question"], row["completion"])
    assert sum(right["completion"]) == len(encoded.input_ids) - encoded.prompt_tokens
    assert list(right["completion"][: encoded.prompt_tokens]) == [0] * encoded.prompt_tokens
    assert [i for i, label in enumerate(right["labels"]) if label != IGNORED] == [encoded.segment_ends[-1]]


@pytest.mark.parametrize("packing", [False, True])
def test_draws_depend_on_update_and_pair_not_on_the_batch(
    ladder_evaluator: Path, ladder_tok: PreTrainedTokenizerFast, packing: bool
) -> None:
    """With one pair in a micro-batch the loss is that pair's, at any position; other updates draw
    other pairs."""
    model, _ = load_evaluator(ladder_evaluator)
    pairs = _pairs(ladder_tok)[:2]

    def loss(batch: list[Any], number: int, **options: Any) -> float:
        objective = GoalConditioned().objective(GoalConditionedReward(**options), 0)
        with torch.no_grad(), packed_attention(model, packing):
            step = TrainingStep(torch.tensor(2 * len(batch)), 0.0, number)
            return objective(model, collate(0, packing)(batch), step).item()

    blank = {**pairs[1], "labels": [IGNORED] * len(pairs[1]["labels"])}
    alone, beside = loss([pairs[0]], 3), 2 * loss([pairs[0], blank], 3)
    assert beside == pytest.approx(alone, abs=1e-6)  # a blank has no effect
    assert loss([pairs[0]], 4) != pytest.approx(alone, abs=1e-6)
    plain = pairwise_objective(model, collate(0, False)([pairs[0]]), TrainingStep(torch.tensor(2))).item()
    assert loss([pairs[0]], 3, contrastive_weight=0.0) == pytest.approx(plain, abs=1e-6)
    assert 0.626 < 2 * (alone - plain) < 2.627  # lambda is one half


def test_a_completion_of_one_token_is_in_the_ranking_only(ladder_evaluator: Path) -> None:
    model, _ = load_evaluator(ladder_evaluator)
    right, wrong = (
        {"input_ids": [4, 5, token], "labels": [IGNORED, IGNORED, label], "completion": [0, 0, 1]}
        for token, label in ((8, 1.0), (9, 0.0))
    )
    batch, step = collate(0, packing=False)([together(right, wrong)]), TrainingStep(torch.tensor(2))
    with torch.no_grad():
        loss = GoalConditioned().objective(GoalConditionedReward(), 0)(model, batch, step)
        assert loss.item() == pairwise_objective(model, batch, step).item()


def test_it_trains_and_keeps_its_goal(ladder_policy: Path, tmp_path: Path) -> None:
    """It ranks as well as the pairwise model. Its states of right ends are also alike, unlike that
    model's."""
    write_table(
        tmp_path / "labels" / "data.parquet",
        pa.Table.from_pylist([*_rows(96, "train"), *_rows(40, "validation")]),
    )
    training = {"epochs": 6, "batch_size": 16, "micro_batch_size": 8, "learning_rate": 1e-2}
    summaries = {}
    for section in (PairwiseReward, GoalConditionedReward):
        options = section.model_validate({"training": training})
        work = Work(tmp_path / options.kind, tmp_path / f"{options.kind}-work", 0)
        summaries[options.kind] = train_reward_model(
            ladder_policy, {"outcomes": tmp_path / "labels"}, options, MARKED, work
        )
    ours, plain = summaries["goal_conditioned"], summaries["pairwise"]
    assert ours["pairs"] == plain["pairs"]
    assert ours["validation_outcome_auroc"] > 0.95
    assert (
        0.626 < 2 * (ours["final_loss"] - plain["final_loss"]) < 1.2
    )  # from 1.386 where states are orthogonal
    assert not (tmp_path / "pairwise" / GOAL_FILE).exists()
    goal = load_file(tmp_path / "goal_conditioned" / GOAL_FILE)[GOAL]
    told = json.loads((tmp_path / "goal_conditioned" / GOAL_TOLD).read_text())
    assert told["norm"] == pytest.approx(goal.norm().item(), rel=1e-5)
    assert told["solutions"] == len({r["completion"] for r in _rows(96, "train") if r["outcome"]})
    model, tokenizer = load_evaluator(tmp_path / "goal_conditioned")
    assert goal.shape == (model.config.hidden_size,)
    q = {}
    for digit in (4, 5):
        encoded = encode(tokenizer, "1+1", MARKED.completion([f"1+1={digit}"], str(digit)))
        with torch.no_grad():
            output = model(input_ids=torch.tensor([encoded.input_ids]), output_hidden_states=True)
        q[digit] = q_values(output.hidden_states[-1], goal)[0, encoded.segment_ends[-1]].item()
    assert q[4] > 0.9
    assert q[5] < q[4] - 0.5


def test_the_control_differs_by_the_loss_alone(ladder_policy: Path, tmp_path: Path) -> None:
    """lambda = 0 draws the same pairs, and is the pairwise model bit by bit; only it has a goal too."""
    write_table(
        tmp_path / "labels" / "data.parquet",
        pa.Table.from_pylist([*_rows(24, "train"), *_rows(8, "validation")]),
    )
    training = {"epochs": 1, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-2}
    arms = {
        "plain": PairwiseReward.model_validate({"training": training}),
        "control": GoalConditionedReward.model_validate({"training": training, "contrastive_weight": 0}),
        "ours": GoalConditionedReward.model_validate({"training": training}),
    }
    weights = {}
    for name, options in arms.items():
        work = Work(tmp_path / name, tmp_path / f"{name}-work", 0)
        train_reward_model(ladder_policy, {"outcomes": tmp_path / "labels"}, options, MARKED, work)
        weights[name] = load_file(tmp_path / name / "model.safetensors")
    for name, weight in weights["plain"].items():
        assert torch.equal(weights["control"][name], weight), name
    assert any(not torch.equal(weights["ours"][name], weight) for name, weight in weights["plain"].items())
    told = [json.loads((tmp_path / name / GOAL_TOLD).read_text()) for name in ("control", "ours")]
    assert told[0]["solutions_hash"] == told[1]["solutions_hash"]


def test_pairs_do_not_depend_on_the_weight_of_the_loss(ladder_tok: PreTrainedTokenizerFast) -> None:
    rows = {"outcomes": _rows(24, "train")}
    drawn = [
        GoalConditioned().examples(ladder_tok, rows, GoalConditionedReward(contrastive_weight=w), 3, MARKED)
        for w in (0.0, 0.5)
    ]
    assert drawn[0] == drawn[1]
