"""Verification finds and names damage of every kind, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_stores import make, place

from e2h_pipeline.artifacts.request import Artifact, Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.verify import verify_store


def chain(store: ArtifactStore) -> tuple[Artifact, Artifact]:
    easy = make(store, "easy_problems")
    return easy, make(store, "sft_policy", easy)


def _flip(artifact: Artifact) -> None:
    """Change a byte but keep time and size, like a bad disk."""
    file = artifact.path / "data.txt"
    before = file.stat()
    file.write_text("X" + file.read_text()[1:])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _cut(artifact: Artifact) -> None:
    (artifact.path / "data.txt").write_text("short")


def _unlink(artifact: Artifact) -> None:
    (artifact.path / "data.txt").unlink()


def _add(artifact: Artifact) -> None:
    (artifact.path / "sub").mkdir()
    (artifact.path / "sub" / "notes.txt").write_text("mine")


def _link(artifact: Artifact) -> None:
    (artifact.path / "link").symlink_to("/etc/hostname")


def _forge(field: str, value: object) -> Callable[[Artifact], None]:
    def forge(artifact: Artifact) -> None:
        file = artifact.path / "manifest.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))

    return forge


def _no_manifest(artifact: Artifact) -> None:
    (artifact.path / "manifest.json").unlink()


def _stray(artifact: Artifact) -> None:
    (artifact.path.parent / "notes.txt").write_text("mine")


def test_a_good_store_has_no_findings(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    chain(store)
    told: list[tuple[int, int]] = []
    result = verify_store(store, progress=lambda done, total, _: told.append((done, total)))
    assert (result.artifacts, result.files, result.findings) == (2, 2, [])
    assert told[-1] == (result.bytes, result.bytes)


@pytest.mark.parametrize(
    ("damage", "kind", "where"),
    [
        (_flip, "damaged", "data.txt"),
        (_cut, "damaged", "data.txt"),
        (_unlink, "missing", "data.txt"),
        (_add, "extra", "sub/notes.txt"),
        (_link, "extra", "link"),
        (_forge("recipe", {"seed": 7}), "manifest", "manifest.json"),
        (_forge("data_version", "0" * 64), "manifest", "manifest.json"),
        (_forge("inputs", {}), "manifest", "manifest.json"),
        (_forge("asset", "easy_prm"), "foreign", ""),
        (_no_manifest, "foreign", ""),
        (_stray, "foreign", "notes.txt"),
    ],
)
def test_damage_is_found_and_named(
    tmp_path: Path, damage: Callable[[Artifact], None], kind: str, where: str
) -> None:
    store = ArtifactStore(tmp_path)
    _, sft = chain(store)
    damage(sft)
    (finding,) = verify_store(store).findings
    assert finding.kind == kind
    assert finding.where.endswith(where)


def test_a_lost_input_is_found(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    easy, sft = chain(store)
    shutil.rmtree(easy.path)
    (finding,) = verify_store(store).findings
    assert finding.kind == "input"
    assert str(sft.path) in finding.where


def test_an_input_that_was_made_again_otherwise_is_found(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    easy, _ = chain(store)
    shutil.rmtree(easy.path)
    make(store, "easy_problems", content="a stage that is not deterministic")
    (finding,) = verify_store(store).findings
    assert finding.kind == "input"
    assert "other content" in finding.message


def test_only_what_is_asked_for_and_what_fed_it(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    easy, sft = chain(store)
    other = make(store, "base_model")
    _flip(other)
    assert verify_store(store, [place(sft)]).findings == []
    assert verify_store(store, [place(sft)]).artifacts == 2
    _flip(easy)
    assert [finding.kind for finding in verify_store(store, [place(sft)]).findings] == ["damaged"]


def test_a_shared_file_is_read_once_and_blamed_under_all_names(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    easy = make(store, "easy_problems")

    def links(draft: Draft) -> None:
        os.link(easy.path / "data.txt", draft.out / "same.txt")

    store.obtain(Request("evaluator", "c0de"), links)
    assert verify_store(store).files == 1
    _flip(easy)
    assert sorted(Path(f.where).name for f in verify_store(store).findings) == ["data.txt", "same.txt"]


def test_what_is_being_made_is_no_finding(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)

    def body(draft: Draft) -> None:
        (draft.out / "half.txt").write_text("half")
        assert verify_store(store).findings == []

    store.obtain(Request("easy_problems", "c0de"), body)
    (store.trash / "host~1~x").mkdir(parents=True)
    assert verify_store(store).findings == []
