"""Tables on disk: Parquet, zstd, and never half a file under the final name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.artifacts.reads import check

if TYPE_CHECKING:
    import pyarrow as pa


class TableError(ValueError):
    """A table that cannot be read; the message names the file and the mend."""


def write_table(path: Path, rows: pa.Table) -> None:
    """Write `rows` to a Parquet file, making its folder; a kill leaves the old file or none.

    The temporary name starts with a dot, so `read_table` on the folder never takes it for a part.
    """
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    with temporary.open("wb") as sink:
        pq.write_table(rows, sink, compression="zstd")
        sink.flush()
        os.fsync(sink.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, or a folder of `part-*.parquet` in name order.

    Args:
        path: a `.parquet` file or a folder.
        columns: only these columns, in this order; all where None.

    Raises:
        TableError: the file or a column is missing, or the file is not readable Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for part in table_files(path):
        try:
            with pq.ParquetFile(part) as file:
                missing = [c for c in columns or () if c not in file.schema_arrow.names]
                if missing:
                    raise TableError(
                        f"{part}: no column {', '.join(missing)}; it has {file.schema_arrow.names}"
                    )
                table = file.read(columns=list(columns) if columns is not None else None)
        except pa.ArrowInvalid as error:
            raise TableError(f"{part}: not a readable Parquet file ({error}); make it again") from None
        tables.append(table if columns is None else table.select(list(columns)))
    return pa.concat_tables(tables)


def table_files(path: Path) -> list[Path]:
    """The Parquet files behind a table path, in order.

    Raises:
        TableError: there is no such file, or the folder has no `part-*.parquet`.
    """
    path = Path(path)
    parts = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    if not parts or not parts[0].is_file():
        raise TableError(f"{path}: no Parquet file there, and no folder with part-*.parquet")
    for part in parts:
        check(part)
    return parts


def sync_folder(folder: Path) -> None:
    """Force a folder's entries (new names, renames) to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


TABLE = "data.parquet"
