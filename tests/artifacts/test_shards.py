"""Shards: made once and kept; damaged ones are found, and only they are made again."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from e2h_pipeline.artifacts.hashing import parquet_hash, table_hash
from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.shards import (
    CONTENT,
    Call,
    LocalRunner,
    complete_shards,
    shard_damage,
    write_shard,
)
from e2h_pipeline.artifacts.tables import read_table, write_table

CALLS: list[Call] = [(f"part-{number}", (number,)) for number in range(4)]
made: list[int] = []


def squares(number: int) -> pa.Table:
    made.append(number)
    rows = range(number * 10, number * 10 + 10)
    return pa.table(
        {"n": pa.array(rows, pa.int32()), "text": [str(n * n) for n in rows], "ids": [[n] * 3 for n in rows]}
    )


class Told(Reporter):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def _complete(folder: Path, calls: list[Call] = CALLS) -> tuple[list[int], list[str], list[str]]:
    """Run; the shards made, the shards found, and the messages."""
    made.clear()
    told, kept = Told(), []
    complete_shards(
        folder,
        calls,
        squares,
        LocalRunner(),
        told,
        lambda name, table: kept.append(name) if table is None else None,
    )
    return list(made), kept, told.lines


def test_what_is_there_is_kept_and_what_is_missing_is_made(tmp_path: Path) -> None:
    assert _complete(tmp_path, CALLS[:2]) == ([0, 1], [], [])
    assert _complete(tmp_path) == ([2, 3], ["part-0", "part-1"], [])
    assert _complete(tmp_path) == ([], ["part-0", "part-1", "part-2", "part-3"], [])
    assert read_table(tmp_path, ["n"])["n"].to_pylist() == list(range(40))


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b[:-1], lambda b: b"", lambda b: b"\0" * len(b)]
)
def test_a_torn_shard_is_named_and_made_again_alone(tmp_path: Path, damage: object) -> None:
    _complete(tmp_path)
    file = tmp_path / "part-2.parquet"
    whole = file.read_bytes()
    file.write_bytes(damage(whole))  # type: ignore[operator]
    again, kept, said = _complete(tmp_path)
    assert again == [2] and kept == ["part-0", "part-1", "part-3"]
    assert len(said) == 1 and "part-2.parquet: damaged" in said[0] and "made again" in said[0]
    assert file.read_bytes() == whole


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path) -> None:
    """A flip is found, or it is in a byte that carries no content."""
    file = tmp_path / "part-0.parquet"
    write_shard(file, squares(0))
    rows, whole = read_table(file), file.read_bytes()
    chance, found = random.Random(5), 0
    for _ in range(300):
        at = chance.randrange(len(whole))
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :])
        if shard_damage(file):
            found += 1
        else:
            assert read_table(file).equals(rows)
    assert found > 150


def test_other_rows_under_the_same_hash_are_found(tmp_path: Path) -> None:
    file = tmp_path / "part-0.parquet"
    write_shard(file, squares(0))
    stated = pq.read_schema(file).metadata
    write_table(file, squares(1).replace_schema_metadata({CONTENT: stated[CONTENT]}))
    assert shard_damage(file) == "damaged (its content does not match its hash)"
    write_table(file, squares(1))
    assert shard_damage(file) == "damaged (it does not state its content's hash)"


def test_the_hash_of_rows_is_the_hash_of_their_file(tmp_path: Path) -> None:
    rows = pa.concat_tables([squares(0), squares(1)]).slice(3, 14)
    write_shard(tmp_path / "a.parquet", rows)
    assert table_hash(rows) == parquet_hash(tmp_path / "a.parquet")
    empty = rows.slice(0, 0)
    write_shard(tmp_path / "b.parquet", empty)
    assert shard_damage(tmp_path / "b.parquet") is None


def test_leftovers_of_a_kill_are_swept_and_other_files_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".part-0.parquet.99.tmp").write_bytes(b"half a fi")
    (tmp_path / "part-9.parquet").write_bytes(b"another's")
    _complete(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"part-{n}.parquet" for n in (0, 1, 2, 3, 9)]


def test_an_error_names_its_shard(tmp_path: Path) -> None:
    with pytest.raises(TypeError) as caught:
        _complete(tmp_path, [*CALLS[:1], ("part-x", ("x",))])
    assert caught.value.__notes__ == ["in shard part-x"]
    assert (tmp_path / "part-0.parquet").exists()


def test_a_name_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two shards of one name"):
        _complete(tmp_path, [CALLS[0], CALLS[0]])
