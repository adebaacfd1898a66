from pathlib import Path

from e2h_pipeline.artifacts.links import link_files


def test_files_are_shared_and_the_manifest_stays(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "inner").mkdir(parents=True)
    out.mkdir()
    (source / "manifest.json").write_text("{}")
    (source / "inner" / "manifest.json").write_text("kept")
    (source / "model.safetensors").write_bytes(b"weights")
    assert link_files(source, out) == 2
    assert (out / "model.safetensors").samefile(source / "model.safetensors")
    assert (out / "inner" / "manifest.json").read_text() == "kept"
    assert not (out / "manifest.json").exists()
