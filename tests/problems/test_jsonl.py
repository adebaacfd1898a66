"""Arrays are read in pieces: the elements do not depend on the cuts, and damage is an error."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.problems import jsonl
from e2h_pipeline.problems.jsonl import BadLine, field, parse_each, read_jsonl
from e2h_pipeline.problems.records import ProblemError

TEXTS = st.text(alphabet='ab[]{},:"\\ \n\u00e9\U0001d11e', max_size=12)
RECORDS = st.lists(st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS, max_size=2), max_size=3), max_size=6)


def whole(record: dict[str, Any], path: Path, line: int) -> tuple[int, dict[str, Any]]:
    return line, record


@given(RECORDS, st.integers(1, 40), st.sampled_from([None, 2]), st.booleans(), st.booleans())
def test_elements_are_those_of_the_array_wherever_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[dict[str, Any]],
    chunk: int,
    indent: int | None,
    packed: bool,
    ascii_only: bool,
) -> None:
    path = tmp_path_factory.mktemp("array") / ("x.json.gz" if packed else "x.json")
    text = ("\n " + json.dumps(records, indent=indent, ensure_ascii=ascii_only) + "\n").encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_CHUNK", chunk)
        assert list(parse_each(path, whole)) == list(enumerate(records, start=1))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "ends behind element 0: not an array of JSON objects"),
        ('{"a": 1}\n{"a": 2}\n', r"'\{' behind element 0, not '\['.*call it \.jsonl"),
        ('[{"a": 1}, {"a": 2}', "ends behind element 2"),
        ('[{"a": 1}, {"a": ', "ends behind element 1"),
        ('[{"a": 1} {"a": 2}]', r"'\{' behind element 1, not ','"),
        ('[{"a": 1},]', r"'\]' behind element 1, not '\{'"),
        ("[1, 2]", r"'1' behind element 0, not '\{'"),
        ('[{"a": nothing}]', "ends behind element 0"),
        (b'[{"a": "\xff"}]', "not UTF-8 behind element 0"),
    ],
)
def test_a_damaged_array_is_refused(tmp_path: Path, text: str | bytes, says: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ProblemError, match=says):
        list(parse_each(path, whole))


def test_a_cut_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json.gz"
    path.write_bytes(gzip.compress(json.dumps([{"a": i} for i in range(500)]).encode())[:-20])
    with pytest.raises(ProblemError, match=r"x\.json\.gz: damaged"):
        list(parse_each(path, whole))


def test_an_endless_element_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "_CHUNK", 10)
    monkeypatch.setattr(jsonl, "_LARGEST", 100)
    path = tmp_path / "x.json"
    path.write_text('[{"a": "' + "x" * 10_000 + '"}]')
    with pytest.raises(ProblemError, match="element 1 is not JSON"):
        list(parse_each(path, whole))


def test_an_element_that_is_refused_comes_as_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('[{"a": 1}, {"b": 2}, {"a": 3}]')
    found = list(parse_each(path, lambda record, path, line: field(record, "a", int, path, line)))
    assert found == [1, BadLine("x.json", 2, "no field 'a'; there are b"), 3]


def test_a_line_that_is_too_long_is_one_bad_line_and_is_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "_LONGEST_LINE", 100)
    path = tmp_path / "lines.jsonl"
    fits = '{"a": "' + "x" * 90 + '"}\n'
    path.write_text(fits + '{"a": "' + "x" * 5000 + '"}\n' + '{"a": "last"}\n' + "[" * 300)
    first, long, last, end = parse_each(path, lambda record, *_: record["a"])
    assert (first, last) == ("x" * 90, "last")
    assert [str(bad) for bad in (long, end)] == [
        f"lines.jsonl:{line}: longer than 0 MiB; shorten or delete the line" for line in (2, 4)
    ]
    with pytest.raises(ProblemError, match=r"lines\.jsonl:2: longer than"):
        list(read_jsonl(path))
    assert max(len(line) for _, line in jsonl._lines(path.open("rb"), path)) == 101


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_is_no_error(tmp_path: Path, packed: bool) -> None:
    """Windows' editors and spreadsheets write one."""
    pack = gzip.compress if packed else bytes
    end = ".gz" if packed else ""
    lines, array = tmp_path / f"lines.jsonl{end}", tmp_path / f"array.json{end}"
    lines.write_bytes(pack(b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n'))
    array.write_bytes(pack(b'\xef\xbb\xbf[{"a": 1}, {"a": 2}]'))
    for path in (lines, array):
        assert list(parse_each(path, lambda record, *_: record["a"])) == [1, 2]
    assert [record["a"] for _, record in read_jsonl(lines)] == [1, 2]
