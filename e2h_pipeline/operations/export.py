"""An experiment as a folder of its own: for a paper's supplement, or another machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.exchange import ARTIFACTS, SUMS, new_folder, write_bundle, write_sums
from e2h_pipeline.artifacts.json_text import json_text
from e2h_pipeline.artifacts.lineage import ancestors, trace
from e2h_pipeline.artifacts.request import Artifact, StoreError
from e2h_pipeline.evaluation.results import select
from e2h_pipeline.orchestration.experiments import Experiments, report_page
from e2h_pipeline.report.html import with_leaks
from e2h_pipeline.stages.names import NAMES
from e2h_pipeline.stages.words import REPORT_STAGE
from resources.ledger import latest_artifact

_README = """\
# {key}

An experiment of e2h_pipeline: all of its artifacts with their manifests, its numbers, and what fed them.
{standing}
Easy data: version {easy}.

{numbers}
| | |
|---|---|
| `report.html` | the report: open it in a browser |
| `results.json` | every number with its interval and its data versions |
| `lineage.json` | each number back to its easy data |
| `{artifacts}/<asset>/<key>/` | what every stage made; `manifest.json` says from what, how, and the hash of each file |
| `{sums}` | hashes of all files here: `sha256sum -c {sums}` |

{left_out}`e2h import FOLDER` checks all of it and puts the artifacts into a store, where the same
version of the code reuses them. Models are folders as transformers loads them.
"""


def export(
    experiments: Experiments, key: str, folder: Path, without: Collection[str] = ()
) -> Sequence[Artifact]:
    """Write an experiment into a new folder; the artifacts that it has.

    Args:
        without: assets of which the manifest alone is written.

    Raises:
        StoreError: the experiment has no results, an artifact is damaged, or the folder is there.
    """
    unknown = sorted(set(without) - set(NAMES))
    if unknown:
        raise StoreError(f"no asset '{unknown[0]}'; there are: {', '.join(NAMES)}")
    results, lineage = experiments.results(key), experiments.lineage(key)
    made = artifacts_of(experiments, key)
    with new_folder(folder) as draft:
        write_bundle(experiments.store, made, draft, without)
        for name, value in (("results", results), ("lineage", lineage)):
            (draft / f"{name}.json").write_text(json_text(value) + "\n", encoding="utf-8")
        report = next((artifact for artifact in made if artifact.asset == REPORT_STAGE), None)
        if report is not None:
            page = report_page(report.path).read_text(encoding="utf-8")
            standing = experiments.standing(key)
            marked = with_leaks(page, standing.leaks, standing.outdated, standing.strict)
            (draft / "report.html").write_text(marked, encoding="utf-8")
        (draft / "README.md").write_text(_readme(key, results, lineage, without), encoding="utf-8")
        write_sums(draft)
    return made


def artifacts_of(experiments: Experiments, key: str) -> list[Artifact]:
    """What the stages of an experiment made last, and all that this was made from."""
    latest = (latest_artifact(experiments.ledger, experiments.store, name, key) for name in NAMES)
    found: dict[tuple[str, str], Artifact] = {}
    for artifact in filter(None, latest):
        for node in ancestors(trace(experiments.store, artifact)):
            found[node.artifact.asset, node.artifact.key] = node.artifact
    return [found[place] for place in sorted(found)]


def _readme(
    key: str, results: Sequence[Mapping[str, Any]], lineage: Mapping[str, Any], without: Collection[str]
) -> str:
    leaks = list(dict.fromkeys(leak for row in results for leak in row["leaks"]))
    standing = (
        f"\n**These numbers do not count**: the supervision firewall found {leaks[0]}.\n" if leaks else ""
    )
    if not leaks and not all(row["strict"] for row in results):
        standing = "\nIt is not strict: hard answers may have been seen.\n"
    left_out = f"Left out, but for their manifests: {', '.join(sorted(without))}.\n\n" if without else ""
    return _README.format(
        key=key,
        standing=standing,
        easy=lineage["easy_data_version"],
        numbers=_numbers(select(list(results))),
        artifacts=ARTIFACTS,
        sums=SUMS,
        left_out=left_out,
    )


def _numbers(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"| {row['policy']} | {row['method']} {row['aggregation']} | {row['n']} | {row['levels']} | "
        f"{100 * row['accuracy']:.1f} [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}] |\n"
        for row in rows
    ]
    benchmark = rows[0]["benchmark"] if rows else ""
    return (
        f"| policy | method | N | levels | accuracy on {benchmark}, % |\n|---|---|---|---|---|\n"
        + "".join(lines)
    )
