"""Ranks: each item has one owner, and all hear the same."""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest import mock

import pytest
import torch
from gloo_ranks import in_ranks
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.rl import ranks

COSTS = st.lists(st.integers(0, 50), max_size=40)


@given(COSTS, st.integers(1, 5))
def test_every_item_has_one_owner_and_the_load_is_even(costs: list[int], count: int) -> None:
    shares = [_share(costs, rank, count) for rank in range(count)]
    assert sorted(place for own in shares for place in own) == list(range(len(costs)))
    loads = [sum(costs[place] for place in own) for own in shares]
    assert max(loads) - min(loads) <= max(costs, default=0)


def _share(costs: list[int], rank: int, count: int) -> list[int]:
    with (
        mock.patch.dict(os.environ, {"WORLD_SIZE": str(count)}),
        mock.patch.object(ranks, "rank", lambda: rank),
    ):
        return ranks.share(costs)


def test_one_process_needs_no_group() -> None:
    with ranks.together():
        assert not torch.distributed.is_initialized()
    assert ranks.share([3, 1, 2]) == [0, 1, 2]
    assert ranks.gather({0: "a", 1: "b"}, 2) == ["a", "b"]
    assert ranks.told(lambda: {"x": 1}) == ranks.alone(lambda: {"x": 1}) == {"x": 1}
    assert ranks.largest(7) == 7


def _what_one_process_may_call() -> list[object]:
    ranks.sum_up([torch.ones(1)])
    ranks.wait()
    return [ranks.share([3, 1, 2]), ranks.told(lambda: "told"), ranks.largest(7)]


def test_rank_0_may_take_hours_alone() -> None:
    def work() -> None:
        with ranks.together():
            assert ranks.alone(_what_one_process_may_call) == [[0, 1, 2], "told", 7]
            assert ranks.gather({ranks.rank(): ranks.rank()}, 2) == [0, 1]
            assert ranks._patient is not None
            backend = ranks._patient._get_backend(torch.device("cpu"))
            assert backend.options._timeout.days > 1

    assert in_ranks(2, work) == [0, 0]


def test_a_list_that_is_not_the_same_on_all_ranks_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="did 1 of 2 items"):
        ranks.gather({1: "b"}, 2)


def test_three_ranks_agree(tmp_path: Path) -> None:
    """Texts of other lengths, an empty share, sums in several buckets."""

    def work() -> None:
        with ranks.together():
            rank = ranks.rank()
            own = {place: f"é{place}" * place for place in ranks.share([9, 1])}
            tensors = [torch.full((2, 3), float(rank)), torch.ones(4), torch.ones(1, dtype=torch.double)]
            with mock.patch.object(ranks, "_BUCKET", 6):
                ranks.sum_up(tensors)
            found = {
                "gathered": ranks.gather(own, 2),
                "told": ranks.told(lambda: [None, 1.5] if rank == 0 else 1 / 0),
                "largest": ranks.largest(10 - rank),
                "sums": [tensor.tolist() for tensor in tensors],
            }
            ranks.wait()
        (tmp_path / str(rank)).write_text(json.dumps(found))

    assert in_ranks(3, work) == [0, 0, 0]
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(3)]
    assert found[0] == found[1] == found[2]
    assert found[0] == {
        "gathered": ["", "é1"],
        "told": [None, 1.5],
        "largest": 10,
        "sums": [[[3.0] * 3] * 2, [3.0] * 4, [3.0]],
    }


def test_a_dead_rank_is_an_error_for_the_others() -> None:
    def work() -> None:
        with ranks.together():
            ranks.wait()
            if ranks.rank() == 1:
                os._exit(3)
            ranks.wait()

    assert in_ranks(2, work) == [1, 3]
