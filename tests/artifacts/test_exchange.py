"""Artifacts go from one store to another whole, or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from small_stores import make

from e2h_pipeline.artifacts.exchange import ARTIFACTS, new_folder, read_bundle, write_bundle, write_sums
from e2h_pipeline.artifacts.request import StoreError
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.verify import verify_store


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    found = ArtifactStore(tmp_path / "one")
    make(found, "sft_policy", make(found, "easy_problems"))
    return found


@pytest.fixture
def bundle(store: ArtifactStore, tmp_path: Path) -> Path:
    artifacts = [make(store, "easy_problems"), make(store, "sft_policy", make(store, "easy_problems"))]
    with new_folder(tmp_path / "bundle") as draft:
        write_bundle(store, artifacts, draft, ())
        write_sums(draft)
    return tmp_path / "bundle"


def _versions(store: ArtifactStore) -> dict[str, str]:
    return {path.parent.name: path.name for path in store.root.glob("[a-z]*/*")}


def test_another_store_has_the_same_artifacts(store: ArtifactStore, bundle: Path, tmp_path: Path) -> None:
    other = ArtifactStore(tmp_path / "two")
    assert len(read_bundle(other, bundle).added) == 2
    assert _versions(other) == _versions(store)
    assert verify_store(other).findings == []
    again = read_bundle(other, bundle)
    assert (len(again.added), len(again.there)) == (0, 2)


def test_sums_are_those_of_sha256sum(bundle: Path) -> None:
    done = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=bundle, check=False)
    assert done.returncode == 0


def test_what_is_left_out_keeps_its_manifest(store: ArtifactStore, tmp_path: Path) -> None:
    artifacts = [make(store, "easy_problems"), make(store, "sft_policy", make(store, "easy_problems"))]
    with new_folder(tmp_path / "bundle") as draft:
        write_bundle(store, artifacts, draft, ["sft_policy"])
    assert [path.name for path in (tmp_path / "bundle" / ARTIFACTS / "sft_policy").glob("*/*")] == [
        "manifest.json"
    ]
    found = read_bundle(ArtifactStore(tmp_path / "two"), tmp_path / "bundle")
    assert [len(part) for part in (found.added, found.there, found.left_out)] == [1, 0, 1]


def _file(bundle: Path) -> Path:
    return next((bundle / ARTIFACTS / "easy_problems").glob("*/data.txt"))


def _manifest(bundle: Path) -> Path:
    return _file(bundle).with_name("manifest.json")


def _escape(bundle: Path) -> None:
    """A manifest that names a file outside, and would fit its seal."""
    from e2h_pipeline.artifacts.manifest import read_manifest, write_manifest

    folder = _file(bundle).parent
    manifest = read_manifest(folder)
    entry = manifest.files["data.txt"]
    (folder.parent / "outside").write_text(_file(bundle).read_text())
    write_manifest(folder, manifest.model_copy(update={"files": {"../outside": entry}, "seal": ""}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda bundle: _file(bundle).write_text("other"),
        lambda bundle: _file(bundle).with_name("more.txt").write_text("more"),
        lambda bundle: _file(bundle).rename(_file(bundle).with_name("renamed.txt")),
        lambda bundle: _file(bundle).unlink(),
        lambda bundle: _manifest(bundle).write_text("{}"),
        lambda bundle: _manifest(bundle).write_text(_manifest(bundle).read_text().replace("c0de", "c0d3")),
        lambda bundle: os.symlink("/etc/passwd", _file(bundle).with_name("link")),
        lambda bundle: _file(bundle).parent.rename(_file(bundle).parent.with_name("0" * 16)),
        _escape,
    ],
    ids=["other", "extra", "renamed", "gone", "no manifest", "forged", "link", "elsewhere", "outside"],
)
def test_nothing_of_a_damaged_folder_enters_the_store(
    bundle: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    shutil.copytree(bundle, tmp_path / "good")
    damage(bundle)
    other = ArtifactStore(tmp_path / "two")
    try:
        found = read_bundle(other, bundle)
    except StoreError as error:
        assert str(bundle) in str(error)
        assert not other.root.exists()
    else:  # a file that is gone: as if left out
        assert found.left_out and len(found.added) == 1


def test_a_key_with_other_content_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = ArtifactStore(tmp_path / "two")
    make(other, "easy_problems", content="made elsewhere, by chance with another result")
    with pytest.raises(StoreError, match="has other content than"):
        read_bundle(other, bundle)
    assert len(list(other.root.glob("[a-z]*/*"))) == 1


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="full"), new_folder(tmp_path / "new") as draft:
        (draft / "half").write_text("")
        raise OSError("the disk is full")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "new").mkdir()
    with pytest.raises(StoreError, match="is there already"), new_folder(tmp_path / "new"):
        pass


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="e2h export writes such a folder"):
        read_bundle(ArtifactStore(tmp_path / "two"), tmp_path)
