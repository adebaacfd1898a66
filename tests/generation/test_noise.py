import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.generation.noise import stream_key, uniforms

SEEDS = st.integers(0, 2**31)


def _draws(keys: list[int], samples: list[int], position: int = 0) -> np.ndarray:
    return uniforms(np.array(keys, np.uint64), np.array(samples, np.int64), position)


def _distance_to_uniform(draws: np.ndarray) -> float:
    """Kolmogorov-Smirnov statistic against U[0, 1)."""
    ordered = np.sort(draws)
    grid = np.arange(len(ordered) + 1) / len(ordered)
    return float(max((grid[1:] - ordered).max(), (ordered - grid[:-1]).max()))


def test_draws_are_uniform_along_each_axis() -> None:
    n = 20_000
    key = stream_key(0, "stage", "p")
    over_samples = _draws([key] * n, list(range(n)))
    over_problems = _draws([stream_key(0, "stage", str(i)) for i in range(n)], [0] * n)
    positions = np.arange(n)
    over_positions = uniforms(np.full(n, key, np.uint64), np.zeros(n, np.int64), positions)
    for draws in (over_samples, over_problems, over_positions):
        assert draws.min() >= 0
        assert draws.max() < 1
        assert _distance_to_uniform(draws) < 1.63 / n**0.5  # 1% critical value


def test_neighbours_are_uncorrelated() -> None:
    n = 20_000
    key = stream_key(1, "stage", "p")
    grid = np.stack([_draws([key] * n, list(range(n)), position) for position in range(3)])
    for other in (np.roll(grid[0], 1), grid[1], grid[2]):
        assert abs(np.corrcoef(grid[0], other)[0, 1]) < 4 / n**0.5


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 10**6)), min_size=1, max_size=20), SEEDS)
def test_a_draw_is_a_pure_function_of_what_is_drawn(rows: list[tuple[int, int]], position: int) -> None:
    keys, samples = [k for k, _ in rows], [s for _, s in rows]
    together = _draws(keys, samples, position)
    alone = [_draws([k], [s], position)[0] for k, s in rows]
    assert together.tolist() == alone


def test_every_part_of_the_name_counts() -> None:
    names = [(s, stage, p) for s in range(5) for stage in ("a", "b") for p in ("", "x", "y", "1")]
    assert len({stream_key(*name) for name in names}) == len(names)
    assert stream_key(1, "1", "") != stream_key(11, "", "")
    assert stream_key(0, "ab", "c") != stream_key(0, "a", "bc")


def test_draws_are_the_same_on_every_machine() -> None:
    """Every sample pool depends on these numbers; here they are computed again in plain Python."""
    mask = 2**64 - 1

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    key, step = stream_key(3, "benchmark_samples", "test/algebra/1"), 0x9E3779B97F4A7C15
    for sample, position in [(0, 0), (5, 2), (255, 767)]:
        inner = mix((key + step * (sample + 1)) & mask)
        expected = (mix((inner + step * (position + 1)) & mask) >> 11) / 2**53
        assert _draws([key], [sample], position)[0] == expected
