import pytest

from e2h_pipeline.models.speed import advice, bfloat16_gain


def test_the_gain_is_measured_once() -> None:
    assert bfloat16_gain() == bfloat16_gain() > 0


@pytest.mark.parametrize(
    ("mixed", "gain", "says"),
    [
        (True, 0.2, "5.0 times slower in bfloat16"),
        (True, 4.0, ""),
        (False, 4.0, "4.0 times faster in bfloat16"),
        (False, 1.2, ""),
        (True, 0.9, ""),
    ],
)
def test_only_what_is_worth_a_change_is_said(mixed: bool, gain: float, says: str) -> None:
    assert advice(mixed, gain)[:10] == "this CPU m"[: 10 * bool(says)]
    assert says in advice(mixed, gain)
