import pytest

from e2h_pipeline.evaluation.pgr import GapRecovered, gap_recovered_rows


@pytest.mark.parametrize(
    ("weak", "accuracy", "ceiling", "expected"), [(56.6, 61.9, 64.5, 0.6709), (56.6, 66.6, 74.0, 0.5747)]
)
def test_worked_numbers(weak: float, accuracy: float, ceiling: float, expected: float) -> None:
    assert GapRecovered(weak, accuracy, ceiling).value == pytest.approx(expected, abs=5e-5)


def test_no_gap_has_no_share() -> None:
    assert GapRecovered(0.5, 0.6, 0.5).value is None
    assert GapRecovered(0.5, 0.6, 0.4).value is None


def row(policy: str, method: str, accuracy: float, levels: str = "hard", n: int = 1) -> dict[str, object]:
    names = {"benchmark": "LADDER500", "policy": policy, "method": method, "evaluator": "", "aggregation": ""}
    return {**names, "n": n, "levels": levels, "accuracy": accuracy}


def test_rows_carry_all_three_accuracies() -> None:
    rows = [row("sft", "greedy", 0.2), row("rl", "greedy", 0.3), row("rl", "majority", 0.35, n=16)]
    ceiling = [row("sft", "greedy", 0.4), row("rl", "greedy", 0.6), row("rl", "greedy", 0.7, "easy")]
    found = gap_recovered_rows(rows, ceiling)
    assert [(r["policy"], r["weak"], r["accuracy"], r["ceiling"]) for r in found] == [
        ("sft", 0.2, 0.2, 0.4),
        ("rl", 0.2, 0.3, 0.6),
    ]
    assert [r["pgr"] for r in found] == pytest.approx([0.0, 0.25])
