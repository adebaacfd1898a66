"""The store: artifacts are made once, complete or not at all, also after kills; damage is found and
named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.artifacts.manifest import InputRef, Manifest, ManifestError, read_manifest
from e2h_pipeline.artifacts.request import Draft, Request, StoreError
from e2h_pipeline.artifacts.store import ArtifactStore

REQUEST = Request(asset="sft_policy", code_version="c0de", recipe={"seed": 3, "sft": {"epochs": 2}})


def _write(text: str) -> Any:
    def make(draft: Draft) -> None:
        (draft.out / "answer.txt").write_text(text)
        draft.summary = {"tokens": 12, "loss": float("nan")}

    return make


def _never(_draft: Draft) -> None:
    raise AssertionError("computed twice")


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_files_of_an_artifact_can_be_read_as_the_umask_says(tmp_path: Path, mask: int) -> None:
    """safetensors makes files of mode 600, whatever the umask."""

    def make(draft: Draft) -> None:
        (draft.out / "model").mkdir(mode=0o700)
        for name in ("weights", "model/weights"):
            (draft.out / name).write_text("")
            (draft.out / name).chmod(0o600)

    before = os.umask(mask)
    try:
        made, _ = ArtifactStore(tmp_path).obtain(REQUEST, make)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in made.path.rglob("*")}
    assert modes == {"model": 0o777 & ~mask, "weights": 0o666 & ~mask, "manifest.json": 0o666 & ~mask}
    assert {path.stat().st_mode & 0o777 for path in made.path.rglob("weights")} == {0o666 & ~mask}


def test_equal_requests_are_made_once(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    made, reused = store.obtain(REQUEST, _write("42"))
    again, reused_again = store.obtain(REQUEST, _never)
    assert (reused, reused_again) == (False, True)
    assert again == made
    assert (made.path / "answer.txt").read_text() == "42"


def test_the_manifest_tells_all(tmp_path: Path) -> None:
    artifact, _ = ArtifactStore(tmp_path).obtain(REQUEST, _write("42"))
    manifest = read_manifest(artifact.path)
    assert manifest.seeds == {"seed": 3}
    assert manifest.tokens == 12
    assert manifest.summary["loss"] is None
    assert manifest.packages["pyarrow"]
    assert manifest.peak_memory_bytes > 1_000_000
    assert list(manifest.files) == ["answer.txt"]


@pytest.mark.parametrize(
    "change",
    [
        {"asset": "easy_prm"},
        {"code_version": "other"},
        {"recipe": {"seed": 4}},
        {"inputs": {"base_model": InputRef(key="0" * 64, data_version="v2")}},
        {"external": {"math.jsonl": "changed"}},
    ],
)
def test_whatever_shapes_the_content_changes_the_key(change: dict[str, Any]) -> None:
    values = {"asset": REQUEST.asset, "code_version": REQUEST.code_version, "recipe": REQUEST.recipe}
    assert Request(**{**values, **change}).key != REQUEST.key


def test_inputs_count_by_content_and_experiments_share() -> None:
    one = Request("a", "c", inputs={"x": InputRef(key="1" * 64, data_version="v")}, experiment="ladder")
    two = Request(
        "a", "c", inputs={"x": InputRef(key="2" * 64, data_version="v")}, experiment="ladder/seed=1"
    )
    assert one.key == two.key


def test_a_failed_stage_leaves_its_work_and_nothing_else(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)

    def fails(draft: Draft) -> None:
        (draft.out / "half.txt").write_text("half")
        (draft.work / "checkpoint").write_text("update 7")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        store.obtain(REQUEST, fails)
    assert store.find(REQUEST.asset, REQUEST.key) is None
    assert (store.work_dir(REQUEST.asset, REQUEST.key) / "checkpoint").read_text() == "update 7"
    assert not list((tmp_path / "store" / ".making").iterdir())


def test_work_goes_when_the_artifact_is_made(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    (store.work_dir(REQUEST.asset, REQUEST.key) / "shard").write_text("kept from a killed run")
    store.obtain(REQUEST, _write("42"))
    assert not list((tmp_path / "work" / REQUEST.asset).iterdir())


KILLED = """
import sys, time
from pathlib import Path
from e2h_pipeline.artifacts.store import ArtifactStore, Request

def make(draft):
    (draft.out / "data.txt").write_text("half")
    (draft.work / "shard-0").write_text("done")
    print("writing", flush=True)
    time.sleep(60)

request = Request("sft_policy", "c0de", {"seed": 3, "sft": {"epochs": 2}})
ArtifactStore(Path(sys.argv[1])).obtain(request, make)
"""


def test_kill_9_leaves_nothing_readable_and_the_next_run_goes_on(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    store = ArtifactStore(tmp_path)
    assert store.find(REQUEST.asset, REQUEST.key) is None
    assert len(list((tmp_path / "store" / ".making").iterdir())) == 1

    def goes_on(draft: Draft) -> None:
        assert (draft.work / "shard-0").read_text() == "done"
        _write("42")(draft)

    artifact, reused = store.obtain(REQUEST, goes_on)
    assert not reused
    assert sorted(p.name for p in artifact.path.iterdir()) == ["answer.txt", "manifest.json"]
    assert not list((tmp_path / "store" / ".making").iterdir())


def test_a_second_asker_waits_and_finds(tmp_path: Path) -> None:
    started, outcomes = threading.Event(), []

    def slowly(draft: Draft) -> None:
        started.set()
        time.sleep(0.3)
        _write("42")(draft)

    first = threading.Thread(target=lambda: outcomes.append(ArtifactStore(tmp_path).obtain(REQUEST, slowly)))
    first.start()
    started.wait()
    outcomes.append(ArtifactStore(tmp_path).obtain(REQUEST, _never))
    first.join()
    assert sorted(reused for _, reused in outcomes) == [False, True]


def test_sweeping_spares_the_living(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)

    def sweeps_itself(draft: Draft) -> None:
        store.sweep()
        _write("42")(draft)

    assert store.obtain(REQUEST, sweeps_itself)[0].path.is_dir()


def test_a_changed_file_is_found_and_named(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    artifact, _ = store.obtain(REQUEST, _write("42"))
    (artifact.path / "answer.txt").write_text("43")
    with pytest.raises(StoreError, match=r"answer\.txt: does not match its hash"):
        store.find(REQUEST.asset, REQUEST.key)


def test_a_missing_file_is_found_and_named(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    artifact, _ = store.obtain(REQUEST, _write("42"))
    (artifact.path / "answer.txt").unlink()
    with pytest.raises(StoreError, match=r"answer\.txt: missing"):
        store.open(REQUEST.asset, REQUEST.key)


def test_a_forged_data_version_is_found(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    artifact, _ = store.obtain(REQUEST, _write("42"))
    file = artifact.path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "data_version": "0" * 64}))
    with pytest.raises(StoreError, match="data_version does not match"):
        store.open(REQUEST.asset, REQUEST.key)


@pytest.mark.parametrize("field", sorted(Manifest.model_fields))
def test_no_field_of_a_manifest_can_be_edited(tmp_path: Path, field: str) -> None:
    """Lineage shows nearly all of them."""
    store = ArtifactStore(tmp_path)
    artifact, _ = store.obtain(REQUEST, _write("42"))
    values = artifact.manifest.model_dump(mode="json")
    values[field] = _other(values[field])
    (artifact.path / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(StoreError):
        store.open(REQUEST.asset, REQUEST.key)


def _other(value: object) -> object:
    """Another value of the same kind."""
    if isinstance(value, dict):
        return {name: _other(entry) for name, entry in value.items()} or {"new": {"sha256": "0"}}
    return value + 1 if isinstance(value, int | float) else f"{value or ''}0"


def test_a_folder_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    store.folder(REQUEST.asset, REQUEST.key).mkdir(parents=True)
    with pytest.raises(StoreError, match=r"manifest\.json: missing"):
        store.find(REQUEST.asset, REQUEST.key)


@pytest.mark.parametrize(("asset", "key"), [("../x", "0" * 64), ("x", "../../etc/passwd"), ("X", "0" * 64)])
def test_names_cannot_leave_the_store(tmp_path: Path, asset: str, key: str) -> None:
    with pytest.raises(StoreError, match="is not an"):
        ArtifactStore(tmp_path).folder(asset, key)


def test_links_are_refused(tmp_path: Path) -> None:
    def links(draft: Draft) -> None:
        os.symlink("/etc/hostname", draft.out / "weights")

    with pytest.raises(StoreError, match="a link inside an artifact"):
        ArtifactStore(tmp_path).obtain(REQUEST, links)


SECRETS = ["hf_" + "a" * 34, "https://me:pass@hub.example/model", "https://token@hub.example/model"]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_credential_in_a_recipe_is_refused_before_anything_is_made(tmp_path: Path, secret: str) -> None:
    request = Request("base_model", "c0de", recipe={"base": {"model": secret}})
    with pytest.raises(ManifestError, match=r"recipe\.base\.model: looks like a credential") as refused:
        ArtifactStore(tmp_path).obtain(request, lambda _: pytest.fail("it was made"))
    assert secret not in str(refused.value)


@pytest.mark.parametrize("secret", SECRETS)
def test_credentials_stay_out_of_manifests(tmp_path: Path, secret: str) -> None:
    def make(draft: Draft) -> None:
        draft.summary = {"origin": [secret]}

    with pytest.raises(ManifestError, match=r"summary\.origin\[0\]: looks like a credential"):
        ArtifactStore(tmp_path).obtain(REQUEST, make)
    assert not list((tmp_path / "store" / ".making").iterdir())


@pytest.mark.parametrize(
    "harmless", ["hf://datasets/some/math@main", "http://127.0.0.1:5000/#/runs/a", "person@place.example"]
)
def test_what_only_looks_like_an_address_with_a_login_is_kept(tmp_path: Path, harmless: str) -> None:
    request = Request("base_model", "c0de", recipe={"base": {"model": harmless}})
    assert (
        ArtifactStore(tmp_path).obtain(request, _write("42"))[0].manifest.recipe["base"]["model"] == harmless
    )


# Families: requests that differ only in size


def _want(samples: int, seed: int = 0) -> Request:
    recipe = {"seed": seed, "sampling": {"samples": samples, "temperature": 0.7}}
    return Request("benchmark_samples", "c0de", recipe, grows="sampling.samples")


def _count_to(samples: int, made: list[int], pause: float = 0.0) -> Any:
    """Files 0 ... samples - 1; missing ones are made in the work folder, then all are linked."""

    def make(draft: Draft) -> None:
        for number in range(samples):
            file = draft.work / f"{number}.txt"
            if not file.exists():
                time.sleep(pause)
                file.write_text(str(number))
                made.append(number)
            os.link(file, draft.out / file.name)

    return make


def test_a_family_is_what_differs_in_nothing_but_what_grows() -> None:
    assert _want(4).key != _want(16).key
    assert _want(4).family == _want(16).family != _want(4, seed=1).family
    assert REQUEST.family == REQUEST.key
    with pytest.raises(StoreError, match=r"'sampling\.samples' grows, but the stage does not read it"):
        _ = Request("a", "c", {"seed": 1}, grows="sampling.samples").family


def test_the_larger_goes_on_from_the_smaller_and_back(tmp_path: Path) -> None:
    store, made = ArtifactStore(tmp_path), []
    small, _ = store.obtain(_want(2), _count_to(2, made))
    large, _ = store.obtain(_want(6), _count_to(6, made))
    assert made == [0, 1, 2, 3, 4, 5]
    assert (small.path / "0.txt").samefile(large.path / "0.txt")
    store.obtain(_want(4), _count_to(4, made))
    store.obtain(_want(2, seed=1), _count_to(2, made))  # another family
    assert made == [0, 1, 2, 3, 4, 5, 0, 1]


def test_two_of_a_family_at_once_make_nothing_twice(tmp_path: Path) -> None:
    made: list[int] = []

    def ask(samples: int) -> None:
        ArtifactStore(tmp_path).obtain(_want(samples), _count_to(samples, made, pause=0.02))

    askers = [threading.Thread(target=ask, args=(samples,)) for samples in (4, 12, 8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert sorted(made) == list(range(12))
