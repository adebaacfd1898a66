"""Content hashes depend on all values, and on nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e2h_pipeline.artifacts import hashing
from e2h_pipeline.artifacts.hashing import content_hash, data_version, fingerprint, parquet_hash

SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("level", pa.int8()),
        ("finished", pa.bool_()),
        ("logprob", pa.float32()),
        ("steps", pa.list_(pa.string())),
        ("origin", pa.struct([("file", pa.string()), ("lines", pa.list_(pa.int32()))])),
    ]
)
optional_text = st.none() | st.text(max_size=5)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "problem_id": optional_text,
            "level": st.none() | st.integers(1, 5),
            "finished": st.none() | st.booleans(),
            "logprob": st.none() | st.floats(-1, 0, width=32),
            "steps": st.none() | st.lists(optional_text, max_size=3),
            "origin": st.none()
            | st.fixed_dictionaries(
                {"file": optional_text, "lines": st.none() | st.lists(st.integers(0, 9), max_size=2)}
            ),
        }
    ),
    max_size=6,
)
quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _hash(path: Path, table: pa.Table, **options: Any) -> str:
    pq.write_table(table, path, **options)
    return parquet_hash(path)


@quick
@given(rows)
def test_the_layout_on_disk_does_not_matter(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(records, SCHEMA)
    plain = _hash(tmp_path / "a.parquet", table, compression="none")
    assert plain == _hash(tmp_path / "b.parquet", table, compression="gzip", row_group_size=1)
    assert plain == _hash(tmp_path / "c.parquet", table, use_dictionary=False, data_page_version="2.0")


@quick
@given(rows, rows)
def test_other_rows_hash_otherwise(
    tmp_path: Path, one: list[dict[str, Any]], two: list[dict[str, Any]]
) -> None:
    first, second = pa.Table.from_pylist(one, SCHEMA), pa.Table.from_pylist(two, SCHEMA)
    equal = _hash(tmp_path / "a.parquet", first) == _hash(tmp_path / "b.parquet", second)
    assert equal == first.equals(second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": ["ab", "c"]}, {"a": ["a", "bc"]}),
        ({"a": [["x"], []]}, {"a": [[], ["x"]]}),
        ({"a": [None, 1]}, {"a": [0, 1]}),
        ({"a": [1]}, {"b": [1]}),
        ({"a": [1], "b": [2]}, {"b": [2], "a": [1]}),
        ({"a": pa.array([1], pa.int8())}, {"a": pa.array([1], pa.int32())}),
    ],
)
def test_small_differences_count(tmp_path: Path, one: Any, other: Any) -> None:
    assert _hash(tmp_path / "a.parquet", pa.table(one)) != _hash(tmp_path / "b.parquet", pa.table(other))


def test_schema_metadata_does_not_count(tmp_path: Path) -> None:
    table = pa.table({"a": [1]})
    marked = table.replace_schema_metadata({"written": "today"})
    assert _hash(tmp_path / "a.parquet", table) == _hash(tmp_path / "b.parquet", marked)


def test_json_counts_by_meaning_and_not_by_where_it_was_saved(tmp_path: Path) -> None:
    one, other = tmp_path / "config.json", tmp_path / "other.json"
    one.write_text(json.dumps({"hidden": 8, "layers": 2, "_name_or_path": "/tmp/x"}))
    other.write_text('{\n "layers": 2,\n "hidden": 8}')
    assert content_hash(one) == content_hash(other)
    other.write_text('{"layers": 3, "hidden": 8}')
    assert content_hash(one) != content_hash(other)


def test_logs_and_pages_are_no_part_of_the_data_version() -> None:
    content = {"data.parquet": "1", "logs/times.json": "2", "page/report.html": "3"}
    assert data_version(content) == data_version({"data.parquet": "1"})
    assert data_version(content) != data_version({**content, "logs.json": "2"})


def test_a_fingerprint_names_every_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("1")
    before = fingerprint(tmp_path)
    (tmp_path / "sub" / "a").write_text("2")
    assert list(before) == ["sub/a"]
    assert fingerprint(tmp_path) != before
    assert fingerprint(tmp_path / "missing") == {}


def test_what_is_not_ours_is_read_again_only_when_it_may_have_changed(tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"one")
    first = fingerprint(tmp_path)
    read = hashing._hash_as_seen.cache_info().misses
    assert fingerprint(tmp_path) == first
    assert hashing._hash_as_seen.cache_info().misses == read
    times = weights.stat()
    weights.write_bytes(b"two")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if nothing had happened
    assert fingerprint(tmp_path) != first
    weights.unlink()
    assert fingerprint(tmp_path) == {}
