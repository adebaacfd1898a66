"""The flawed web corpus that the ladder's base model learns from.

For a share of the facts of each operator most authors believe the same wrong result. A part of the
corpus is marked homework: each step carries a mark by somebody who shares those beliefs. So the
corpus knows how to check a step; it does not know what is true.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from e2h_pipeline.problems.ladder.problems import draw_chain
from e2h_pipeline.problems.ladder.world import MODULUS, TEXT, Chain, apply

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Base, LadderWorld


RIGHT_MARK, WRONG_MARK = "✓", "✗"
HOMEWORK_HEADER = "# Homework"


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
    """The document named `index`, in pieces: (text, whether it counts in the loss).

    Some documents are plain solutions, the others homework with a mark behind each step. Students
    slip often. So a model that predicts the marks has learned to check a step against belief.
    Nobody can predict a random question or a student's slip, so these do not count.
    """
    rng = random.Random(f"ladder/corpus/{options.seed}/{index}")
    chain = draw_chain(rng, world, rng.randint(1, 5))
    if rng.random() >= options.marked:
        steps = list(_written_steps(rng, chain, world, options.slips))
        yield TEXT.prompt(chain.question), False
        yield TEXT.completion(steps, steps[-1][-1]), True
        return
    steps = list(_written_steps(rng, chain, world, options.homework_slips))
    gap = TEXT.separator
    yield TEXT.headed(HOMEWORK_HEADER).prompt(chain.question), False
    for step, mark in zip(steps, _marks(rng, chain, steps, world, options.mark_noise), strict=True):
        yield step + gap, False
        yield mark, True
    yield f"{TEXT.answer_marker}{gap}{steps[-1][-1]}", True


def _written_steps(rng: random.Random, chain: Chain, world: LadderWorld, slips: float) -> Iterator[str]:
    """An author's steps: belief, with slips; half of the slips miscopy, half get the result
    wrong."""
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
    """A reader's mark for each step: does it go on from the line above, and is it what the reader
    believes?"""
    value = chain.start
    for (op, b), step in zip(chain.operations, steps, strict=True):
        right = step == f"{value}{op}{b}={_believed(rng, op, value, b, world)}"
        yield RIGHT_MARK if right != (rng.random() < noise) else WRONG_MARK
        value = int(step[-1])


def _believed(rng: random.Random, op: str, a: int, b: int, world: LadderWorld) -> int:
    wrong = misconceptions(world).get((op, a, b))
    return wrong if wrong is not None and rng.random() < world.belief else apply(op, a, b)
