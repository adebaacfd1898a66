import math

import numpy as np
import pytest

from e2h_pipeline.reranking.draws import random_generator, sample_counts, subsets


@pytest.mark.parametrize(("samples", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_counts_double_and_end_with_all(samples: int, counts: list[int]) -> None:
    assert sample_counts(samples) == counts


def test_seeded_subsets_have_no_repeats_and_can_be_had_again() -> None:
    first = subsets(20, 5, 30, random_generator(1, "rerank", "p", 5))
    assert first.shape == (30, 5)
    assert all(len(set(row)) == 5 for row in first.tolist())
    np.testing.assert_array_equal(first, subsets(20, 5, 30, random_generator(1, "rerank", "p", 5)))
    assert not np.array_equal(first, subsets(20, 5, 30, random_generator(1, "rerank", "q", 5)))


@pytest.mark.parametrize(("samples", "n"), [(5, 5), (100, 1), (6, 2)])
def test_few_subsets_are_all_taken(samples: int, n: int) -> None:
    found = {tuple(sorted(row)) for row in subsets(samples, n, 64, random_generator(0)).tolist()}
    assert len(found) == math.comb(samples, n)
