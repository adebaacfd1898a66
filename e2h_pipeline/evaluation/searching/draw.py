"""The stage searched_samples: every search of a recipe, and independent samples to compare with.

All are drawn twice: for the benchmark's questions, which are reported, and for easy validation
problems, on which the compute-optimal search is chosen. The finished samples are scored once more
as whole texts; that costs nothing in the comparison, because a search knows these scores.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.searching.pools import GREEDY, INDEPENDENT
from e2h_pipeline.generation.sample_pool import Drawing, sample_pool
from e2h_pipeline.generation.search.independent import Independent
from e2h_pipeline.models.work import flops_per_token
from e2h_pipeline.recipe import IndependentSearch
from e2h_pipeline.rewards.evaluators import read_kind
from e2h_pipeline.rewards.growing import search_scorer
from e2h_pipeline.rewards.pool import score_pool

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.generation.search.protocol import TokenJudge
    from e2h_pipeline.problems.domain import Domain
    from e2h_pipeline.recipe import Sampling, Scoring, Search, SearchComparison

BENCHMARK, VALIDATION = "benchmark", "validation"
PARTS = (BENCHMARK, VALIDATION)
COSTS, SECONDS = "costs.json", "logs/seconds.json"


@dataclass(frozen=True)
class Job:
    """What is drawn, and with what.

    Attributes:
        policy, evaluator: model folders.
        questions: folders of the questions of each of `PARTS`.
        searches: each with its method.
        sampling: how tokens are drawn; the comparison says how many samples.
        token_judge: makes the judge of a method that needs one, of evaluator, text and batch tokens.
    """

    policy: Path
    evaluator: Path
    questions: Mapping[str, Path]
    domain: Domain
    searches: Sequence[tuple[Search, Any]]
    comparison: SearchComparison
    sampling: Sampling
    scoring: Scoring
    work: Work
    token_judge: Callable[..., TokenJudge] | None = None


def folder_of(name: str) -> str:
    """Folder of a pool, from its name in tables."""
    return name.replace(" ", "-").replace("=", "-")


def together_of(searches: Sequence[Search]) -> dict[str, int]:
    """Every pool by name, with the samples that it finds together."""
    return {GREEDY: 1, INDEPENDENT: 1, **{search.label: search.together for search in searches}}


def draw_searches(job: Job) -> dict[str, Any]:
    """Write `PART/POOL/samples` and `PART/POOL/scores`, the work of a token (`costs.json`), and the
    seconds spent.

    Raises:
        ValueError: the evaluator is no single model with a score per token, so its work is unknown.
    """
    if (told := read_kind(job.evaluator)) is not None:
        raise ValueError(
            f"searches are compared by the work of their evaluator, which is not known for reward.kind={told['kind']}: "
            "take searches out of the recipe (search.method works), or a kind that scores tokens (prm, oprm, orm)"
        )
    seconds: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    found: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for part in PARTS:
        questions = part_questions(part, job.questions[part])
        for name, drawing in _drawings(job):
            work = job.work.below(f"{part}/{folder_of(name)}")
            start = time.perf_counter()
            summary = sample_pool(drawing, questions, work.below("samples"), f"{name} samples, {part}")
            spent = summary.pop("seconds", {"all": time.perf_counter() - start})
            start = time.perf_counter()
            score_pool(
                job.evaluator,
                work.out / "samples",
                job.questions[part],
                job.scoring,
                job.domain.text,
                work.below("scores"),
            )
            seconds[part][name] = {**spent, "reading whole samples": time.perf_counter() - start}
            found[part][name] = summary
    flops = {"drawn": flops_per_token(job.policy), "read": flops_per_token(job.evaluator)}
    (job.work.out / COSTS).write_text(json.dumps(flops) + "\n", encoding="utf-8")
    logs = job.work.out / SECONDS
    logs.parent.mkdir(parents=True, exist_ok=True)
    logs.write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")
    return {"flops_per_token": flops, **found}


def part_questions(part: str, folder: Path) -> pa.Table:
    """The questions of a part: all of the benchmark, or the easy validation problems."""
    import pyarrow.compute as pc

    table = read_table(folder / TABLE)
    return table if part == BENCHMARK else table.filter(pc.equal(table["split"], VALIDATION))


def _drawings(job: Job) -> Iterator[tuple[str, Drawing]]:
    """The pools with their drawings."""
    plain = Drawing(
        policy=job.policy,
        domain=job.domain,
        options=job.sampling.model_copy(update={"samples": job.comparison.independent}),
        stage="searched_samples",
        method=Independent(),
        search=IndependentSearch(),
    )
    one = {"samples": 1, "temperature": 0.0, "shard_questions": 256, "shard_samples": 1}
    yield GREEDY, replace(plain, options=job.sampling.model_copy(update=one))
    yield INDEPENDENT, plain
    asked = (job.evaluator, job.domain.text, job.scoring.batch_tokens)
    some = job.sampling.model_copy(update={"samples": job.comparison.samples})
    for search, method in job.searches:
        drawing = replace(plain, options=some, method=method, search=search)
        if job.token_judge and getattr(method, "needs_token_judge", False):
            yield search.label, replace(drawing, token_judge=job.token_judge(*asked))
        else:
            yield search.label, replace(drawing, scorer=search_scorer(*asked))
