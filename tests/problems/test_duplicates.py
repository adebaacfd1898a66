"""Problems that are kept out of their part because of another part, and what is listed."""

import pytest

from e2h_pipeline.problems.duplicates import duplicate_groups, duplicate_report, kept_out, templates
from e2h_pipeline.problems.records import Problem, ProblemPool, split_by_supervision
from e2h_pipeline.recipe import MathProblems


def problem(name: str, question: str, level: int = 1) -> Problem:
    return Problem(name, level, "Algebra", question, (), "0")


HARD = problem("hard", "Find the greatest prime factor of $2^{16} - 1$.", 5)
BENCHMARK = problem("bench", "How many positive divisors does $72$ have?", 3)
EASY = [
    problem("own", "What is $3 + 4$?"),
    problem("own too", "What is $5 + 4$?"),
    problem("template", "How many positive divisors does $96$ have?"),
    problem("copy", "how many positive divisors does 72 have"),
    problem("word", "Determine the greatest prime factor of $2^{16}-1$."),
]


def test_matches_are_kept_out_with_the_reason() -> None:
    found = kept_out("easy", EASY, {"benchmark": [BENCHMARK], "hard": [HARD]})
    assert {name: str(one) for name, one in found.items()} == {
        "copy": "easy copy (level 1): same as benchmark bench",
        "word": "easy word (level 1): reworded as hard hard, similarity 0.83",
    }


@pytest.mark.parametrize("limits", [{}, {"hard_limit": 1, "benchmark_limit": 1, "easy_limit": 1}])
def test_a_split_leaves_them_out_of_every_part(limits: dict[str, int]) -> None:
    """Also where a limit draws the hard problem away: the source has it."""
    others = [problem(f"h{i}", f"Evaluate $\\log_{i} {i}^{i}$.", 4) for i in range(2, 6)]
    hard_copy = problem("hard copy", "How many positive divisors  does $72$ have", 4)
    pool = ProblemPool([*EASY, HARD, *others, hard_copy], [BENCHMARK])
    for seed in range(5):
        options = MathProblems(validation=1, seed=seed, **limits)
        split = split_by_supervision(pool, options)
        used = {p.problem_id for p in (*split.easy_train, *split.easy_validation, *split.hard)}
        assert not used & {"copy", "word", "hard copy"}
        assert {one.problem.problem_id for one in split.kept_out} == {"copy", "word", "hard copy"}


def test_keeping_out_leaves_the_other_draws_alone() -> None:
    own = [problem(f"e{i}", f"What is ${i} + {i}$?") for i in range(20)]
    options = MathProblems(validation=5, easy_limit=8)
    with_copy, without = (
        split_by_supervision(ProblemPool([*own, HARD, EASY[4]], benchmark), options).easy_validation
        for benchmark in ([BENCHMARK], [BENCHMARK])
    )
    assert with_copy == without
    drawn = split_by_supervision(ProblemPool([*own, EASY[4]], [problem("b", EASY[4].question)]), options)
    kept = split_by_supervision(ProblemPool([*own, EASY[4]], [BENCHMARK]), options)
    order = [p.problem_id for p in (*kept.easy_validation, *kept.easy_train)]
    assert {p.problem_id for p in (*drawn.easy_validation, *drawn.easy_train)} - set(order) <= {
        p.problem_id for p in own
    }


def test_the_report_names_ids_and_levels_and_no_answers() -> None:
    twins = [problem("t1", "What is $f(6)-f(2)$?"), problem("t2", "What is\n\\[f(6) - f(2)?\\]")]
    long = "Ann has {} apples and gives two of them to each of her friends, who share them. How many friends?"
    pool = [*EASY, *twins, HARD, problem("long", long.format(12))]
    report = duplicate_report(pool, [BENCHMARK, problem("asked", long.format(14), 5)], (1, 2, 3))
    assert report["same"] == [["t1 (level 1)", "t2 (level 1)"]]
    assert len(report["matched"]) == 2
    assert report["template_of_benchmark"] == {"pairs": [], "benchmark_problems": 0}


def test_templates_by_hand() -> None:
    # 17 words have 13 five-grams; another last number leaves 12 shared of 14.
    text = "Ann buys some apples and some pears and gives half of them to Bob who eats {}"
    known = [("near", text.format(15)), ("far", "Ann buys some apples and 3 pears")]
    asked = [("asked", text.format(14))]
    (pair,) = templates(known, asked)
    assert (pair.first, pair.second) == ("asked", "near")
    grams = len(text.split()) - 4
    assert pair.similarity == pytest.approx((grams - 1) / (grams + 1))
    assert templates(known, asked, threshold=0.9) == []
    assert templates([("copy", text.format(14))], asked) == []  # the same: kept out, not listed


def test_groups_of_the_same_problem() -> None:
    questions = [
        problem("a", "What is $f(6)-f(2)$?"),
        problem("b", "What is\n\\[f(6) - f(2)?\\]"),
        problem("c", "Find $\\left(x^{2}\\right)$."),
        problem("d", "Find $(x^2)$."),
        problem("e", "Find $(x^3)$."),
    ]
    assert [[p.problem_id for p in group] for group in duplicate_groups(questions)] == [
        ["a", "b"],
        ["c", "d"],
    ]
