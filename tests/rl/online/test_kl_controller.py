import json
from pathlib import Path

import pytest
import rl_runs
from pydantic import ValidationError

from e2h_pipeline.recipe import OnlineRl
from e2h_pipeline.rl.online.kl_controller import next_coefficient

OPTIONS = OnlineRl(kl_target=0.1, kl_horizon=1000)


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (0.11, 0.0502),  # e = 0.1, 40 of 1000 rollouts: x 1.004
        (0.1, 0.05),
        (0.09, 0.0498),
        (5.0, 0.0504),  # e is clipped to 0.2: x 1.008
        (-0.01, 0.0496),  # a k1 mean can be negative; e is clipped to -0.2
    ],
)
def test_the_next_coefficient_by_hand(kl: float, expected: float) -> None:
    assert next_coefficient(0.05, kl, 40, OPTIONS) == pytest.approx(expected)


def test_without_a_target_it_stays() -> None:
    assert next_coefficient(0.05, 3.0, 512, OnlineRl()) == 0.05


@pytest.mark.parametrize("wrong", [{"kl": 0.0}, {"rollouts": 20_000}], ids=["of nothing", "below 0"])
def test_a_controller_that_could_not_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="kl_target needs"):
        OnlineRl.model_validate({"kl_target": 0.1, **wrong})


@pytest.mark.parametrize("small", [rl_runs.PPO, rl_runs.GRPO], ids=["ppo", "grpo"])
def test_a_run_moves_its_coefficient_and_learns_with_it(
    small: OnlineRl, ladder_policy: Path, ladder_evaluator: Path, ladder_tables: Path, tmp_path: Path
) -> None:
    """KL is 0 at first, below any target: the second update learns with a fifth less, and so on."""
    target, epochs = 0.001, 2
    fixed = small.model_copy(update={"kl": 0.5, "max_new_tokens": 12, "updates": 3, "epochs": epochs})
    moved = fixed.model_copy(update={"kl_target": target, "kl_horizon": fixed.rollouts})
    weights, curves = [], []
    for name, options in (("fixed", fixed), ("moved", moved)):
        folder = tmp_path / name
        rl_runs.run(options, ladder_policy, ladder_evaluator, ladder_tables, folder)
        weights.append((folder / "work" / "update-000003" / "policy" / "model.safetensors").read_bytes())
        lines = (folder / "out" / "curves.jsonl").read_text().splitlines()
        curves.append([json.loads(line) for line in lines])
    assert [point["kl_coefficient"] for point in curves[0]] == [0.5, 0.5, 0.5]
    first, second, third = curves[1]
    assert [first["kl_coefficient"], second["kl_coefficient"]] == pytest.approx([0.5, 0.4])
    error = min(max(second["kl"] / target - 1, -0.2), 0.2)
    assert error != 0
    assert third["kl_coefficient"] == pytest.approx(0.4 * (1 + error))
    assert weights[0] != weights[1]
