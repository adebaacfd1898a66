import json
import math
from pathlib import Path

import pytest
import rl_runs
import torch
from rl_runs import WATCHED, Recorder, learned_weights
from transformers import PreTrainedTokenizerFast

from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.recipe import GrpoRl
from e2h_pipeline.rl.batches import collate
from e2h_pipeline.rl.online.grpo import step_level_advantages
from e2h_pipeline.rl.online.losses import k3
from e2h_pipeline.rl.questions import Question
from e2h_pipeline.rl.rollouts import Rollout

SMALL = GrpoRl(
    updates=4,
    rollouts=12,
    samples_per_question=3,
    minibatch=4,
    max_new_tokens=12,
    checkpoint_every=2,
    learning_rate=1e-3,
    warmup_updates=1,
    epochs=2,
)


def rollout(problem: str, steps: list[float], terminal: float) -> Rollout:
    """Two tokens per step with the reward on the second, and an end-of-sequence token with the
    terminal reward."""
    rewards = [value for step in steps for value in (0.0, step)] + [terminal]
    sample = Sample(0, "", tuple(range(3, 3 + len(rewards))), "stop", 0.0)
    ends = tuple(range(1, 2 * len(steps), 2))
    return Rollout(
        Question(problem, "q", None),
        (3, 4),
        sample,
        tuple(rewards),
        0.5,
        len(steps),
        answer=None,
        right=None,
        ends=ends,
        terminal=terminal,
    )


def test_step_level_advantages_by_hand() -> None:
    """Steps of one question: 1, 0 and 0, -1 (mean 0, deviation sqrt(1/2)); completions: 1 and 0
    (0.5, 0.5)."""
    rollouts = [rollout("a", [1.0, 0.0], 1.0), rollout("a", [0.0, -1.0], 0.0), rollout("b", [0.3], 0.7)]
    batch = collate(rollouts, 0, torch.device("cpu"))
    found = step_level_advantages(rollouts, batch)
    root = math.sqrt(2)
    expected = [
        [0, 0, root + 1, root + 1, 0 + 1, 0 + 1, 1],
        [0, 0, -root - 1, -root - 1, -root - 1, -root - 1, -1],
        [0, 0, 0, 0, 0, 0, 0],  # alone in its group
    ]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


def test_the_leave_one_out_baseline_by_hand() -> None:
    """Steps of a question: 1, 0 over five tokens and -1 over three; each is compared with the other
    sample's reward per token."""
    rollouts = [rollout("a", [1.0, 0.0], 0.5), rollout("a", [-1.0], 0.5)]
    batch = collate(rollouts, 0, torch.device("cpu"))
    found = step_level_advantages(rollouts, batch, "leave_one_out")
    third = 1 / 3  # the other's -1 over 3 tokens, subtracted from each of 5
    expected = [
        [0, 0, 1 + 5 * third, 1 + 4 * third, 3 * third, 2 * third, third],
        [0, 0, -1 - 0.6, -1 - 0.4, -0.2, 0, 0],
    ]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)


def test_k3_by_hand_and_never_negative() -> None:
    policy, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -1.0])
    torch.testing.assert_close(k3(policy, reference), torch.tensor([0.0, math.e - 2]))
    noise = torch.randn(2, 200, generator=torch.Generator().manual_seed(0))
    assert (k3(noise[0], noise[1]) >= 0).all()


def test_a_run_learns_without_a_critic(
    ladder_policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    reported = Recorder()
    summary = rl_runs.run(SMALL, ladder_policy, ladder_evaluator, ladder_tables, tmp_path, reported)
    assert (summary["updates"], summary["stopped"]) == (4, None)
    names = {
        name for _, values in reported.points for name in values
    }  # some updates have only one kind of questions
    assert names >= WATCHED | {"reward", "entropy", "clip_fraction", "kl_coefficient"}
    lines = (tmp_path / "out" / "curves.jsonl").read_text().splitlines()
    curves = [json.loads(line) for line in lines]
    assert all(math.isfinite(value) for point in curves for value in point.values())
    assert curves[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert "value_loss" not in curves[0]
    assert curves[-1]["kl_loss"] > 0
    newest = sorted((tmp_path / "work").glob("update-*"))[-1]
    assert {name.partition("/")[0] for name in learned_weights(newest)} == {"policy"}


def test_one_sample_a_question_has_nothing_to_be_compared_with(
    ladder_policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    alone = SMALL.model_copy(update={"samples_per_question": 1})
    with pytest.raises(ValueError, match=r"set rl\.samples_per_question to 2 or more"):
        rl_runs.run(alone, ladder_policy, ladder_evaluator, ladder_tables, tmp_path)


def test_the_token_of_a_better_step_becomes_likelier(ladder_tok: PreTrainedTokenizerFast) -> None:
    """The sign of the gradient: the loss falls if the log-probability of a token with advantage
    above 0 rises."""
    rollouts = [rollout("a", [1.0], 0.0), rollout("a", [0.0], 0.0)]
    advantages = step_level_advantages(
        rollouts, collate(rollouts, ladder_tok.pad_token_id, torch.device("cpu"))
    )
    assert (advantages[0, 2:4] > 0).all() and (advantages[1, 2:4] < 0).all()
    assert (advantages[:, 4] == 0).all()  # the end of sequence: no verdict differs
