"""TODO: docstring."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table, table_files
from e2h_pipeline.rl.curricula import State

if TYPE_CHECKING:
    pass


@dataclass
class Progress:
    """Where a run is; with the checkpoint's tensors it is the whole state, for every draw is counted."""

    update: int = 0
    best_update: int = 0
    best_accuracy: float = -1.0
    stopped: str | None = None
    kl_coefficient: float = 0.0
    curriculum: State = field(default_factory=dict)
    curves: list[dict[str, float]] = field(default_factory=list)

    def note(self, accuracy: float) -> None:
        """The best checkpoint so far; of equals the later one, which has seen more hard questions."""
        if accuracy >= self.best_accuracy:
            self.best_accuracy, self.best_update = accuracy, self.update


def rollouts_of(work: Path, update: int) -> Path:
    """Where a run keeps what is kept of an update's rollouts, until it ends."""
    return work / "rollouts" / f"part-{update:06d}.parquet"


def _write_rollouts(work: Path, out: Path, updates: int) -> None:
    """All rollouts of a run in one table; a run killed behind its last checkpoint left some that do not count."""
    import pyarrow.parquet as pq

    parts = table_files(work / "rollouts")[:updates] if updates else []
    if not parts:
        return
    with pq.ParquetWriter(out / "rollouts.parquet", pq.read_schema(parts[0]), compression="zstd") as writer:
        for part in parts:
            writer.write_table(read_table(part))


def finish(progress: Progress, best: Path, out: Path, work: Path) -> dict[str, Any]:
    """Save the best policy, the curves and the rollouts of a run to `out`, and give its summary."""
    shutil.copytree(best, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
    lines = [
        json.dumps({"update": i + 1, **{name: v for name, v in metrics.items() if math.isfinite(v)}})
        for i, metrics in enumerate(progress.curves)
    ]
    (out / "curves.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_rollouts(work, out, progress.update)
    return {
        "updates": progress.update,
        "best_update": progress.best_update,
        "easy_validation_accuracy": progress.best_accuracy,
        "stopped": progress.stopped,
        **{
            f"final_{name}": value for name, value in (progress.curves[-1] if progress.curves else {}).items()
        },
    }
