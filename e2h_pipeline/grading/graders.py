r"""Graders by name. `math` is our own (`mathematical.py`); the others are what people report with.

`exact` compares strings (the ladder writes answers in one way only). `math-verify` asks the library of
that name (Hugging Face) in killable workers, after two cheap tiers that need no algebra. `prm800k` and
`e2h-string` are in `compat.py`. Verdicts are remembered per pair. A pair that costs too much time,
memory or text is `UNDECIDED`: it counts as wrong, and `undecided` says how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from e2h_pipeline.grading.exact import ExactGrader
from e2h_pipeline.grading.mathematics.grader import MathGrader
from e2h_pipeline.grading.published.compat import E2hStringGrader, Prm800kGrader
from e2h_pipeline.grading.published.math_verify import MathVerifyGrader
from e2h_pipeline.grading.verdicts import Grade, Grader, Verdict, verdicts
from e2h_pipeline.grading.worker_pool import CPU_SECONDS, WorkerPool

__all__ = ["GRADERS", "Grade", "Grader", "Verdict", "grader", "verdicts"]

GRADERS = ("math", "exact", "math-verify", "prm800k", "e2h-string")


@contextmanager
def grader(name: str, workers: int | None = None, cpu_seconds: float = CPU_SECONDS) -> Iterator[Grader]:
    """A grader by its name in the recipe (`evaluation.grader`); its workers end with the block.

    Args:
        workers: processes behind it; one per core, at most 8, where unset.
        cpu_seconds: CPU time a pair may take before it is undecided.
    """
    if name == ExactGrader.name:
        yield ExactGrader()
    elif name == E2hStringGrader.name:
        yield E2hStringGrader()
    elif name in _WITH_WORKERS:
        with WorkerPool(workers, cpu_seconds) as pool:
            yield _WITH_WORKERS[name](pool)
    else:
        raise ValueError(f"no grader '{name}'; there are {', '.join(GRADERS)}")


_WITH_WORKERS: dict[str, Callable[[WorkerPool], Grader]] = {
    "math": MathGrader,
    "math-verify": MathVerifyGrader,
    "prm800k": Prm800kGrader,
}
