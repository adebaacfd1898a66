import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.recipe import Curriculum, OnlineRl
from e2h_pipeline.rl.curricula import (
    LEVEL_SHARES,
    State,
    by_progress,
    draw_questions,
    easy_to_hard,
    learning_progress,
    observe,
    progress_weights,
    stretch,
    successes,
)
from e2h_pipeline.rl.questions import Question
from e2h_pipeline.rl.rollouts import Rollout

LP = Curriculum(kind="learning_progress")


def _questions(*sizes: int) -> list[Question]:
    """Given numbers of questions of levels 1, 2, ...; levels 4 and 5 have no answers."""
    return [
        Question(f"{level}/{i}", f"q{i}", "1" if level < 4 else None, level=level)
        for level, size in enumerate(sizes, 1)
        for i in range(size)
    ]


def _rollout(level: int, right: bool | None, score: float = 0.0) -> Rollout:
    question = Question("p", "q", None if right is None else "1", level=level)
    return Rollout(question, (1,), Sample(0, "", (1,), "stop", 0.0), (0.0,), score, 1, "1", right)


def _options(curriculum: Curriculum, wanted: int = 8, updates: int = 100) -> OnlineRl:
    return OnlineRl(rollouts=2 * wanted, samples_per_question=2, updates=updates, curriculum=curriculum)


# Draws


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 12), st.integers(0, 3))
def test_uniform_draws_every_question_equally_often(
    questions: int, wanted: int, updates: int, seed: int
) -> None:
    pool, options = _questions(questions), _options(Curriculum(), wanted)
    drawn = [draw_questions(pool, options, {}, seed, update)[0] for update in range(updates)]
    assert all(len(each) == wanted for each in drawn)
    counts = Counter(q.problem_id for each in drawn for q in each)
    assert max(counts.values()) - min(counts.get(q.problem_id, 0) for q in pool) <= 1
    # A draw does not depend on earlier draws.
    assert draw_questions(pool, options, {}, seed, updates - 1)[0] == drawn[-1]


@pytest.mark.parametrize("kind", ["uniform", "easy_to_hard", "learning_progress"])
def test_passes_and_seeds_have_their_own_order(kind: str) -> None:
    pool, options = _questions(30), _options(Curriculum.model_validate({"kind": kind}), wanted=30)
    first, state = draw_questions(pool, options, {}, 0, 0)
    second, _ = draw_questions(pool, options, state, 0, 1)
    assert Counter(first) == Counter(second) == Counter(pool)
    assert first != second
    assert draw_questions(pool, options, {}, 1, 0)[0] != first


@settings(deadline=None)
@given(
    st.sampled_from(["easy_to_hard", "learning_progress"]),
    st.lists(st.integers(1, 7), min_size=1, max_size=5),
    st.integers(1, 9),
    st.integers(0, 3),
)
def test_within_a_level_every_question_is_drawn_equally_often(
    kind: str, sizes: list[int], wanted: int, seed: int
) -> None:
    pool, options = _questions(*sizes), _options(Curriculum.model_validate({"kind": kind}), wanted, updates=8)
    state: State = {}
    counts: Counter[Question] = Counter()
    for update in range(8):
        drawn, state = draw_questions(pool, options, state, seed, update)
        assert len(drawn) == wanted
        counts.update(drawn)
    for level in range(1, len(sizes) + 1):
        seen = [counts[q] for q in pool if q.level == level]
        assert max(seen) - min(seen) <= 1
        assert sum(seen) == state.get(str(level), {}).get("drawn", 0)


def test_a_run_restored_from_json_draws_as_if_it_had_never_stopped() -> None:
    pool, options = _questions(5, 5, 5, 5, 5), _options(LP)

    def run(state: State, first: int, last: int) -> tuple[list[list[Question]], State]:
        draws = []
        for update in range(first, last):
            drawn, state = draw_questions(pool, options, state, 3, update)
            rollouts = [
                _rollout(q.level, None if q.answer is None else (update + q.level) % 3 == 0, update / 40)
                for q in drawn
            ]
            state = observe(state, rollouts, options)
            draws.append(drawn)
        return draws, state

    whole, end = run({}, 0, 20)
    _, saved = run({}, 0, 7)
    kept = json.dumps(saved)
    rest, again = run(json.loads(kept), 7, 20)
    assert rest == whole[7:]
    assert again == end
    assert json.dumps(saved) == kept  # states are never modified, only replaced


def test_levels_get_their_shares_over_updates() -> None:
    pool, options = _questions(10, 20, 30), _options(Curriculum(kind="easy_to_hard", entered_by=0), wanted=7)
    state: State = {}
    for update in range(60):
        before = {level: state.get(level, {}).get("drawn", 0) for level in "123"}
        _, state = draw_questions(pool, options, state, 0, update)
        for level, share in zip("123", (1 / 6, 2 / 6, 3 / 6), strict=True):
            assert abs(state[level]["drawn"] - before[level] - 7 * share) < 1
    for level, share in zip("123", (1 / 6, 2 / 6, 3 / 6), strict=True):
        assert state[level]["drawn"] / 420 == pytest.approx(share, abs=0.03)


# Easy to hard


def test_levels_enter_in_order() -> None:
    sizes = {5: 30, 1: 10, 3: 20}
    options = _options(Curriculum(kind="easy_to_hard", entered_by=0.5), updates=80)
    shares = [easy_to_hard(sizes, options, {}, update) for update in range(80)]
    assert shares[0] == shares[19] == {1: 1.0}
    assert shares[20] == shares[39] == pytest.approx({1: 1 / 3, 3: 2 / 3})  # by their numbers of questions
    assert shares[40] == shares[79] == pytest.approx({1: 1 / 6, 3: 2 / 6, 5: 3 / 6})


# Learning progress


def test_stretch_by_hand() -> None:
    assert [stretch(p, 0.1) for p in (0, 0.01, 0.1, 0.2, 0.9, 1)] == pytest.approx(
        [0, 0.08333, 0.5, 0.69231, 0.98780, 1], abs=1e-5
    )


def test_progress_after_a_leap_by_hand() -> None:
    """From 0 to 1 at once: the first fast average is .1, the slow .01, so f(.1) - f(.01) = .5 -
    .08333."""
    options, state = _options(LP), observe({}, [_rollout(1, False)], _options(LP))
    assert learning_progress(state["1"], LP) == 0
    found = []
    for _ in range(30):
        state = observe(state, [_rollout(1, True)], options)
        found.append(learning_progress(state["1"], LP))
    assert [found[k - 1] for k in (1, 5, 10, 20, 30)] == pytest.approx(
        [0.417, 0.325, 0.148, 0.045, 0.017], abs=1e-3
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_forgetting_counts_and_averages_stay_between_0_and_1(scores: list[float]) -> None:
    state: State = {}
    for score in scores:
        state = observe(state, [_rollout(5, None, score)], _options(LP))
        assert 0 <= state["5"]["fast"] <= 1
        assert 0 <= state["5"]["slow"] <= 1
        assert 0 <= learning_progress(state["5"], LP) <= 1


def test_losing_a_level_is_progress_too() -> None:
    state: State = {"1": {"fast": 0.1, "slow": 0.5}}
    assert learning_progress(state["1"], LP) == pytest.approx(0.4)  # |.5 - .9|


def test_success_is_what_supervision_allows() -> None:
    rollouts = [
        _rollout(2, True, 0.1),
        _rollout(2, True, 0.1),
        _rollout(2, False, 0.9),
        _rollout(2, True, 0.9),
        _rollout(1, False, 1.0),
        _rollout(5, None, 0.3),
        _rollout(5, None, 0.6),
    ]
    assert successes(rollouts, 0.0) == pytest.approx({1: 0.0, 2: 0.75, 5: 0.45})
    # Guessing gets half: (.75 - .5) / .5; an evaluator's score is not a guess
    assert successes(rollouts, 0.5) == pytest.approx({1: 0.0, 2: 0.5, 5: 0.45})


def test_weights_by_hand() -> None:
    """Of .1, .2, .3 the z-scores are -1.22474, 0, 1.22474; their sigmoids .22710, .5, .77290 sum to
    1.5."""
    weights = progress_weights({1: 0.1, 2: 0.0, 3: 0.2, 4: 0.3})
    assert weights == pytest.approx({1: 0.15140, 3: 0.33333, 4: 0.51527}, abs=1e-5)
    assert progress_weights({1: 0.0, 2: 0.0}) == {}
    assert progress_weights({1: 0.0, 2: 0.4}) == {2: 1.0}
    assert progress_weights({1: 0.4, 2: 0.4}) == {1: 0.5, 2: 0.5}


def test_shares_are_mixed_with_a_uniform_part() -> None:
    sizes = {1: 10, 2: 10, 3: 20}
    state: State = {"2": {"fast": 0.1, "slow": 0.2}, "3": {"fast": 0.3, "slow": 0.3}}
    shares = by_progress(sizes, _options(LP), state, 50)
    assert shares == pytest.approx({1: 0.0625, 2: 0.75 + 0.0625, 3: 0.125})
    alone = _options(Curriculum(kind="learning_progress", uniform=0))
    assert by_progress(sizes, alone, state, 50) == {2: 1.0}


def test_where_nothing_moves_all_questions_are_alike() -> None:
    """At the start, and always if success does not change."""
    sizes, options, state = {1: 10, 5: 30}, _options(LP), State()
    for _ in range(5):
        assert by_progress(sizes, options, state, 0) == pytest.approx({1: 0.25, 5: 0.75})
        state = observe(state, [_rollout(1, True), _rollout(5, None, 0.4)], options)


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(1, 5), st.integers(1, 50), min_size=1),
    st.dictionaries(st.integers(1, 5), st.tuples(st.floats(0, 1), st.floats(0, 1))),
    st.sampled_from(sorted(LEVEL_SHARES)),
    st.integers(0, 99),
)
def test_shares_sum_to_one(
    sizes: dict[int, int], averages: dict[int, tuple[float, float]], kind: str, update: int
) -> None:
    state: State = {str(level): {"fast": fast, "slow": slow} for level, (fast, slow) in averages.items()}
    shares = LEVEL_SHARES[kind](sizes, _options(Curriculum.model_validate({"kind": kind})), state, update)
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) <= set(sizes)
    assert all(share > 0 for share in shares.values())


def test_progress_peaks_at_the_frontier() -> None:
    """A simulated learner: it learns a level by drawing it, after the level below."""
    pool, options, state = _questions(*[20] * 5), _options(LP, wanted=40), State()
    skill = [0.0] * 5
    frontiers: list[int] = []
    for update in range(100):
        drawn, state = draw_questions(pool, options, state, 0, update)
        counts = Counter(q.level for q in drawn)
        for level in range(5):
            known = skill[level - 1] if level else 1.0
            skill[level] += 0.01 * counts[level + 1] * max(known - 0.5, 0) * (1 - skill[level])
        rollouts = [_rollout(q.level, None, skill[q.level - 1]) for q in drawn]
        state = observe(state, rollouts, options)
        progress = {level: learning_progress(state.get(str(level), {}), LP) for level in range(1, 6)}
        frontiers.append(max(progress, key=lambda level: progress[level]))
    assert frontiers == sorted(frontiers)
    assert set(frontiers) == {1, 2, 3, 4, 5}


def test_uniform_and_easy_to_hard_measure_nothing() -> None:
    assert observe({}, [_rollout(1, True)], _options(Curriculum())) == {}
