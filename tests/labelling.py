"""Make step labels like the stage, from a folder with `easy/data.parquet` and
`samples/data/part-*.parquet`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.problems.domain import Domain
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import FAMILIES, Sampling
from e2h_pipeline.supervision.step_labels import label_easy_steps

Rows = list[dict[str, Any]]


def label_steps(
    folder: Path,
    *sources: Mapping[str, Any],
    domain: Domain = LADDER,
    sampling: Sampling | None = None,
    policy: Path | None = None,
    reporter: Reporter | None = None,
) -> tuple[Rows, dict[str, Any]]:
    """Rows and summary from label sources, with seed 0.

    Args:
        folder: the labels go to `out` below it, resumable work to `work`.
        policy: the base model too.
        sources: `labels` as in a recipe file.
    """
    summary = label_easy_steps(
        inputs={
            "easy_problems": folder / "easy",
            "easy_samples": folder / "samples",
            "sft_policy": policy or folder,
            "base_model": policy or folder,
            "hard_questions": folder / "hard",
        },
        labels=[FAMILIES["labels"].parse(source) for source in sources],
        domain=domain,
        sampling=sampling or Sampling(shard_questions=1),
        grader="exact",
        work=Work(folder / "out", folder / "work", 0, reporter or Reporter()),
    )
    return read_table(folder / "out" / "data.parquet").to_pylist(), summary
