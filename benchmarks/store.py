"""How long queries take in a store of many artifacts.

    python benchmarks/store.py --home FOLDER [--experiments 500] [--stages 20]

Fills a fresh home with experiments x stages small artifacts (10,000 by default) through the real
ArtifactStore. One real run per experiment records them in a real Dagster instance; each lineage is
as deep as the number of stages. Then measures the lineage of one result, verification against `cat`
and `sha256sum` of the same files, and a plan of garbage collection. With --real KEY the home also
holds an experiment made by `e2h run KEY`; its lineage, difference and report are timed among all
others. With --large-mb N verification is also measured on models: eight files of N MB in total, in
a store of their own. Prints a table, then one JSON line.
"""

# No `from __future__ import annotations`: Dagster wants the real type of `context`.

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from e2h_pipeline.artifacts.garbage import plan_collection
from e2h_pipeline.artifacts.inventory import take_inventory
from e2h_pipeline.artifacts.lineage import ancestors, trace
from e2h_pipeline.artifacts.manifest import InputRef
from e2h_pipeline.artifacts.request import Artifact, Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.verify import verify_store
from e2h_pipeline.orchestration.instance import open_instance
from e2h_pipeline.orchestration.records import record_findings, wanted_places
from resources.store import ARTIFACT_KEY, latest_artifact

T = TypeVar("T")

_PARTITIONS = "experiment"
_BYTES = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--experiments", type=int, default=500)
    parser.add_argument("--stages", type=int, default=20)
    parser.add_argument("--real", default="", help="key of an experiment that was run in this home")
    parser.add_argument("--large-mb", type=int, default=0)
    options = parser.parse_args()
    os.environ["E2H_HOME"] = str(options.home)
    figures: dict[str, Any] = {"materializations": options.experiments * options.stages}
    store = ArtifactStore(options.home)
    with open_instance(options.home) as instance:
        if not (store.root / _stage_name(0)).exists():
            figures["fill_s"], _ = timed(lambda: fill(instance, store, options.experiments, options.stages))
        measure(instance, store, options.experiments // 2, options.stages, figures)
        if options.real:
            measure_real(instance, store, options.real, figures)
    if options.large_mb:
        measure_large(ArtifactStore(options.home / "large"), options.large_mb, figures)
    for name, value in figures.items():
        print(f"{name:32}{value:>14,.3f}" if isinstance(value, float) else f"{name:32}{value:>14,}")
    print(json.dumps(figures))


def fill(instance: dg.DagsterInstance, store: ArtifactStore, experiments: int, stages: int) -> None:
    """Make every experiment: a chain of stages, each made from the two before it."""
    keys = [f"bench/seed={number}" for number in range(experiments)]
    instance.add_dynamic_partitions(_PARTITIONS, keys)
    for number, key in enumerate(keys):
        made: list[Artifact] = []
        for stage in range(stages):
            made.append(_make(store, stage, number, key, made[-2:]))
        _record(instance, key, made)
        if number % 50 == 49:
            print(f"{(number + 1) * stages:,} materializations", file=sys.stderr, flush=True)


def _stage_name(stage: int) -> str:
    return f"bench_stage_{stage:02d}"


def _make(store: ArtifactStore, stage: int, number: int, key: str, inputs: list[Artifact]) -> Artifact:
    def body(draft: Draft) -> None:
        (draft.out / "data.bin").write_bytes(os.urandom(_BYTES))
        draft.summary = {"number": number, "stage": stage}

    refs = {a.asset: InputRef(key=a.key, data_version=a.data_version) for a in inputs}
    request = Request(_stage_name(stage), "c0de", {"seed": number}, refs, experiment=key)
    return store.obtain(request, body)[0]


def _record(instance: dg.DagsterInstance, key: str, made: list[Artifact]) -> None:
    """One Dagster run that reports all artifacts of an experiment."""

    @dg.op
    def report(context: dg.OpExecutionContext) -> None:
        for artifact in made:
            context.log_event(
                dg.AssetMaterialization(
                    artifact.asset,
                    partition=key,
                    metadata={ARTIFACT_KEY: artifact.key, "reused": False},
                    tags={"dagster/data_version": artifact.data_version},
                )
            )

    @dg.job(logger_defs={"console": dg.colored_console_logger})
    def bench() -> None:
        report()

    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    bench.execute_in_process(instance=instance, run_config=quiet, tags={"dagster/partition": key})


def measure(
    instance: dg.DagsterInstance, store: ArtifactStore, middle: int, stages: int, figures: dict[str, Any]
) -> None:
    """Time queries to the whole store. Disk caches are warm: the files were just written or
    read."""
    key, last = f"bench/seed={middle}", _stage_name(stages - 1)

    def lineage() -> int:
        artifact = latest_artifact(instance, store, last, key)
        if artifact is None:
            raise SystemExit(f"{key} has no {last}; give the numbers this home was filled with")
        return len(ancestors(trace(store, artifact)))

    figures["lineage_s"], figures["lineage_artifacts"] = timed(lineage)
    seconds, result = timed(lambda: verify_store(store))
    figures |= {
        "verify_s": seconds,
        "verify_artifacts": result.artifacts,
        "verify_files": result.files,
        "verify_findings": len(result.findings),
    }
    figures["cat_s"], _ = timed(lambda: over_files(store, ["cat"]))
    figures["sha256sum_s"], _ = timed(lambda: over_files(store, ["sha256sum"]))
    figures["verify_to_sha256sum"] = figures["verify_s"] / figures["sha256sum_s"]
    figures["list_s"], _ = timed(lambda: take_inventory(store))
    figures["records_s"], found = timed(lambda: record_findings(instance, store))
    figures["records_findings"] = len(found)
    figures["gc_wanted_s"], wanted = timed(lambda: wanted_places(instance))
    figures["gc_plan_s"], plan = timed(lambda: plan_collection(store, wanted, {}, grace_seconds=0))
    figures["gc_artifacts"] = sum(item.kind == "artifact" for item in plan.garbage)


def measure_real(
    instance: dg.DagsterInstance, store: ArtifactStore, key: str, figures: dict[str, Any]
) -> None:
    """Time queries to an experiment of the real stages among all others."""
    from e2h_pipeline.orchestration.experiments import Experiments
    from resources.store import DagsterLedger

    experiments = Experiments(DagsterLedger(instance), store)
    figures["real_lineage_s"], _ = timed(lambda: experiments.lineage(key))
    figures["real_diff_s"], _ = timed(lambda: experiments.difference(key, key))
    report = experiments.artifact("report", key)
    figures["report_s"], _ = timed(lambda: _report_again(store, report))


def _report_again(store: ArtifactStore, report: Artifact) -> None:
    """Run the body of the report stage on the same inputs."""
    import tempfile

    from e2h_pipeline.artifacts.lineage import as_rows
    from e2h_pipeline.report.html import Subject, write_report

    inputs = {asset: store.open(asset, ref.key) for asset, ref in report.manifest.inputs.items()}
    with tempfile.TemporaryDirectory() as folder:
        write_report(
            inputs={name: artifact.path for name, artifact in inputs.items()},
            lineage=as_rows(*(trace(store, artifact) for artifact in inputs.values())),
            out=Path(folder),
            about=Subject(report.manifest.experiment, report.manifest.recipe),
        )


def measure_large(store: ArtifactStore, megabytes: int, figures: dict[str, Any]) -> None:
    """Time verification of large files."""

    def body(draft: Draft) -> None:
        for number in range(8):
            (draft.out / f"model-{number}.safetensors").write_bytes(os.urandom(megabytes * 125_000))

    store.obtain(Request("base_model", "c0de", {"megabytes": megabytes}), body)
    figures["large_mb"] = megabytes
    figures["large_cat_s"], _ = timed(lambda: over_files(store, ["cat"]))
    figures["large_sha256sum_s"], _ = timed(lambda: over_files(store, ["sha256sum"]))
    figures["large_verify_s"], _ = timed(lambda: verify_store(store))
    figures["large_one_thread_s"], _ = timed(lambda: verify_store(store, threads=1))
    figures["large_mb_per_s"] = megabytes / figures["large_verify_s"]


def over_files(store: ArtifactStore, command: list[str]) -> None:
    """Run a tool over every data file of the store, in as few processes as the system allows."""
    find = ["find", str(store.root), "-type", "f", "-not", "-path", "*/.*", "-not", "-name", "manifest.json"]
    listed = subprocess.run([*find, "-print0"], check=True, capture_output=True).stdout
    subprocess.run(["xargs", "-0", *command], input=listed, check=True, stdout=subprocess.DEVNULL)


def timed(action: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and the returned value."""
    started = time.perf_counter()
    found = action()
    return time.perf_counter() - started, found


if __name__ == "__main__":
    main()
