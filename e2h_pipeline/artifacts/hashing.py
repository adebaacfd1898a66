"""Content hashes: of a file's meaning, not of its byte layout.

Parquet is hashed column by column over its values, so compression, row groups and writer versions
do not matter; JSON by its canonical form; anything else (safetensors, text, images) by its bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 1 << 20
_BATCH_ROWS = 65_536

# Written into JSON by transformers and true of the machine, not of the model.
_MACHINE_FIELDS = frozenset({"_name_or_path", "name_or_path"})

# Folders of logs and pages, which hold times and costs, and the card of a model, which describes it.
UNVERSIONED = ("logs/", "page/", "README.md")


def digest_json(value: Any) -> str:
    """SHA-256 of a JSON value's canonical text, hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def byte_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def byte_hash_or_error(path: Path) -> str:
    """`byte_hash`, or why the file cannot be read: a state to compare with the next look."""
    try:
        return byte_hash(path)
    except OSError as error:
        return str(error.strerror or error)


def content_hash(path: Path, known_bytes: str | None = None) -> str:
    """SHA-256 of a file's meaning, hex. `known_bytes` saves a read where the meaning is bytes."""
    if path.suffix == ".parquet":
        return parquet_hash(path)
    if path.suffix == ".json":
        return _json_file_hash(path)
    return known_bytes or byte_hash(path)


def fingerprint(path: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of an external file, or of every file below a folder; {} for a
    missing one."""
    if path.is_file():
        return {path.name: remembered_hash(path)}
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {file.relative_to(path).as_posix(): remembered_hash(file) for file in files}


def remembered_hash(path: Path) -> str:
    """`byte_hash` of an external file, remembered while its size, times and inode stay the same.

    Plans ask for each member of a sweep, and a sensor asks every minute. The inode's change time is
    one of the times, because `touch` can set back only the modification time.

    Raises:
        OSError: it cannot be read.
    """
    seen = path.stat()  # before the read: a write in between changes the times for the next call
    return _hash_as_seen(path.absolute(), seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


@lru_cache(maxsize=4096)
def _hash_as_seen(path: Path, *_stat: int) -> str:
    return byte_hash(path)


def data_version(contents: Mapping[str, str]) -> str:
    """Version of an artifact from {relative path: content hash}; leaves out what is UNVERSIONED."""
    return digest_json(
        {name: digest for name, digest in contents.items() if not name.startswith(UNVERSIONED)}
    )


def parquet_hash(path: Path) -> str:
    """Hash of a Parquet file's columns (order, names, types, values), whatever its layout."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return _hash_batches(file.schema_arrow, file.iter_batches(batch_size=_BATCH_ROWS))


def table_hash(rows: pa.Table) -> str:
    """`parquet_hash` of a file with these rows. Times must be in ms, us or ns, as in Parquet."""
    return _hash_batches(rows.schema, rows.to_batches(max_chunksize=_BATCH_ROWS))


def _hash_batches(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> str:
    columns = [_Column(field.type) for field in schema]
    for batch in batches:
        for column, values in zip(columns, batch.columns, strict=True):
            column.update(values)
    return digest_json([[name, column.digest()] for name, column in zip(schema.names, columns, strict=True)])


def _json_file_hash(path: Path) -> str:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return byte_hash(path)
    if isinstance(value, dict):
        value = {name: item for name, item in value.items() if name not in _MACHINE_FIELDS}
    return digest_json(value)


class _Column:
    """Running hash of one column. Validity, lengths and values go to separate hashes, so the result
    does not depend on where batches are cut; nested types recurse into their children."""

    def __init__(self, kind: pa.DataType) -> None:
        import pyarrow as pa

        self._kind = _logical(kind)
        self._validity, self._lengths, self._values = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._children: list[_Column] = []
        if pa.types.is_large_list(self._kind):
            self._children = [_Column(self._kind.value_type)]
        elif pa.types.is_struct(self._kind):
            self._children = [_Column(field.type) for field in self._kind]

    def update(self, values: pa.Array) -> None:
        """Take in the next values of the column."""
        import pyarrow as pa

        values = values.cast(self._kind) if values.type != self._kind else values
        self._validity.update(_bytes(values.is_valid().cast(pa.uint8())))
        values = values.drop_null()
        if pa.types.is_large_list(self._kind):
            self._lengths.update(_bytes(values.value_lengths()))
            self._children[0].update(values.flatten())
        elif pa.types.is_struct(self._kind):
            for child, part in zip(self._children, values.flatten(), strict=True):
                child.update(part)
        elif pa.types.is_large_binary(self._kind):
            self._update_binary(values)
        elif not pa.types.is_null(self._kind):
            self._values.update(_bytes(values))

    def _update_binary(self, values: pa.Array) -> None:
        import numpy as np

        offsets = np.frombuffer(values.buffers()[1], dtype=np.int64)[values.offset :][: len(values) + 1]
        self._lengths.update(np.diff(offsets).tobytes())
        if len(offsets) and values.buffers()[2] is not None:
            self._values.update(memoryview(values.buffers()[2])[offsets[0] : offsets[-1]])

    def digest(self) -> list[Any]:
        """Type, hashes and children as JSON data."""
        return [
            _type_name(self._kind),
            self._validity.hexdigest(),
            self._lengths.hexdigest(),
            self._values.hexdigest(),
            [child.digest() for child in self._children],
        ]


def _logical(kind: pa.DataType) -> pa.DataType:
    """One type for types that hold the same values: strings as bytes, lists with long offsets, and
    so on."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _logical(kind.value_type)
    if pa.types.is_map(kind):
        return _logical(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.large_list(_logical(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _logical(field.type)) for field in kind])
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return pa.large_binary()
    if pa.types.is_boolean(kind):
        return pa.uint8()
    return kind


def _type_name(kind: pa.DataType) -> str:
    """Name of a type; the children of a nested type are not part of it."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return "struct:" + json.dumps([field.name for field in kind])
    return "list" if pa.types.is_large_list(kind) else str(kind)


def _bytes(values: pa.Array) -> bytes:
    """Little-endian bytes of a fixed-width column without nulls."""
    import pyarrow as pa

    if pa.types.is_date32(values.type) or pa.types.is_time32(values.type):
        values = values.cast(pa.int32())
    elif pa.types.is_temporal(values.type):
        values = values.cast(pa.int64())
    elif pa.types.is_decimal(values.type):
        return "\0".join(str(value) for value in values.to_pylist()).encode() + b"\0"
    return values.to_numpy(zero_copy_only=False).tobytes()
