"""The report stage: one static, self-contained HTML page per experiment.

Everything is inside the file: style, figures, numbers. It loads nothing from anywhere and runs no
script. Text from keys, recipes and models is escaped by the template engine; only our own SVG is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.report.cost_view import cost_panels
from e2h_pipeline.report.evaluator_view import EvaluatorSection, evaluator_section
from e2h_pipeline.report.lineage_view import lineage_section
from e2h_pipeline.report.rl_view import audit_section, training_panels
from e2h_pipeline.report.solutions_view import SolutionsSection, solutions_section
from e2h_pipeline.report.view import benchmark_sections

_TEMPLATE = "report.html.j2"


def write_report(
    inputs: Mapping[str, Path],
    lineage: Sequence[Mapping[str, Any]],
    out: Path,
    *,
    key: str,
    recipe_json: str,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Write `out/report.html`.

    Args:
        inputs: artifact folders: `benchmark_metrics` (needed), `rerank_metrics`, `evaluator_generalization`,
            `rl_policy` and `rl_audit` (their sections are left out where absent); others are ignored.
        lineage: one mapping per artifact: asset, data_version, code_version, wall_seconds, inputs.
        key: the experiment's key.
        recipe_json: the recipe as JSON.
        confidence: coverage of the intervals in the tables, for the legend.

    Returns:
        Path within `out`, size, and the benchmarks shown.
    """
    metrics = read_table(inputs["benchmark_metrics"] / "metrics.parquet").to_pylist()
    differences = read_table(inputs["benchmark_metrics"] / "differences.parquet").to_pylist()
    benchmarks = benchmark_sections(metrics, differences)
    recipe = json.loads(recipe_json)
    page = render(
        key=key,
        kind="experiment report",
        description=recipe.get("description", ""),
        recipe=recipe,
        confidence=confidence,
        benchmarks=benchmarks,
        costs=cost_panels(metrics, read_table(inputs["benchmark_metrics"] / "lengths.parquet").to_pylist()),
        evaluator=_evaluator(inputs.get("evaluator_generalization")),
        solutions=_solutions(inputs.get("rerank_metrics")),
        training=training_panels(inputs.get("rl_policy")),
        audit=audit_section(inputs.get("rl_audit")),
        lineage=lineage_section(lineage),
        facts=[],
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.html").write_text(page, encoding="utf-8")
    return {
        "report": "report.html",
        "bytes": len(page.encode()),
        "benchmarks": [section.name for section in benchmarks],
    }


def samples_page(
    name: str,
    description: str,
    metrics: Sequence[Mapping[str, Any]],
    differences: Sequence[Mapping[str, Any]],
    facts: Sequence[tuple[str, str]],
    confidence: float,
) -> str:
    """The page of samples made elsewhere, in the look of our own; there is no recipe and no lineage.

    Args:
        name: of the samples.
        description: a sentence on what they are and who graded them.
        metrics: rows of one benchmark, as in `metrics.parquet`.
        differences: rows as in `differences.parquet`.
        facts: what the numbers depend on, and what was found on the way: (name, value).
        confidence: coverage of the intervals.
    """
    return render(
        key=name,
        kind="samples made elsewhere",
        description=description,
        recipe=None,
        confidence=confidence,
        benchmarks=benchmark_sections(metrics, differences),
        costs=[],
        evaluator=None,
        solutions=None,
        training=[],
        audit=None,
        lineage=None,
        facts=facts,
    )


def render(*, key: str, recipe: Mapping[str, Any] | None, **sections: Any) -> str:
    """The page as text; sections that are None or empty are left out."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        key=key,
        recipe=recipe,
        recipe_text=json.dumps(recipe, indent=2, sort_keys=True, ensure_ascii=False),
        **sections,
    )


def _solutions(folder: Path | None) -> SolutionsSection | None:
    return solutions_section(read_table(folder / "choices.parquet").to_pylist()) if folder else None


def _evaluator(folder: Path | None) -> EvaluatorSection | None:
    if folder is None:
        return None
    return evaluator_section(
        read_table(folder / "metrics.parquet").to_pylist(),
        read_table(folder / "reliability.parquet").to_pylist(),
    )
