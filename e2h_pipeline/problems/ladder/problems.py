"""Draws the ladder's problems: a training pool and the benchmark LADDER500, no question twice."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.problems.ladder.world import MODULUS, Chain
from e2h_pipeline.problems.records import Problem, ProblemError, ProblemPool

if TYPE_CHECKING:
    from e2h_pipeline.recipe import LadderProblems, LadderWorld


BENCHMARK_LEVELS: Mapping[int, int] = {1: 43, 2: 90, 3: 105, 4: 128, 5: 134}  # MATH500's histogram
_TRIES = 10_000  # draws of a question before a level counts as used up


class LadderReader:
    """The ladder's `ProblemReader`: nothing is read, all is drawn."""

    def pool(self, options: LadderProblems) -> ProblemPool:
        """Training pool and LADDER500, disjoint, drawn from `options.seed`.

        Raises:
            ProblemError: a level has fewer questions than are asked for.
        """
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
        return ProblemPool(train=train, benchmark=benchmark, distinct=True)

    def fingerprint(self, options: LadderProblems) -> Mapping[str, str]:
        """The generator's name: its code and its options are in every key anyway."""
        return {"generator": "ladder"}

    def files(self, options: LadderProblems) -> Sequence[Path]:
        """None."""
        return []


def _draw_problem(
    rng: random.Random, world: LadderWorld, level: int, problem_id: str, seen: set[str]
) -> Problem:
    """A question that is not in `seen`, which it is added to, with its one right solution."""
    for _ in range(_TRIES):
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
