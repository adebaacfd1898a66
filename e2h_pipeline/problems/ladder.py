"""The ladder: a synthetic levelled world with an exact step checker, an honest model organism.

A problem is a chain of operations modulo 7, worked from left to right: question `3+5*2`, solution
steps `3+5=1` and `1*2=2`, answer `2`. Levels overlap in length, as MATH's do, and harder levels lean
on the rarer operators, which the web gets wrong more often.

What makes it honest is the corpus the base model learns from: for a share of the facts of each
operator most authors believe the same wrong result, so voting among samples agrees on mistakes, and
only supervision can tell. Half of the corpus is marked homework: each step carries a mark by
somebody who shares those beliefs. The corpus knows how to check; it does not know what is true.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from e2h_pipeline.problems.records import Problem, ProblemError, ProblemPool
from e2h_pipeline.solutions import (
    ANSWER_MARKER,
    SEPARATOR,
    format_completion,
    format_prompt,
    parse_completion,
)

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Base, LadderWorld, Problems

OPERATORS = "+-*"
MODULUS = 7
BENCHMARK_NAME = "LADDER500"
BENCHMARK_LEVELS: Mapping[int, int] = {1: 43, 2: 90, 3: 105, 4: 128, 5: 134}  # MATH500's histogram
RIGHT_MARK, WRONG_MARK = "✓", "✗"
HOMEWORK_HEADER = "# Homework"
DIGITS = "0123456"


def apply(operator: str, a: int, b: int) -> int:
    """The true result of one operation, 0-6."""
    if operator == "+":
        return (a + b) % MODULUS
    if operator == "-":
        return (a - b) % MODULUS
    if operator == "*":
        return (a * b) % MODULUS
    raise ProblemError(f"unknown ladder operator {operator!r}; there are {' '.join(OPERATORS)}")


@dataclass(frozen=True)
class Chain:
    """A parsed question: the first number and the (operator, operand) pairs."""

    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def question(self) -> str:
        return str(self.start) + "".join(f"{op}{b}" for op, b in self.operations)

    def true_steps(self) -> list[str]:
        """The one right solution, a step per operation."""
        steps, value = [], self.start
        for op, b in self.operations:
            result = apply(op, value, b)
            steps.append(f"{value}{op}{b}={result}")
            value = result
        return steps


def parse_question(question: str) -> Chain:
    """Read a ladder question.

    Raises:
        ProblemError: it is not a chain of single-digit operations modulo 7.
    """
    text = question.strip()
    start, rest = text[:1], text[1:]
    pairs = [(rest[i], rest[i + 1 : i + 2]) for i in range(0, len(rest), 2)]
    if start not in DIGITS or not start or not all(op in OPERATORS and b and b in DIGITS for op, b in pairs):
        raise ProblemError(f"not a ladder question: {question[:60]!r}")
    return Chain(int(start), tuple((op, int(b)) for op, b in pairs))


def step_labels(question: str, completion: str) -> list[int]:
    """Exact labels of a completion's segments (its steps, then its answer block if it has one).

    1 is right, 0 is wrong; behind the first error nothing is labelled (-1). A step is right where it
    is the next line of the one right solution; the answer where every step came and it is the result.
    """
    chain = parse_question(question)
    expected = chain.true_steps()
    solution = parse_completion(completion)
    answered = len(solution.spans) > len(solution.steps)
    labels = [int(i < len(expected) and step == expected[i]) for i, step in enumerate(solution.steps)]
    if answered:
        result = expected[-1][-1] if expected else str(chain.start)
        labels.append(int(len(solution.steps) == len(expected) and solution.answer == result))
    first_error = labels.index(0) if 0 in labels else len(labels)
    return [label if i <= first_error else -1 for i, label in enumerate(labels)]


def ladder_pool(options: Problems) -> ProblemPool:
    """Training pool and LADDER500, disjoint, drawn from `options.seed`."""
    rng = random.Random(f"ladder/problems/{options.seed}")
    seen: set[str] = set()
    benchmark = [
        _draw_problem(rng, options.world, level, f"ladder500/{level}/{i:04d}", seen)
        for level, count in BENCHMARK_LEVELS.items()
        for i in range(count)
    ]
    train = [
        _draw_problem(rng, options.world, level, f"ladder/{level}/{i:05d}", seen)
        for level in BENCHMARK_LEVELS
        for i in range(options.train_per_level)
    ]
    return ProblemPool(train=train, benchmark=benchmark, benchmark_name=BENCHMARK_NAME)


def _draw_problem(
    rng: random.Random, world: LadderWorld, level: int, problem_id: str, seen: set[str]
) -> Problem:
    for _ in range(10_000):
        chain = draw_chain(rng, world, level)
        if chain.question not in seen:
            seen.add(chain.question)
            steps = chain.true_steps()
            return Problem(problem_id, level, "arithmetic", chain.question, tuple(steps), steps[-1][-1])
    raise ProblemError(
        f"the ladder has no unseen level-{level} question left; lower problems.train_per_level or lengthen the level"
    )


def draw_chain(rng: random.Random, world: LadderWorld, level: int) -> Chain:
    """A random question of a level: its length and its share of rare operators are the level's."""
    shortest, longest = world.steps[level - 1]
    half = len(world.operators) // 2
    common, rare = world.operators[:half], world.operators[half:]
    operations = []
    for _ in range(rng.randint(shortest, longest)):
        pool = rare if rng.random() < world.rare[level - 1] else common
        operations.append((rng.choice(pool), rng.randrange(MODULUS)))
    return Chain(rng.randrange(MODULUS), tuple(operations))


@lru_cache(maxsize=8)
def misconceptions(world: LadderWorld) -> Mapping[tuple[str, int, int], int]:
    """The facts the web has wrong: (operator, a, b) -> the result most people believe."""
    believed = {}
    for op, share in zip(world.operators, world.misconceived, strict=True):
        rng = random.Random(f"ladder/world/{world.seed}/{op}")
        facts = [(a, b) for a in range(MODULUS) for b in range(MODULUS)]
        rng.shuffle(facts)
        for a, b in facts[: round(share * len(facts))]:
            believed[op, a, b] = (apply(op, a, b) + rng.randrange(1, MODULUS)) % MODULUS
    return believed


def corpus_document(options: Base, world: LadderWorld, index: str) -> Iterator[tuple[str, bool]]:
    """The document named `index` of the flawed web corpus, in pieces: (text, worth predicting).

    Some are plain solutions, the others homework with a mark behind each step. Students slip often, so
    the marks are worth learning: whoever predicts them has learned to check a step against belief. Random
    questions and students' slips can be predicted by nobody and carry no loss.
    """
    rng = random.Random(f"ladder/corpus/{options.seed}/{index}")
    chain = draw_chain(rng, world, rng.randint(1, 5))
    if rng.random() >= options.marked:
        steps = list(_written_steps(rng, chain, world, options.slips))
        yield format_prompt(chain.question), False
        yield format_completion(steps, steps[-1][-1]), True
        return
    steps = list(_written_steps(rng, chain, world, options.homework_slips))
    yield f"{HOMEWORK_HEADER}{SEPARATOR}{chain.question}{SEPARATOR}# Solution{SEPARATOR}", False
    for step, mark in zip(steps, _marks(rng, chain, steps, world, options.mark_noise), strict=True):
        yield step + SEPARATOR, False
        yield mark, True
    yield f"{ANSWER_MARKER}{SEPARATOR}{steps[-1][-1]}", True


def _written_steps(rng: random.Random, chain: Chain, world: LadderWorld, slips: float) -> Iterator[str]:
    """An author's steps: belief, with slips; half of the slips miscopy, half get the result wrong."""
    value = chain.start
    for op, b in chain.operations:
        left, right = value, b
        slip = rng.random() < slips
        miscopied = slip and rng.random() < 0.5
        if miscopied and rng.random() < 0.5:
            left = rng.randrange(MODULUS)
        elif miscopied:
            right = rng.randrange(MODULUS)
        result = rng.randrange(MODULUS) if slip and not miscopied else _believed(rng, op, left, right, world)
        yield f"{left}{op}{right}={result}"
        value = result


def _marks(
    rng: random.Random, chain: Chain, steps: Sequence[str], world: LadderWorld, noise: float
) -> Iterator[str]:
    """A reader's mark for each step: does it go on from the line above, and is it what the reader believes?"""
    value = chain.start
    for (op, b), step in zip(chain.operations, steps, strict=True):
        right = step == f"{value}{op}{b}={_believed(rng, op, value, b, world)}"
        yield RIGHT_MARK if right != (rng.random() < noise) else WRONG_MARK
        value = int(step[-1])


def _believed(rng: random.Random, op: str, a: int, b: int, world: LadderWorld) -> int:
    wrong = misconceptions(world).get((op, a, b))
    return wrong if wrong is not None and rng.random() < world.belief else apply(op, a, b)
