"""Work in shards: finished shards are kept, damaged ones found, missing ones made.

A shard is a Parquet file. The function that makes it depends on its arguments alone, not on other
shards, so work on a folder can be killed at any moment, resumed and extended. Each shard has the
hash of its content in its schema metadata: reading a file shows whether it was cut short or
changed. The runner decides who computes, this process or a cluster; this process writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from e2h_pipeline.artifacts.hashing import parquet_hash, table_hash
from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import write_table

if TYPE_CHECKING:
    import pyarrow as pa

CONTENT = b"e2h.content"
"""Key of the content hash in a shard's schema metadata."""

Call = tuple[str, tuple[Any, ...]]
"""Name of a shard and arguments of the function that makes it: small and picklable, paths and
rows."""


class Runner(Protocol):
    """Computes shards."""

    def run(self, function: Callable[..., pa.Table], calls: Sequence[Call]) -> Iterator[tuple[str, pa.Table]]:
        """Call `function`, found by its module and name, for each shard; results in the order they
        come, each once."""
        ...


class LocalRunner:
    """Shards one after the other, in order, in this process."""

    def run(self, function: Callable[..., pa.Table], calls: Sequence[Call]) -> Iterator[tuple[str, pa.Table]]:
        """One table is in memory at a time."""
        for name, arguments in calls:
            try:
                table = function(*arguments)
            except Exception as error:
                error.add_note(f"in shard {name}")
                raise
            yield name, table
            del table


def complete_shards(
    folder: Path,
    calls: Sequence[Call],
    function: Callable[..., pa.Table],
    runner: Runner,
    reporter: Reporter,
    on_done: Callable[[str, pa.Table | None], None] | None = None,
) -> None:
    """Make the shards of `calls` that `folder` does not hold, as `folder/<name>.parquet`.

    Existing shards are first read and compared with their hash; a damaged one is reported and made
    again. Files of other names are left alone, so the folder may hold other shards too.

    Args:
        folder: made if needed. No other process may write to it at the same time.
        calls: one for each shard; names are unique.
        function: module-level, so that another process can import it.
        on_done: called with (name, None) for each existing shard, before any work begins, then with
            (name, table) for each new shard, once it is on disk.

    Raises:
        ValueError: two shards of one name.
    """
    if len({name for name, _ in calls}) < len(calls):
        raise ValueError(f"{folder}: two shards of one name")
    folder.mkdir(parents=True, exist_ok=True)
    for torn in folder.glob(".*.tmp"):  # half a file, from a process that was killed while it wrote
        torn.unlink()
    missing = []
    for call in calls:
        path = shard_path(folder, call[0])
        damage = shard_damage(path) if path.exists() else "not there"
        if damage is None:
            if on_done:
                on_done(call[0], None)
            continue
        if path.exists():
            reporter.message(f"{path}: {damage}; this shard is made again")
        missing.append(call)
    for name, table in runner.run(function, missing) if missing else ():
        write_shard(shard_path(folder, name), table)
        if on_done:
            on_done(name, table)
        del table


def shard_path(folder: Path, name: str) -> Path:
    """Path of the shard `name` in a folder."""
    return folder / f"{name}.parquet"


def write_shard(path: Path, rows: pa.Table) -> None:
    """Write a table with the hash of its content, whole or not at all."""
    metadata = {**(rows.schema.metadata or {}), CONTENT: table_hash(rows).encode()}
    write_table(path, rows.replace_schema_metadata(metadata))


def shard_damage(path: Path) -> str | None:
    """The damage of a shard, read to its end; None where it is whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            stated = (file.schema_arrow.metadata or {}).get(CONTENT)
        found = parquet_hash(path).encode()
    except (pa.ArrowException, OSError, ValueError) as error:
        return f"damaged ({str(error).splitlines()[0][:120]})"
    if stated is None:
        return "damaged (it does not state its content's hash)"
    return None if stated == found else "damaged (its content does not match its hash)"
