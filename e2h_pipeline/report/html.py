"""The report: one static HTML page for each experiment.

Everything is inside the file: style, figures, numbers. It loads nothing from anywhere and runs no
script. The template engine escapes all text of keys, recipes and models, but not our SVG and MathML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.lineage import EASY_DATA
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.report.cost_view import cost_panels
from e2h_pipeline.report.evaluator_view import EvaluatorSection, evaluator_section
from e2h_pipeline.report.human_steps_view import HumanStepsTable, human_steps_tables
from e2h_pipeline.report.labels_view import labels_section
from e2h_pipeline.report.levels import LevelNames
from e2h_pipeline.report.lineage_view import lineage_section
from e2h_pipeline.report.page import filled
from e2h_pipeline.report.rl_view import audit_section, training_panels
from e2h_pipeline.report.search_view import SearchSection, search_section
from e2h_pipeline.report.solutions_view import SolutionsSection, solutions_section
from e2h_pipeline.report.view import benchmark_sections
from e2h_pipeline.solutions import MARKED, TextFormat
from e2h_pipeline.statistics.seeds import LEAST_SEEDS

_TEMPLATE = "report.html.j2"
# Pages of earlier versions have no style for banners.
_LEAK = '<div role="alert" id="leak" class="banner alarm" style="border:3px solid #c8321e; padding:8px 16px">'
_VERSION_LENGTH = 12


@dataclass(frozen=True)
class Subject:
    """The experiment that a page is about.

    Attributes:
        key: of the experiment.
        recipe: as plain JSON data.
        level_names: of its domain, easiest first; none where levels have numbers alone.
        text: how its domain writes solutions.
        stopped: why a guard stopped the training of its policy; empty where none did.
        made, commit: when, and from which commit of this project, the page is made; empty where unknown.
    """

    key: str
    recipe: Mapping[str, Any]
    level_names: tuple[str, ...] = ()
    text: TextFormat = MARKED
    stopped: str = ""
    made: str = ""
    commit: str = ""

    @property
    def confidence(self) -> float:
        """Coverage of the intervals in the tables."""
        return float(self.recipe["evaluation"]["confidence"])


def write_report(
    inputs: Mapping[str, Path],
    lineage: Sequence[Mapping[str, Any]],
    out: Path,
    about: Subject,
    leaks: Sequence[str] = (),
) -> dict[str, Any]:
    """Write `out/report.html`.

    Args:
        inputs: artifact folders by asset. `benchmark_metrics` (or `rerank_metrics` alone),
            `evaluator_generalization`, `search_metrics`, `rl_policy` and `rl_audit` have sections that
            are left out where absent. Others are ignored.
        lineage: a mapping for each artifact, as rows of `artifacts.lineage.as_rows`.
        about: the experiment.
        leaks: what the supervision firewall found.

    Returns:
        Path within `out`, size, and the benchmarks shown.
    """
    metrics, differences, lengths = _numbers(inputs)
    names = LevelNames(about.level_names)
    benchmarks = benchmark_sections(metrics, differences, names, about.confidence)
    judged = inputs.get("evaluator_generalization")
    page = render(
        key=about.key,
        kind="experiment report",
        description=about.recipe.get("description", ""),
        recipe=about.recipe,
        stopped=about.stopped,
        about=_about(about, lineage),
        confidence=about.confidence,
        benchmarks=benchmarks,
        costs=cost_panels(metrics, lengths),
        searches=_searches(inputs.get("search_metrics")),
        labels=labels_section(lineage),
        evaluator=_evaluator(judged, names),
        people=_people(judged, names),
        solutions=_solutions(inputs.get("rerank_metrics"), about.text, names),
        training=training_panels(inputs.get("rl_policy")),
        audit=audit_section(inputs.get("rl_audit"), names),
        lineage=lineage_section(lineage),
        facts=[],
    )
    page = with_leaks(page, leaks)
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
    """The page of samples made elsewhere, in the look of our own, without recipe and lineage.

    Args:
        name: of the samples.
        description: a sentence on what they are and who graded them.
        metrics: rows of one benchmark, as in `metrics.parquet`.
        differences: rows as in `differences.parquet`.
        facts: (name, value) of what the numbers depend on, and of findings on the way.
        confidence: coverage of the intervals.
    """
    return render(
        key=name,
        kind="samples made elsewhere",
        description=description,
        recipe=None,
        stopped="",
        about=[],
        confidence=confidence,
        benchmarks=benchmark_sections(metrics, differences, confidence=confidence),
        costs=[],
        searches=None,
        labels=None,
        evaluator=None,
        people=[],
        solutions=None,
        training=[],
        audit=None,
        lineage=None,
        facts=facts,
    )


def with_leaks(page: str, leaks: Sequence[str], outdated: str = "", strict: bool = True) -> str:
    """A page with what the supervision firewall found above everything else, whether something behind it
    was not strict, and how its recipe was edited since; as it is without any. All may come to light after
    the page was made, so this is done to a finished page."""
    if not strict and "<strong>Not strict:" not in page:
        told = "<strong>Not strict:</strong> an artifact behind these numbers may have seen hard answers."
        page = _topped(page, f'<div class="banner" role="note"><p>{told}</p></div>')
        page = page.replace("<dt>strict</dt><dd>yes</dd>", "<dt>strict</dt><dd>no</dd>", 1)
    if outdated:
        told = f"<strong>Outdated:</strong> {escape(outdated)}"
        page = _topped(page, f'<div class="banner" role="note"><p>{told}</p></div>')
    if not leaks or _LEAK in page:
        return page
    listed = "".join(f"<li>{escape(leak)}</li>" for leak in leaks)
    told = "<p><strong>LEAK: these numbers do not count.</strong> The supervision firewall found:</p>"
    return _topped(page, f"{_LEAK}{told}<ul>{listed}</ul></div>")


def _topped(page: str, banner: str) -> str:
    """A page with a banner above everything else."""
    place = "<main>" if "<main>" in page else "<body>"  # pages of earlier versions have no <main>
    return page.replace(place, f"{place}\n{banner}", 1)


def render(*, key: str, recipe: Mapping[str, Any] | None, **sections: Any) -> str:
    """The page as text; sections that are None or empty are left out."""
    return filled(
        _TEMPLATE,
        key=key,
        recipe=recipe,
        least_seeds=LEAST_SEEDS,
        recipe_text=json.dumps(recipe, indent=2, sort_keys=True, ensure_ascii=False),
        **sections,
    )


def _about(about: Subject, lineage: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What the head of the page says: when, from what, and how."""
    recipe = about.recipe
    seeds = {"seed": recipe.get("seed"), "problems": (recipe.get("problems") or {}).get("seed")}
    easy = next((str(row.get("data_version") or "") for row in lineage if row["asset"] == EASY_DATA), "")
    told = {
        "made": about.made,
        "commit": about.commit,
        "seed": "" if seeds["seed"] is None else str(seeds["seed"]),
        "seed of the problems": "" if seeds["problems"] is None else str(seeds["problems"]),
        "easy data": easy.rpartition(":")[2][:_VERSION_LENGTH],
        "strict": "yes" if recipe.get("strict", True) else "no",
    }
    return [(name, value) for name, value in told.items() if value]


def _numbers(inputs: Mapping[str, Path]) -> list[list[dict[str, Any]]]:
    """Rows of metrics, differences and lengths of the most complete table of numbers; none where the
    experiment has no policy and no samples."""
    names = ("metrics", "differences", "lengths")
    tables = (inputs.get(stage) for stage in ("benchmark_metrics", "rerank_metrics"))
    folder = next((folder for folder in tables if folder is not None), None)
    files = [folder / f"{name}.parquet" if folder else None for name in names]
    return [read_table(file).to_pylist() if file and file.is_file() else [] for file in files]


def _searches(folder: Path | None) -> SearchSection | None:
    if folder is None:
        return None
    names = ("metrics", "differences", "optimal", "exploited")
    tables = {name: read_table(folder / f"{name}.parquet").to_pylist() for name in names}
    seconds = folder / "logs" / "seconds.json"  # no part of the data version, so it may be gone
    spent = json.loads(seconds.read_text(encoding="utf-8")) if seconds.is_file() else {}
    return search_section(tables, spent)


def _people(folder: Path | None, names: LevelNames) -> list[HumanStepsTable]:
    if folder is None or not (folder / "human_steps.parquet").is_file():
        return []
    return human_steps_tables(read_table(folder / "human_steps.parquet").to_pylist(), names)


def _solutions(folder: Path | None, text: TextFormat, names: LevelNames) -> SolutionsSection | None:
    if folder is None:
        return None
    return solutions_section(read_table(folder / "choices.parquet").to_pylist(), text, names)


def _evaluator(folder: Path | None, names: LevelNames) -> EvaluatorSection | None:
    if folder is None or not (folder / "metrics.parquet").is_file():
        return None
    metrics, bins = (
        read_table(folder / f"{name}.parquet").to_pylist() for name in ("metrics", "reliability")
    )
    return evaluator_section(metrics, bins, names)
