import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.problems.ladder.checker import step_labels
from e2h_pipeline.problems.ladder.corpus import (
    HOMEWORK_HEADER,
    RIGHT_MARK,
    WRONG_MARK,
    corpus_document,
    misconceptions,
)
from e2h_pipeline.problems.ladder.problems import BENCHMARK_LEVELS, LadderReader, draw_chain
from e2h_pipeline.problems.ladder.world import Chain, apply, parse_question
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.recipe import Base, LadderProblems, LadderWorld
from e2h_pipeline.solutions import ANSWER_MARKER, MARKED, SEPARATOR

WORLD = LadderWorld()
SMALL = LadderProblems(train_per_level=30)
CHAINS = st.builds(
    Chain,
    st.integers(0, 6),
    st.lists(st.tuples(st.sampled_from("+-*"), st.integers(0, 6)), min_size=1, max_size=8).map(tuple),
)


def test_operations_by_hand() -> None:
    assert apply("+", 6, 5) == 4
    assert apply("-", 3, 5) == 5
    assert apply("*", 6, 5) == 2
    with pytest.raises(ProblemError, match="unknown ladder operator '/'"):
        apply("/", 1, 2)


def test_the_right_solution_by_hand() -> None:
    assert parse_question("1+2*4-6").true_steps() == ["1+2=3", "3*4=5", "5-6=6"]


@given(CHAINS)
def test_a_question_parses_back(chain: Chain) -> None:
    assert parse_question(chain.question) == chain


@pytest.mark.parametrize("text", ["", "+", "a+1", "1+", "1+1*", "12+3", "1/2", "1+a", "7+1", "1+7"])
def test_what_is_no_question_is_refused(text: str) -> None:
    with pytest.raises(ProblemError, match="not a ladder question"):
        parse_question(text)


@pytest.mark.parametrize(
    ("completion", "labels"),
    [
        ("1+2=3\n\n3*2=6\n\n# Answer\n\n6", [1, 1, 1]),
        ("1+2=3\n\n3*2=5\n\n# Answer\n\n5", [1, 0, -1]),  # wrong step
        ("1+2=4\n\n4*2=1\n\n# Answer\n\n1", [0, -1, -1]),  # nothing is labelled after the first error
        ("1+2=4\n\n3*2=6\n\n# Answer\n\n6", [0, -1, -1]),  # the right answer does not change that
        ("1+2=3\n\n3*2=6\n\n# Answer\n\n5", [1, 1, 0]),  # answer copied wrong
        ("1+2=3\n\n# Answer\n\n3", [1, 0]),  # a step is missing
        ("# Answer\n\n6", [0]),  # all are missing, though the number is right
        ("1+2=3\n\n3*2=6\n\n6+0=6\n\n# Answer\n\n6", [1, 1, 0, -1]),  # a step too many
        ("1+2=3\n\n3*2=6\n\n# Answer\n\n", [1, 1, 0]),  # empty answer
        ("1+2=3\n\n3*2=6", [1, 1]),  # no answer block, no label for it
        ("1+2=3\n\n3*", [1, 0]),
        ("1+2=3\n3*2=6", [0]),  # two steps in one block are not the next line
        ("", []),
    ],
)
def test_step_labels_by_hand(completion: str, labels: list[int]) -> None:
    assert step_labels("1+2*2", completion) == labels


@given(CHAINS, st.lists(st.sampled_from(["1+2=3", "1*1=1", "x"]), max_size=4), st.integers(0, 6))
def test_labels_are_ones_then_at_most_one_zero_then_nothing(
    chain: Chain, extra: list[str], answer: int
) -> None:
    cut = len(extra) % (len(chain.operations) + 1)
    completion = MARKED.completion([*chain.true_steps()[:cut], *extra], str(answer))
    labels = step_labels(chain.question, completion)
    assert len(labels) == len(MARKED.parse(completion).spans)
    right = next((i for i, label in enumerate(labels) if label != 1), len(labels))
    assert labels == [1] * right + [0] * (right < len(labels)) + [-1] * (len(labels) - right - 1)


def test_reference_solutions_are_right() -> None:
    pool = LadderReader().pool(SMALL)
    for problem in [*pool.train, *pool.benchmark]:
        labels = step_labels(problem.question, MARKED.completion(problem.steps, problem.answer))
        assert labels == [1] * (len(problem.steps) + 1)


def test_levels_lengths_and_disjointness_of_the_pools() -> None:
    pool = LadderReader().pool(SMALL)
    assert pool.distinct
    assert Counter(p.level for p in pool.benchmark) == {1: 43, 2: 90, 3: 105, 4: 128, 5: 134}
    assert sum(BENCHMARK_LEVELS.values()) == 500
    assert Counter(p.level for p in pool.train) == dict.fromkeys(range(1, 6), 30)
    questions = [p.question for p in [*pool.train, *pool.benchmark]]
    assert len(set(questions)) == len(questions) == 650
    assert len({p.problem_id for p in [*pool.train, *pool.benchmark]}) == 650
    for problem in [*pool.train, *pool.benchmark]:
        assert problem.level is not None
        shortest, longest = WORLD.steps[problem.level - 1]
        assert shortest <= len(problem.steps) <= longest


def test_the_seed_alone_makes_the_problems() -> None:
    assert LadderReader().pool(SMALL) == LadderReader().pool(SMALL)
    other = LadderReader().pool(SMALL.model_copy(update={"seed": 1}))
    assert {p.question for p in other.train} != {p.question for p in LadderReader().pool(SMALL).train}


def test_a_level_that_runs_dry_says_what_to_do() -> None:
    world = WORLD.model_copy(update={"steps": ((1, 1), *WORLD.steps[1:])})
    with pytest.raises(ProblemError, match=r"level-1 question left; lower problems\.train_per_level"):
        LadderReader().pool(LadderProblems(train_per_level=400, world=world))


def test_rare_operators_come_as_often_as_the_level_says() -> None:
    rng = random.Random(0)
    for level, share in enumerate(WORLD.rare, start=1):
        operators = [op for _ in range(600) for op, _ in draw_chain(rng, WORLD, level).operations]
        found = sum(op in "-*" for op in operators) / len(operators)
        assert found == pytest.approx(share, abs=0.07)


def test_misconceptions_are_wrong_and_as_many_as_the_world_says() -> None:
    believed = misconceptions(WORLD)
    assert Counter(op for op, _, _ in believed) == {"+": 10, "-": 15, "*": 22}
    for (op, a, b), result in believed.items():
        assert 0 <= result <= 6
        assert result != apply(op, a, b)
    assert misconceptions(LadderWorld(seed=1)) != believed


def _document(options: Base, index: int) -> tuple[str, str]:
    """(question part, worked part) of a document."""
    text = "".join(piece for piece, _ in corpus_document(options, WORLD, str(index)))
    lead, worked = text.split(f"# Solution{SEPARATOR}")
    return f"{lead}# Solution{SEPARATOR}", worked


def _lines(options: Base, documents: int) -> Iterator[tuple[tuple[str, int, int], str, str]]:
    """(fact asked for, step written, mark or "") of every step of many documents."""
    for i in range(documents):
        lead, worked = _document(options, i)
        chain = parse_question(lead.split(SEPARATOR)[1])
        blocks = worked.split(SEPARATOR)
        value = chain.start
        for (op, b), block, follower in zip(chain.operations, blocks, blocks[1:], strict=False):
            step = block.lstrip(RIGHT_MARK + WRONG_MARK)
            yield (op, value, b), step, follower[0] if lead.startswith(HOMEWORK_HEADER) else ""
            value = int(step[-1])


def test_the_corpus_believes_its_misconceptions_that_often_and_nothing_else_wrong() -> None:
    believed = misconceptions(WORLD)
    seen: Counter[bool] = Counter()
    for fact, step, _ in _lines(Base(slips=0, marked=0), 1200):
        op, a, b = fact
        assert step[:-1] == f"{a}{op}{b}="
        if fact in believed:
            assert int(step[-1]) in (believed[fact], apply(*fact))
            seen[int(step[-1]) == believed[fact]] += 1
        else:
            assert int(step[-1]) == apply(*fact)
    assert seen.total() > 1000
    assert seen[True] / seen.total() == pytest.approx(WORLD.belief, abs=0.05)


@pytest.mark.parametrize("options", [Base(slips=0.5, marked=0), Base(slips=0, homework_slips=0.5, marked=1)])
def test_slips_are_errors_beyond_the_misconceptions(options: Base) -> None:
    believed = misconceptions(WORLD)
    clean = [(fact, step) for fact, step, _ in _lines(options, 500) if fact not in believed]
    wrong = sum(step != f"{a}{op}{b}={apply(op, a, b)}" for (op, a, b), step in clean)
    # Half are slips; one slip in seven changes nothing.
    assert wrong / len(clean) == pytest.approx(3 / 7, abs=0.06)


def test_a_plain_document_is_a_question_and_a_solution_in_our_format() -> None:
    for i in range(50):
        lead, worked = _document(Base(marked=0), i)
        question = lead.split(SEPARATOR)[1]
        assert lead == MARKED.prompt(question)
        solution = MARKED.parse(worked)
        assert len(solution.steps) == len(parse_question(question).operations)
        assert solution.answer == solution.steps[-1][-1]


def test_homework_carries_a_mark_behind_every_step() -> None:
    for i in range(50):
        lead, worked = _document(Base(marked=1), i)
        assert lead.startswith(HOMEWORK_HEADER + SEPARATOR)
        body, answer = worked.split(f"# Answer{SEPARATOR}")
        steps = body.replace(RIGHT_MARK, "|").replace(WRONG_MARK, "|").split("|")
        assert steps.pop() == ""
        assert all(step.endswith(SEPARATOR) for step in steps)  # the mark is the token after the step's last
        assert len(steps) == len(parse_question(lead.split(SEPARATOR)[1]).operations)
        assert answer == steps[-1].strip()[-1]


def test_marks_share_the_beliefs_and_not_the_truth() -> None:
    """On a misconceived fact a marker calls the wrong result right as often as the world believes
    it."""
    believed = misconceptions(WORLD)
    false, true = Counter[bool](), Counter[bool]()
    for fact, step, mark in _lines(Base(homework_slips=0, marked=1, mark_noise=0), 1200):
        if fact not in believed:
            assert mark == RIGHT_MARK
        else:
            (false if int(step[-1]) == believed[fact] else true)[mark == RIGHT_MARK] += 1
    assert false[True] / false.total() == pytest.approx(WORLD.belief, abs=0.06)
    assert true[True] / true.total() == pytest.approx(1 - WORLD.belief, abs=0.06)


def test_marks_find_slips_but_for_noise() -> None:
    believed = misconceptions(WORLD)
    for noise in (0.0, 0.2):
        agreed: Counter[bool] = Counter()
        for fact, step, mark in _lines(Base(homework_slips=0.5, marked=1, mark_noise=noise), 500):
            op, a, b = fact
            if fact not in believed:
                agreed[(step == f"{a}{op}{b}={apply(*fact)}") == (mark == RIGHT_MARK)] += 1
        assert agreed[False] / agreed.total() == pytest.approx(noise, abs=0.04)


def test_only_what_can_be_predicted_is_worth_predicting() -> None:
    """This means a plain solution; in homework the marks and the answer, not the student's
    steps."""
    for i in range(50):
        lead, worked = _document(Base(marked=0), i)
        assert [*corpus_document(Base(marked=0), WORLD, str(i))] == [(lead, False), (worked, True)]
        pieces = [*corpus_document(Base(marked=1), WORLD, str(i))]
        assert all(
            counts == text.startswith((RIGHT_MARK, WRONG_MARK, ANSWER_MARKER)) for text, counts in pieces
        )
        assert sum(counts for _, counts in pieces) == (len(pieces) - 2) // 2 + 1


def test_a_document_depends_on_its_name_and_seed_alone() -> None:
    def document(seed: int, index: str) -> list[tuple[str, bool]]:
        return [*corpus_document(Base(seed=seed), WORLD, index)]

    assert document(0, "3/0") == document(0, "3/0")
    assert document(0, "3/0") != document(0, "3/1")
    assert document(0, "3/0") != document(1, "3/0")
