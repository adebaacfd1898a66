"""The state of a run, and its results: policy, curves, rollouts and a summary."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table, table_files

if TYPE_CHECKING:
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.rl.curricula import State


@dataclass
class Progress:
    """Progress of a run. With a checkpoint's tensors it is the whole state: draws are
    counter-based.

    Attributes:
        update: updates done, or rounds.
        best_update: updates behind the policy that is best on easy validation; 0 is the SFT policy.
        best_accuracy: its accuracy on easy validation.
        stopped: why a guard stopped the run.
        kl_coefficient: for the next update.
        curriculum: state of the curriculum.
        curves: metrics of each update.
    """

    update: int = 0
    best_update: int = 0
    best_accuracy: float = -1.0
    stopped: str | None = None
    kl_coefficient: float = 0.0
    curriculum: State = field(default_factory=dict)
    curves: list[dict[str, float]] = field(default_factory=list)

    def note(self, accuracy: float) -> None:
        """Compare the present checkpoint with the best.

        Ties go to the later one, which has seen more hard questions.
        """
        if accuracy >= self.best_accuracy:
            self.best_accuracy, self.best_update = accuracy, self.update


def rollouts_of(work: Path, update: int) -> Path:
    """File of an update's rollouts in the work folder, until the run ends."""
    return work / "rollouts" / f"part-{update:06d}.parquet"


def finish(progress: Progress, best: Path, work: Work) -> dict[str, Any]:
    """Save the best policy, the curves and the rollouts to `work.out`; returns the summary.

    Args:
        best: folder of the best policy.
    """
    shutil.copytree(best, work.out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
    lines = [
        json.dumps({"update": i + 1, **{name: v for name, v in metrics.items() if math.isfinite(v)}})
        for i, metrics in enumerate(progress.curves)
    ]
    (work.out / "curves.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_rollouts(work, progress.update)
    final = progress.curves[-1] if progress.curves else {}
    return {
        "updates": progress.update,
        "best_update": progress.best_update,
        "easy_validation_accuracy": progress.best_accuracy,
        "stopped": progress.stopped,
        **{f"final_{name}": value for name, value in final.items()},
    }


def _write_rollouts(work: Work, updates: int) -> None:
    """All rollouts that count, in one table; a run killed after its last checkpoint left more."""
    import pyarrow.parquet as pq

    parts = table_files(work.folder / "rollouts")[:updates] if updates else []
    if not parts:
        return
    schema = pq.read_schema(parts[0])
    with pq.ParquetWriter(work.out / "rollouts.parquet", schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(read_table(part))
