"""Stages open only what they declare: attacks on the supervision firewall."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
import thieves
import toy_stages as toy

from e2h_pipeline.artifacts.reads import (
    ChangedWhileReadError,
    Reads,
    UndeclaredReadError,
    enforced,
    require_unchanged,
    state_of,
)
from e2h_pipeline.artifacts.tables import write_table
from resources import landlock

STAGES = [*toy.TOYS, thieves.thief]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dg.DagsterInstance]]:
    """A home in which `toy_gold` and `toy_easy` were made."""
    home = tmp_path_factory.mktemp("home")
    with dg.DagsterInstance.ephemeral() as instance:
        toy.materialize(home, instance)
        yield home, instance


def _steal(
    world: tuple[Path, dg.DagsterInstance], place: Path, way: str, mode: str, patch: pytest.MonkeyPatch
) -> str:
    """Run the thief; returns the error, or nothing where it got away."""
    home, instance = world
    patch.setenv("TOY_PLACE", str(place))
    patch.setenv("TOY_WAY", way)
    patch.setenv("TOY_LINK", str(home.parent / f"link-{mode}"))
    patch.syspath_prepend(str(Path(__file__).parents[1]))
    found = toy.materialize(home, instance, STAGES, mode, raise_on_error=False)
    failures = [event for event in found.all_events if event.is_step_failure]
    error = failures[0].step_failure_data.error if failures else None
    return f"{error.message} {error.cause.message if error.cause else ''}" if error else ""


def _gold(home: Path) -> Path:
    (found,) = (home / "store" / "toy_gold").glob("*/data.parquet")
    return found


@pytest.mark.parametrize("way", [way for way in thieves.WAYS if way not in thieves.NATIVE])
def test_an_undeclared_artifact_cannot_be_opened_in_process(
    world: tuple[Path, dg.DagsterInstance], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gold = _gold(world[0])
    told = _steal(world, gold, way, "in_process", monkeypatch)
    assert "UndeclaredReadError" in told and f"thief opened {gold.parent}" in told and "`reads`" in told
    assert not list((world[0] / "store" / "thief").glob("*"))


@pytest.mark.skipif(not landlock.available(), reason="this kernel has no Landlock")
@pytest.mark.parametrize("way", ["hidden", *thieves.NATIVE])
def test_an_undeclared_artifact_cannot_be_opened_in_a_worker(
    world: tuple[Path, dg.DagsterInstance], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gold = _gold(world[0])
    told = _steal(world, gold, way, "subprocess", monkeypatch)
    assert "thief: worker ended with status 1" in told
    assert way == "child" or (str(gold) in told and "`reads`" in told)
    assert not list((world[0] / "store" / "thief").glob("*"))


def test_outside_data_cannot_be_opened(
    world: tuple[Path, dg.DagsterInstance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    write_table(data / "math" / "math500.parquet", pa.table({"answer": ["42"]}))
    monkeypatch.setenv("E2H_DATA_DIR", str(data))
    told = _steal(world, data / "math" / "math500.parquet", "table", "in_process", monkeypatch)
    assert "UndeclaredReadError" in told and "math500.parquet" in told


def test_a_stage_cannot_load_the_problems_itself(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure, match=r"reader"):
        toy.materialize(tmp_path, instance, [*toy.TOYS, thieves.asks_for_the_split])


def _reads(tmp_path: Path) -> Reads:
    return Reads.of("stage", open=[tmp_path / "home" / "in"], closed=[tmp_path / "home"])


def test_what_is_open_and_what_is_closed(tmp_path: Path) -> None:
    for name in ("in/a", "out/a", "input/a"):
        (tmp_path / "home" / name).parent.mkdir(parents=True)
        (tmp_path / "home" / name).write_text("text")
    with enforced(_reads(tmp_path)):
        assert (tmp_path / "home" / "in" / "a").read_text() == "text"
        (tmp_path / "home" / "new").write_text("written")  # writing tells a stage nothing
        assert Path(shutil.__file__).read_text()
        with pytest.raises(FileNotFoundError):
            (tmp_path / "home" / "missing").read_text()
    for name in ("out/a", "input/a", "new"):  # "input" begins like "in"
        with pytest.raises(UndeclaredReadError, match=name), enforced(_reads(tmp_path)):
            (tmp_path / "home" / name).read_text()
    assert (tmp_path / "home" / "out" / "a").read_text() == "text"


def test_a_place_that_nobody_named_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "somewhere").mkdir()
    (tmp_path / "somewhere" / "test.jsonl").write_text("{}")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    with pytest.raises(UndeclaredReadError, match=r"test\.jsonl"), enforced(_reads(tmp_path)):
        (tmp_path / "somewhere" / "test.jsonl").read_text()
    monkeypatch.setenv("E2H_LIBRARY_PATHS", str(tmp_path / "somewhere"))
    with enforced(_reads(tmp_path)):
        assert (tmp_path / "somewhere" / "test.jsonl").read_text() == "{}"


def test_files_of_packages_on_the_path_are_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    site = tmp_path / "site"
    for name in (
        "pack/__init__.py",
        "pack/data.json",
        "pack-1.dist-info/METADATA",
        "module.py",
        "data/x.json",
    ):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("{}")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    with enforced(_reads(tmp_path)):
        for name in ("pack/data.json", "pack-1.dist-info/METADATA", "module.py"):
            assert (site / name).read_text() == "{}"
    with pytest.raises(UndeclaredReadError), enforced(_reads(tmp_path)):
        (site / "data" / "x.json").read_text()


def test_data_sets_of_the_hub_are_closed_and_its_models_open(tmp_path: Path) -> None:
    for kind in ("models", "datasets"):
        (tmp_path / f"{kind}--org--name" / "blobs").mkdir(parents=True)
        (tmp_path / f"{kind}--org--name" / "blobs" / "x").write_text("x")
    with enforced(_reads(tmp_path)):
        assert (tmp_path / "models--org--name" / "blobs" / "x").read_text() == "x"
    with pytest.raises(UndeclaredReadError), enforced(_reads(tmp_path)):
        (tmp_path / "datasets--org--name" / "blobs" / "x").read_text()


def test_a_stage_whose_file_was_swapped_meanwhile_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file of the fingerprint is back at the end."""
    file, other = tmp_path / "data.txt", tmp_path / "other.txt"
    file.write_text("one")
    other.write_text("two")
    monkeypatch.setenv("TOY_OUTSIDE", str(file))

    def swap() -> None:
        file.rename(tmp_path / "third")
        other.rename(file)
        (tmp_path / "third").rename(other)

    assets = [toy.recipe, toy.toy_reader]
    with dg.DagsterInstance.ephemeral() as instance:
        toy.MEANWHILE[:] = [swap, swap]
        with pytest.raises(dg.Failure, match=r"toy_reader: .*data\.txt changed while it was read"):
            toy.materialize(tmp_path / "home", instance, assets)
        assert not list((tmp_path / "home" / "store" / "toy_reader").glob("*"))
        toy.MEANWHILE[:] = [lambda: None, lambda: None]
        assert toy.computed(toy.materialize(tmp_path / "home", instance, assets)) >= {"toy_reader"}


@pytest.mark.parametrize("change", ["edit", "swap and swap back", "new file", "gone"])
def test_outside_files_that_change_while_they_are_read_are_refused(tmp_path: Path, change: str) -> None:
    file = tmp_path / "folder" / "a.jsonl"
    file.parent.mkdir()
    file.write_text("one")
    before = state_of([file.parent])
    require_unchanged("stage", before, [file.parent])
    if change == "edit":
        file.write_text("two")
    elif change == "swap and swap back":
        file.rename(tmp_path / "kept")
        file.write_text("two")
        (tmp_path / "kept").replace(file)
        assert file.read_text() == "one"
    elif change == "new file":
        (file.parent / "b.jsonl").write_text("two")
    else:
        file.unlink()
    with pytest.raises(ChangedWhileReadError, match=r"stage: .*\.jsonl changed while it was read"):
        require_unchanged("stage", before, [file.parent])


def test_caches_that_appear_later_are_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("e2h_pipeline.artifacts.reads._USER", str(tmp_path / "user"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    with enforced(_reads(tmp_path)):
        for name in (".triton/cache/kernel", "data/kernel"):
            (tmp_path / "user" / name).parent.mkdir(parents=True)
            (tmp_path / "user" / name).write_text("new")
        assert (tmp_path / "user" / ".triton" / "cache" / "kernel").read_text() == "new"
    with pytest.raises(UndeclaredReadError), enforced(_reads(tmp_path)):
        (tmp_path / "user" / "data" / "kernel").read_text()
