"""The context of long work: folders, seed, reporter, engine and runner."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.shards import LocalRunner, Runner


@dataclass(frozen=True)
class Work:
    """The context of a long-running function, passed besides its options.

    Attributes:
        out: folder of the result. Files that differ from run to run (timings) belong under
            `out/logs/` or `out/page/`: they are kept, but the data version leaves them out.
        folder: resumable work. It survives kills and is the same for the same artifact key. It is
            removed when the artifact is made, or stays where the stage grows.
        recipe_seed: seed of every random draw; None where the stage does not declare `seed`.
        reporter: progress and metrics.
        engine: the sampling engine, by its name in the registry.
        runner: computes the shards of work in shards.
    """

    out: Path
    folder: Path
    recipe_seed: int | None = None
    reporter: Reporter = field(default_factory=Reporter)
    engine: str = "transformers"
    runner: Runner = field(default_factory=LocalRunner)

    @property
    def seed(self) -> int:
        """Seed of every random draw.

        Raises:
            ValueError: the stage draws at random but does not name `seed` in its slice of the
                recipe.
        """
        if self.recipe_seed is None:
            raise ValueError("this stage reads the seed, which its slice does not name; add 'seed' to it")
        return self.recipe_seed

    def below(self, name: str) -> Work:
        """The same work one folder down: results in `out/name`, resumable work in `folder/name`."""
        return replace(self, out=self.out / name, folder=self.folder / name)
