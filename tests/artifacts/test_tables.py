"""Tables: complete or absent, read back in part order, errors name the file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from e2h_pipeline.artifacts.tables import TableError, read_table, write_table


def test_a_table_comes_back_as_written(tmp_path: Path) -> None:
    rows = pa.table({"problem_id": ["a", "b"], "labels": pa.array([[1, 0], []], pa.list_(pa.int8()))})
    write_table(tmp_path / "new" / "data.parquet", rows)
    assert read_table(tmp_path / "new" / "data.parquet").equals(rows)


def test_a_pool_is_read_in_part_order_and_ignores_unfinished_parts(tmp_path: Path) -> None:
    for number in (1, 0):
        write_table(tmp_path / f"part-{number:05d}.parquet", pa.table({"sample": [number]}))
    (tmp_path / ".part-00002.parquet.99.tmp").write_bytes(b"half a fi")
    assert read_table(tmp_path)["sample"].to_pylist() == [0, 1]


def test_columns_come_in_the_order_asked(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", pa.table({"a": [1], "b": [2], "c": [3]}))
    assert read_table(tmp_path / "t.parquet", ["c", "a"]).column_names == ["c", "a"]


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", pa.table({"a": [1]}))
    with pytest.raises(TableError, match=r"t\.parquet: no column answer"):
        read_table(tmp_path / "t.parquet", ["answer"])


@pytest.mark.parametrize("name", ["nothing.parquet", "."])
def test_nothing_there_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableError, match="no Parquet file"):
        read_table(tmp_path / name)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(TableError, match=r"t\.parquet: not a readable Parquet file"):
        read_table(tmp_path / "t.parquet")
