"""Lineage: which easy data fed a number, by manifests alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from e2h_pipeline.artifacts.lineage import Node, ancestors, as_rows, data_versions, paths, trace
from e2h_pipeline.artifacts.manifest import InputRef
from e2h_pipeline.artifacts.request import Artifact, Draft, Request, StoreError
from e2h_pipeline.artifacts.store import ArtifactStore


def make(store: ArtifactStore, asset: str, *inputs: Artifact, text: str = "") -> Artifact:
    """A small artifact made from others."""

    def body(draft: Draft) -> None:
        (draft.out / "data.txt").write_text(asset + text)

    refs = {a.asset: InputRef(key=a.key, data_version=a.data_version) for a in inputs}
    return store.obtain(Request(asset, "c0de", inputs=refs, external=text), body)[0]


def test_all_paths_to_the_easy_data(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    easy, base = make(store, "easy_problems"), make(store, "base_model")
    sft = make(store, "sft_policy", base, easy)
    prm = make(store, "easy_prm", sft, easy)
    metrics = make(store, "rerank_metrics", sft, prm)
    node = trace(store, metrics)
    found = sorted(" < ".join(step.asset for step in way) for way in paths(node, "easy_problems"))
    assert found == [
        "rerank_metrics < easy_prm < easy_problems",
        "rerank_metrics < easy_prm < sft_policy < easy_problems",
        "rerank_metrics < sft_policy < easy_problems",
    ]
    assert data_versions(node) == [easy.data_version]
    assert data_versions(trace(store, base)) == []
    assert ancestors(node)[0].asset == "rerank_metrics"
    assert len(as_rows(node)) == 5


def test_a_mixture_of_easy_data_shows(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    old, new = make(store, "easy_problems"), make(store, "easy_problems", text="changed")
    metrics = make(store, "rerank_metrics", make(store, "sft_policy", old), make(store, "easy_prm", new))
    assert data_versions(trace(store, metrics)) == sorted([old.data_version, new.data_version])


def test_a_lost_ancestor_is_named(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    easy = make(store, "easy_problems")
    sft = make(store, "sft_policy", easy)
    (easy.path / "manifest.json").unlink()
    with pytest.raises(StoreError, match="easy_problems"):
        trace(store, sft)


def test_the_walk_reads_manifests_only(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    easy = make(store, "easy_problems")
    sft = make(store, "sft_policy", easy)
    (easy.path / "data.txt").unlink()  # verify reports it, lineage goes on
    assert data_versions(trace(store, sft)) == [easy.data_version]


def test_a_manifest_is_read_once_however_many_were_made_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(tmp_path)
    easy = make(store, "easy_problems")
    chain = [easy]
    for i in range(5):
        chain.append(make(store, f"stage_{i}", *{a.key: a for a in (easy, *chain[-2:])}.values()))
    read: list[str] = []
    peek = store.peek
    monkeypatch.setattr(store, "peek", lambda asset, key: (read.append(asset), peek(asset, key))[1])
    seen: dict[str, Node] = {}
    assert len(ancestors(trace(store, chain[-1], seen))) == 6
    trace(store, chain[-2], seen)
    assert sorted(read) == ["easy_problems", "stage_0", "stage_1", "stage_2", "stage_3"]


def test_a_manifest_that_was_edited_is_no_lineage(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    easy = make(store, "easy_problems")
    sft = make(store, "sft_policy", easy)
    file = easy.path / "manifest.json"
    file.write_text(file.read_text().replace('"code_version": "c0de"', '"code_version": "nicer"'))
    with pytest.raises(StoreError, match="key does not match code version"):
        trace(store, sft)


def test_an_input_that_was_made_again_otherwise_is_no_lineage(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    easy = make(store, "easy_problems")
    sft = make(store, "sft_policy", easy)
    shutil.rmtree(easy.path)

    def otherwise(draft: Draft) -> None:
        (draft.out / "data.txt").write_text("a stage that is not deterministic")

    store.obtain(Request("easy_problems", "c0de", external=""), otherwise)
    with pytest.raises(StoreError, match="made again with other content since sft_policy"):
        trace(store, sft)
