"""Answers of the three policies to the benchmark, one greedy and some sampled each."""

from __future__ import annotations

from typing import Any

import dagster as dg

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.recipe import Sampling
from e2h_pipeline.registry import DOMAINS
from e2h_pipeline.stages.asset import stage

# The number of samples is evaluation.samples: a larger rerank pool must not redraw these.
_SAMPLING = [f"sampling.{field}" for field in Sampling.model_fields if field != "samples"]


def _answers(name: str, policy: str) -> dg.AssetsDefinition:
    def answers(job: StageJob) -> dict[str, Any]:
        from e2h_pipeline.generation.sample_pool import Drawing, answers_pool
        from e2h_pipeline.generation.search.independent import Independent

        drawing = Drawing(
            policy=job.path(policy),
            domain=DOMAINS.load(job.recipe.problems.source),
            options=job.recipe.sampling,
            stage=name,
            method=Independent(),
        )
        questions = read_table(job.path("benchmark_questions") / TABLE)
        return answers_pool(drawing, questions, job.recipe.evaluation.samples, job.work)

    answers.__doc__ = (
        f"Greedy and sampled completions of every benchmark question by {policy}. Version = hash of the rows."
    )
    return stage(
        name=name,
        group="answers",
        reads=[policy, "benchmark_questions"],
        recipe=["seed", "problems.source", "evaluation.samples", *_SAMPLING],
        methods=["problems.source"],
        kinds={"parquet"},
        gpu=True,
        samples=True,
        grows="evaluation.samples",
    )(answers)


base_answers = _answers("base_answers", "base_model")
sft_answers = _answers("sft_answers", "sft_policy")
rl_answers = _answers("rl_answers", "rl_policy")
