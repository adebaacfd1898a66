"""Draws the words: a training pool and the benchmark REVERSAL30, no word twice."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from e2h_pipeline.problems.records import Problem, ProblemPool
from e2h_toy.domain import LETTERS, ReversalProblems

BENCHMARK_PER_LEVEL = 10


class ReversalReader:
    """The domain's `ProblemReader`."""

    def pool(self, options: ReversalProblems) -> ProblemPool:
        """Level 1 has words of three letters, level 2 of four, level 3 of five."""
        rng = random.Random(f"reversal/{options.seed}")
        train: list[Problem] = []
        benchmark: list[Problem] = []
        for level in options.levels:
            words = ["".join(letters) for letters in itertools.product(LETTERS, repeat=level + 2)]
            rng.shuffle(words)
            cut = BENCHMARK_PER_LEVEL + options.train_per_level
            benchmark += [_problem(level, word) for word in words[:BENCHMARK_PER_LEVEL]]
            train += [_problem(level, word) for word in words[BENCHMARK_PER_LEVEL:cut]]
        return ProblemPool(train=train, benchmark=benchmark, distinct=True)

    def fingerprint(self, options: ReversalProblems) -> Mapping[str, str]:
        """The generator's name."""
        return {"generator": "reversal"}

    def files(self, options: ReversalProblems) -> Sequence[Path]:
        """None: the words are drawn."""
        return []


def _problem(level: int, word: str) -> Problem:
    backwards = word[::-1]
    return Problem(f"reversal/{level}/{word}", level, "spelling", word, tuple(backwards), backwards)
