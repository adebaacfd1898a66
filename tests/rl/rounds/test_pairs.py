import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.grading.exact import ExactGrader
from e2h_pipeline.recipe import PreferenceRl
from e2h_pipeline.reranking.vote import vote_accuracy
from e2h_pipeline.rl.questions import Question
from e2h_pipeline.rl.rollouts import Rollout
from e2h_pipeline.rl.rounds.pairs import DROPPED, Pair, better_sides, preference_pairs, weighted_vote

EASY, HARD = Question("e", "1+2*2", "6"), Question("h", "2*3*2", None)


def _solution(
    answer: str | None, score: float, question: Question = HARD, work: str = "1+2=3", ends: bool = True
) -> Rollout:
    """A solution with this answer, or unfinished if there is none."""
    text = work if answer is None else f"{work}\n\n# Answer\n\n{answer}"
    right = None if question.answer is None else ends and answer == question.answer
    sample = Sample(0, text, tuple(text.encode()), "stop" if ends else "length", -1.0)
    return Rollout(question, (1,), sample, (0.0,) * len(text), score, 1, answer if ends else None, right)


def _pairs(
    rollouts: list[Rollout],
    per_question: int = 3,
    margin: float = 0.0,
    agrees: bool = False,
    seed: int = 1,
    iteration: int = 0,
) -> tuple[list[Pair], dict[str, int]]:
    options = PreferenceRl(per_question=per_question, margin=margin, evaluator_agrees=agrees)
    return preference_pairs(rollouts, ExactGrader().classes, options, seed, iteration)


def _told(pairs: list[Pair]) -> list[tuple[str, str]]:
    return [(p.chosen.sample.completion, p.rejected.sample.completion) for p in pairs]


def _counts(**some: int) -> dict[str, int]:
    return {"questions": 1, "pairs": 0, **dict.fromkeys(DROPPED, 0), **some}


def test_the_vote_of_hard_questions_is_told_the_question() -> None:
    """A grader of programs runs them on inputs of the question."""
    asked: list[str] = []

    def classes(answers: Sequence[Sequence[str | None]], questions: Sequence[str]) -> list[list[int | None]]:
        asked.extend(questions)
        return [[0, 1]] * len(answers)

    group = {"h": [_solution("1", 0.9), _solution("2", 0.1)], "e": [_solution("6", 0.1, EASY)]}
    assert better_sides(group, classes) == {"e": [True], "h": [True, False]}
    assert asked == [HARD.question]


# Easy questions


def test_easy_questions_put_right_over_wrong_whatever_the_evaluator_says() -> None:
    right, wrong = _solution("6", 0.1, EASY), _solution("7", 0.9, EASY)
    pairs, counts = _pairs([wrong, right])
    assert pairs == [Pair(right, wrong)]
    assert counts == _counts(pairs=1)


def test_the_paper_asks_the_evaluator_to_agree() -> None:
    right, wrong, worse = _solution("6", 0.5, EASY), _solution("7", 0.9, EASY), _solution("8", 0.4, EASY)
    pairs, counts = _pairs([right, wrong, worse], agrees=True)
    assert pairs == [Pair(right, worse)]
    assert counts == _counts(pairs=1, margin=1)


@pytest.mark.parametrize("answer", ["6", "7"])
def test_all_right_or_all_wrong_makes_no_pair(answer: str) -> None:
    pairs, counts = _pairs([_solution(answer, 0.1, EASY), _solution(answer, 0.9, EASY, "2+1=3")])
    assert pairs == []
    assert counts == _counts(one_sided=1)


# Hard questions


def test_hard_questions_put_the_vote_before_the_best_score() -> None:
    # votes: 12 has 0.6 + 0.5 = 1.1, 13 has 0.9. So 12 wins although 13 has the best score, and no
    # pair of 12 over 13 has the margin. Both pairs of 12 over no answer have it: 0.6 - 0.2 and 0.5
    # - 0.2.
    first, second = _solution("12", 0.6, work="a"), _solution("12", 0.5, work="b")
    best, none = _solution("13", 0.9), _solution(None, 0.2)
    pairs, counts = _pairs([best, first, none, second])
    assert sorted(_told(pairs)) == sorted(_told([Pair(first, none), Pair(second, none)]))
    assert counts == _counts(pairs=2, margin=2)


def test_scores_too_close_are_dropped() -> None:
    # 0.75 - 0.25 = 0.5 is not more than 0.5; 0.75 - 0.125 is
    group = [_solution("12", 0.75), _solution("13", 0.25), _solution("14", 0.125)]
    pairs, counts = _pairs(group, margin=0.5)
    assert pairs == [Pair(group[0], group[2])]
    assert counts == _counts(pairs=1, margin=1)


@pytest.mark.parametrize(
    "group",
    [
        [_solution("12", 0.5), _solution("13", 0.5)],
        [_solution("12", 0.0), _solution("13", 0.0)],
        [_solution(None, 0.9), _solution(None, 0.1, work="b")],
    ],
    ids=["tie", "no weight", "no answer"],
)
def test_a_vote_without_a_winner_makes_no_pair(group: list[Rollout]) -> None:
    assert _pairs(group) == ([], _counts(no_winner=1))


def test_an_unfinished_solution_has_no_vote_and_can_be_rejected() -> None:
    finished, cut = _solution("12", 0.4), _solution("13", 0.3, work="b", ends=False)
    assert _pairs([cut, finished])[0] == [Pair(finished, cut)]


NUMBERS = st.lists(st.tuples(st.sampled_from([None, 0, 1, 2]), st.floats(0.01, 1)), min_size=1, max_size=9)


@settings(deadline=None)
@given(NUMBERS)
def test_the_winner_wins_the_vote_that_reranking_counts(voters: list[tuple[int | None, float]]) -> None:
    classes, weights = [c for c, _ in voters], [w for _, w in voters]
    winner = weighted_vote(classes, weights)
    found = np.array([-1 if c is None else c for c in classes])
    shares = [
        vote_accuracy(np.arange(len(found))[None], found, found == label, np.log([weights]))[0]
        for label in range(3)
    ]
    assert [share == 1 for share in shares] == [label == winner for label in range(3)]


def test_the_vote_by_hand() -> None:
    assert weighted_vote([0, 0, 1, None], [0.3, 0.3, 0.5, 9.0]) == 0
    assert weighted_vote([0, 0, 1], [0.1, 0.2, 0.3]) is None  # 0.1 + 0.2 differs from 0.3 by rounding only
    assert weighted_vote([], []) is None


# Caps, repetitions, draws


def test_equal_texts_are_no_pair_and_a_pair_comes_once() -> None:
    right, wrong = _solution("6", 0.8, EASY), _solution("7", 0.2, EASY)
    cut = _solution("6", 0.8, EASY, ends=False)  # the same text, cut off at the limit
    pairs, counts = _pairs([right, wrong, right, cut])
    assert sorted(_told(pairs)) == _told([Pair(right, wrong)])
    assert counts == _counts(pairs=1, repeated=1, equal_texts=2)


def test_no_more_than_the_cap_and_another_iteration_draws_others() -> None:
    group = [_solution(answer, 0.5, EASY, work) for work in "abcde" for answer in ("6", "7")]
    drawn = [_told(_pairs(group, per_question=2, iteration=i)[0]) for i in range(9)]
    assert all(len(set(pairs)) == 2 for pairs in drawn)
    assert len({tuple(pairs) for pairs in drawn}) > 3
    assert _pairs(group, per_question=2)[1] == _counts(pairs=2, over_cap=23)
    assert _told(_pairs(group, seed=2)[0]) != _told(_pairs(group, seed=3)[0])


QUESTIONS = [EASY, HARD, Question("e2", "4-1", "3"), Question("h2", "4-2", None)]
SOLUTIONS = st.lists(
    st.builds(
        _solution,
        st.sampled_from(["6", "3", "7", None]),
        st.sampled_from([0.0, 0.2, 0.5, 0.9]),
        st.sampled_from(QUESTIONS),
        st.sampled_from(["a", "b"]),
        st.booleans(),
    ),
    max_size=24,
)


@settings(deadline=None)
@given(SOLUTIONS, st.integers(1, 4), st.sampled_from([0.0, 0.3]), st.booleans(), st.integers(0, 9))
def test_every_pair_keeps_the_rules(
    rollouts: list[Rollout], cap: int, margin: float, agrees: bool, seed: int
) -> None:
    pairs, counts = _pairs(rollouts, cap, margin, agrees, seed)
    for pair in pairs:
        gap = pair.chosen.evaluator_score - pair.rejected.evaluator_score
        assert pair.chosen.question == pair.rejected.question
        assert pair.chosen.sample.completion != pair.rejected.sample.completion
        assert pair.chosen.answer is not None
        if pair.chosen.question.answer is None:
            assert gap > margin
        else:
            assert (pair.chosen.right, pair.rejected.right) == (True, False)
            assert not agrees or gap > 0
    for question in QUESTIONS:
        told = _told([pair for pair in pairs if pair.chosen.question == question])
        assert len(told) == len(set(told)) <= cap
    assert counts["pairs"] == len(pairs)
    assert counts["questions"] == len({r.question.problem_id for r in rollouts})


@settings(deadline=None)
@given(SOLUTIONS, st.randoms(use_true_random=False))
def test_order_has_no_say(rollouts: list[Rollout], shuffler: random.Random) -> None:
    """Scores belong to texts, as with an evaluator; then pairs depend only on the set of
    solutions."""
    scores = {r.sample.completion: r.evaluator_score for r in rollouts}
    group = [
        Rollout(
            r.question, r.prompt_ids, r.sample, r.rewards, scores[r.sample.completion], 1, r.answer, r.right
        )
        for r in rollouts
    ]
    shuffled = shuffler.sample(group, len(group))
    pairs, counts = _pairs(group)
    others, other_counts = _pairs(shuffled)
    assert sorted(_told(pairs)) == sorted(_told(others))
    assert counts == other_counts
