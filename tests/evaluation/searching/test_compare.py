"""Answers from searched pools, and their comparison at equal compute, with worked numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.evaluation.searching.compare import Answer, Comparison, Setting, optimal
from e2h_pipeline.evaluation.searching.pools import BEST, GREEDY, INDEPENDENT, MAJORITY, WEIGHTED, Pool
from e2h_pipeline.reranking.vote import best_of_n, subset_shares
from e2h_pipeline.statistics.bootstrap import Bootstrap

SETTING = Setting("B", "exact/1", "sft", "easy_prm", (1,), Bootstrap(200), (2, 6))


def pool(
    classes: list[list[int]],
    right: int = 0,
    scores: list[list[float]] | None = None,
    *,
    name: str = "dvts",
    levels: tuple[int, ...] = (1, 2),
    together: int = 1,
    drawn: float = 10.0,
    read: float = float("nan"),
) -> Pool:
    """Problems with answers by class; class `right` is right. A sample has 5 tokens of its own."""
    made = np.array(classes)
    logs = np.log(np.array(scores)) if scores is not None else np.zeros(made.shape)
    return Pool(
        name,
        together,
        tuple(f"p{i}" for i in range(len(made))),
        np.array(levels),
        made,
        made == right,
        {WEIGHTED: logs, BEST: logs},
        {WEIGHTED: "product", BEST: "min"},
        np.full(made.shape, drawn),
        np.full(made.shape, read),
        np.full(made.shape, 5.0),
    )


def test_votes_are_means_over_disjoint_blocks() -> None:
    """Of 2: the blocks (0, 1) and (2, 3). A tie of two classes counts half."""
    some = pool([[0, 1, 0, 0], [1, 1, -1, 0]])
    np.testing.assert_allclose(some.accuracy(MAJORITY, 2), [0.75, 0.5])
    np.testing.assert_allclose(some.accuracy(MAJORITY, 4), [1.0, 0.0])
    np.testing.assert_allclose(some.accuracy(MAJORITY, 1), [0.75, 0.25])
    weighted = pool([[0, 1, 1, 0]], scores=[[0.9, 0.2, 0.2, 0.1]], levels=(1,))
    np.testing.assert_allclose(weighted.accuracy(WEIGHTED, 4), [1.0])
    np.testing.assert_allclose(weighted.accuracy(WEIGHTED, 2), [0.5])


def test_the_best_has_an_answer_and_shares_ties() -> None:
    some = pool([[-1, 0, 1, 1]], scores=[[0.9, 0.5, 0.5, 0.1]], levels=(1,))
    np.testing.assert_allclose(some.accuracy(BEST, 4), [0.5])
    np.testing.assert_allclose(some.accuracy(BEST, 2), [0.5])  # 0 beats no answer; then 1 wins
    np.testing.assert_allclose(some.best_score(4), [0.5])
    np.testing.assert_allclose(some.best_score(2), [0.5])


@given(st.lists(st.tuples(st.integers(-1, 2), st.floats(0.01, 1.0)), min_size=1, max_size=12))
def test_the_best_of_all_is_best_of_n(samples: list[tuple[int, float]]) -> None:
    """One block of all samples is the reranking's own best-of-N at N = M."""
    classes, scores = [c for c, _ in samples], [s for _, s in samples]
    some = pool([classes], scores=[scores], levels=(1,))
    usable = np.where(np.array(classes) >= 0, np.log(scores), -np.inf)
    expected = best_of_n(usable, np.array(classes) == 0, subset_shares(len(samples), [len(samples)]))
    np.testing.assert_allclose(some.accuracy(BEST, len(samples)), expected)


def test_blocks_are_whole_searches_and_a_search_has_read_its_samples() -> None:
    beams = pool([[0] * 12] * 2, together=3, drawn=20.0, read=7.0)
    assert beams.counts() == [3, 6, 12]
    for rule in (MAJORITY, WEIGHTED):
        assert [t.tolist() for t in beams.cost(rule, 6)] == [[120.0] * 2, [42.0] * 2]
    plain = pool([[0] * 4] * 2)
    assert [t.tolist() for t in plain.cost(MAJORITY, 4)] == [[40.0] * 2, [0.0] * 2]
    assert [t.tolist() for t in plain.cost(BEST, 4)] == [[40.0] * 2, [20.0] * 2]


def comparison(**searched: Pool) -> Comparison:
    return Comparison({one.name: one for one in searched.values()}, SETTING)


def test_equal_compute_is_found_level_by_level() -> None:
    """A search costs 20 + 7 tokens; an independent sample 10, and 5 more where it is read."""
    plain = pool([[0, 1, 1, 1], [1, 0, 0, 0]], name=INDEPENDENT)
    search = pool([[0, 0], [0, 0]], drawn=20.0, read=7.0)
    both = comparison(a=plain, b=search)
    values, counts = both.matched(Answer("dvts", WEIGHTED, 1), MAJORITY, "tokens")
    assert counts.tolist() == [2, 2]  # 27 tokens buy 2 samples of 10
    np.testing.assert_allclose(values, [0.25, 0.75])  # blocks (0, 1): a tie; (2, 3): one class
    _, counts = both.matched(Answer("dvts", WEIGHTED, 1), WEIGHTED, "tokens")
    assert counts.tolist() == [1, 1]
    _, counts = both.matched(Answer("dvts", WEIGHTED, 2), MAJORITY, "flops")
    assert counts.tolist() == [4, 4]  # 80 + 84 FLOPs buy 8 of 20: there are 4
    uneven = pool([[0, 0], [0, 0]], read=0.0)
    uneven.drawn[1] = 40.0
    _, counts = comparison(a=plain, b=uneven).matched(Answer("dvts", MAJORITY, 1), MAJORITY, "tokens")
    assert counts.tolist() == [1, 4]


def test_differences_are_paired_and_say_what_they_are_at() -> None:
    plain = pool([[1, 1, 1, 1], [0, 0, 0, 0]], name=INDEPENDENT)
    greedy = pool([[1], [0]], name=GREEDY, drawn=5.0)
    search = pool([[0, 0], [0, 0]], drawn=20.0, read=0.0)
    rows = comparison(a=greedy, b=plain, c=search).differences()
    found = {
        (r["first"], r["second"], r["n"], r["at_equal"], r["levels"]): (r["difference"], r["second_n"])
        for r in rows
    }
    assert found["dvts majority", "independent majority", 2, "tokens", "easy"] == (1.0, 4.0)
    assert found["dvts majority", "independent majority", 2, "tokens", "hard"] == (0.0, 4.0)
    assert found["dvts best-of-n", "independent weighted-vote", 1, "flops", "all"] == (0.5, 1.0)
    assert found["dvts majority", "greedy", 1, "", "all"] == (0.5, 1.0)


def test_what_is_optimal_is_chosen_on_validation_and_hard_levels_take_the_hardest_easy_one() -> None:
    """On the benchmark majority would be better; validation says best-of-n, and it is kept."""
    good, bad = [0.9, 0.1], [0.1, 0.9]
    wrong = pool([[1, 1], [1, 1]], name=INDEPENDENT)
    validation = comparison(
        a=wrong, b=pool([[0, 1]] * 2, scores=[good] * 2, levels=(1, 2), read=0.0, drawn=5.0)
    )
    bench = comparison(
        a=pool([[1, 1]] * 3, name=INDEPENDENT, levels=(1, 2, 3)),
        b=pool([[0, 1]] * 3, scores=[good, bad, bad], levels=(1, 2, 3), read=0.0, drawn=5.0),
    )
    rows = {(row["budget"], row["levels"]): row for row in optimal(validation, bench)}
    assert sorted({budget for budget, _ in rows}) == [15.0, 30.0]
    for group, accuracy in (("1", 1.0), ("2", 0.0), ("3", 0.0)):
        row = rows[15.0, group]
        assert (row["chosen"], row["accuracy"], row["tokens"]) == ("dvts weighted-vote n=2", accuracy, 10.0)
    assert rows[15.0, "1"]["difference"] == 1.0


def test_search_that_exploits_the_evaluator_is_told() -> None:
    """The best of 2 is always wrong and scored higher than the one sample, which is right."""
    exploiting = pool([[0, 1]] * 40, scores=[[0.5, 0.9]] * 40, levels=(1, 2) * 20)
    honest = pool([[1, 0]] * 40, scores=[[0.5, 0.9]] * 40, levels=(1, 2) * 20, name=INDEPENDENT)
    rows = comparison(a=honest, b=exploiting).exploited()
    assert {(row["method"], row["n"], row["levels"]) for row in rows if row["falls"]} == {
        ("dvts", 2, group) for group in ("1", "2", "easy", "hard", "all")
    }
    told = next(row for row in rows if (row["method"], row["n"], row["levels"]) == ("dvts", 2, "all"))
    assert (told["score"], told["accuracy"]) == (pytest.approx(0.9), 0.0)


def test_accuracy_and_cost_of_every_answer() -> None:
    plain = pool([[0, 1], [0, 0]], name=INDEPENDENT)
    rows = comparison(a=plain).metrics()
    assert {(row["method"], row["n"]) for row in rows} == {
        (f"independent {rule}", n) for rule in (MAJORITY, WEIGHTED, BEST) for n in (1, 2)
    }
    row = next(
        r for r in rows if (r["method"], r["n"], r["levels"]) == ("independent weighted-vote", 2, "all")
    )
    assert (row["tokens"], row["drawn_tokens"], row["read_tokens"], row["flops"]) == (30, 20, 10, 100)
    assert row["evaluator"] == "easy_prm" and row["aggregation"] == "product"
    assert all(r["evaluator"] == "" for r in rows if r["method"] == "independent majority")
