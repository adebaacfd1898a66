"""The report: one page that shows an experiment's numbers and what fed them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from assets.searches import searches
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RECIPE_FOLDER, Recipe
from e2h_pipeline.registry import DOMAINS
from e2h_pipeline.stages.asset import stage
from e2h_pipeline.stages.spec import beyond

_PIPELINE = ("benchmark_metrics", "rl_policy", "rl_audit")
_TEMPLATES = [RECIPE_FOLDER.parent / "report" / name for name in ("report.html.j2", "page.html.j2")]


@stage(
    group="results",
    reads=["evaluator_generalization", "easy_evaluator"],
    reads_if={
        "rerank_metrics": beyond("evaluator"),
        "search_metrics": searches,
        **dict.fromkeys(_PIPELINE, beyond("reranking")),
    },
    recipe=Recipe.model_fields,
    methods=["problems.source"],
    kinds={"report"},
    audit=True,
    files=_TEMPLATES,
)
def report(job: StageJob) -> dict[str, Any]:
    """One static HTML page: accuracy, training curves and their audit, lineage and cost.

    The page shows times, so its data version is made from the artifacts it shows.
    """
    from e2h_pipeline.artifacts.checkout import commit
    from e2h_pipeline.report.html import Subject, write_report
    from e2h_pipeline.stages.findings import stop_findings

    shown = {name: artifact.data_version for name, artifact in job.inputs.items()}
    (job.out / "sources.json").write_text(
        json.dumps(shown, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    policy = job.inputs.get("rl_policy")
    domain = DOMAINS.load(job.recipe.problems.source)
    return write_report(
        inputs={name: artifact.path for name, artifact in job.inputs.items()},
        lineage=job.lineage,
        out=job.out / "page",
        about=Subject(
            job.experiment,
            job.recipe.as_dict(),
            domain.options.level_names,
            domain.text,
            stopped="; ".join(stop_findings(policy.manifest.summary)) if policy else "",
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            commit=commit(),
        ),
        leaks=_leaks(job),
    )


def _leaks(job: StageJob) -> list[str]:
    """What was made from gold answers and must not have been, by the manifests behind the page."""
    from e2h_pipeline.stages.findings import graph_findings, roles
    from e2h_pipeline.stages.spec import STAGES

    return graph_findings({row["asset"]: row["inputs"] for row in job.lineage}, *roles(STAGES))
