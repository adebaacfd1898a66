"""Garbage collection: referenced artifacts survive, also with runs in parallel and after kills."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_stores import age, make, place

from e2h_pipeline.artifacts.garbage import CollectionPlan, _remove_lock, collect, plan_collection
from e2h_pipeline.artifacts.inventory import take_inventory
from e2h_pipeline.artifacts.lineage import Node, ancestors, trace
from e2h_pipeline.artifacts.manifest import InputRef
from e2h_pipeline.artifacts.request import Artifact, Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.verify import verify_store

GROWS = {"benchmark_samples": "sampling.samples"}


def kinds(plan: CollectionPlan) -> list[str]:
    return [item.kind for item in plan.garbage]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(0, 1))
def test_what_is_referred_to_always_survives_with_all_that_fed_it(
    seed: int, count: int, share: float
) -> None:
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        store, made = ArtifactStore(Path(folder)), list[Artifact]()
        for number in range(count):
            inputs = draw.sample(made, min(len(made), draw.randrange(3)))
            made.append(make(store, f"stage_{number}", *inputs))
        wanted = [artifact for artifact in made if draw.random() < share]
        needed = {node.artifact.key for artifact in wanted for node in _behind(store, artifact)}
        plan = plan_collection(store, {place(artifact) for artifact in wanted}, {}, grace_seconds=0)
        frees = plan.bytes
        before = _disk(Path(folder))
        collect(store, plan)
        left = take_inventory(store).entries.values()
        assert {entry.manifest.key for entry in left} == needed
        assert before - _disk(Path(folder)) == frees
        assert verify_store(store).findings == []


def _behind(store: ArtifactStore, artifact: Artifact) -> list[Node]:
    return ancestors(trace(store, artifact))


def _disk(folder: Path) -> int:
    """Bytes of all files, each inode once."""
    stats = {(s.st_dev, s.st_ino): s.st_size for s in (p.stat() for p in folder.rglob("*") if p.is_file())}
    return sum(stats.values())


def test_without_a_yes_nothing_changes(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    artifact = make(store, "easy_problems")
    assert "artifact" in kinds(plan_collection(store, [], {}, grace_seconds=0))
    assert artifact.path.is_dir()


def test_what_was_just_made_or_asked_for_is_spared(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    easy = make(store, "easy_problems")
    make(store, "base_model")
    age(tmp_path)
    sft = make(store, "sft_policy", easy)  # new; its input is kept because of it
    plan = plan_collection(store, [], {})
    assert [item.path.parent.name for item in plan.garbage if item.kind == "artifact"] == ["base_model"]
    age(tmp_path)
    assert make(store, "sft_policy", easy).key == sft.key  # asked for again
    assert "sft_policy" not in [item.path.parent.name for item in plan_collection(store, [], {}).garbage]


def test_asked_for_between_plan_and_removal_it_is_spared_with_its_inputs(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    easy = make(store, "easy_problems")
    sft = make(store, "sft_policy", easy)
    other = make(store, "base_model")
    age(tmp_path)
    plan = plan_collection(store, [], {})
    assert [item.path for item in plan.garbage if item.kind == "artifact"][-1] == easy.path
    make(store, "sft_policy", easy)
    outcome = collect(store, plan)
    assert {item.path for item in outcome.spared} >= {sft.path, easy.path}
    assert not other.path.exists()
    assert verify_store(store).findings == []


def test_inputs_of_what_is_being_made_stay(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    easy = make(store, "easy_problems")
    refs = {"easy_problems": InputRef(key=easy.key, data_version=easy.data_version)}

    def long_training(draft: Draft) -> None:
        (draft.work / "checkpoint").write_text("update 7")
        age(tmp_path)
        plan = plan_collection(store, [], {})
        assert not {"artifact", "work"} & set(kinds(plan))
        collect(store, plan)
        assert easy.path.is_dir() and (draft.work / "checkpoint").exists() and draft.out.exists()
        (draft.out / "data.txt").write_text("made")

    sft, _ = store.obtain(Request("sft_policy", "c0de", inputs=refs), long_training)
    assert trace(store, sft).inputs[0].artifact.key == easy.key


def _pool(samples: int, seed: int = 0) -> Request:
    recipe = {"seed": seed, "sampling": {"samples": samples}}
    return Request("benchmark_samples", "c0de", recipe, grows="sampling.samples")


def _draw(samples: int) -> Callable[[Draft], None]:
    def body(draft: Draft) -> None:
        for number in range(samples):
            shard = draft.work / f"{number}.txt"
            if not shard.exists():
                shard.write_text("x" * 1000)
            os.link(shard, draft.out / shard.name)

    return body


def test_linked_files_are_counted_once_and_a_pool_that_can_grow_stays(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    small, _ = store.obtain(_pool(2), _draw(2))
    large, _ = store.obtain(_pool(6), _draw(6))
    plan = plan_collection(store, [place(small)], GROWS, grace_seconds=0)
    (doomed,) = [item for item in plan.garbage if item.kind == "artifact"]
    assert doomed.path == large.path
    assert doomed.bytes == (large.path / "manifest.json").stat().st_size  # the shards stay in the work folder
    assert [(item.why, item.bytes) for item in plan.kept_work] == [
        ("a larger request would go on from here", 0)
    ]
    plan = plan_collection(store, [place(small)], GROWS, grace_seconds=0, pools=True)
    (work,) = [item for item in plan.garbage if item.kind == "work"]
    assert work.bytes == 4 * 1000  # four shards lose their last name, two are in the small artifact
    collect(store, plan)
    assert sorted(p.name for p in small.path.iterdir()) == ["0.txt", "1.txt", "manifest.json"]
    assert verify_store(store).findings == []


def test_work_goes_with_the_last_of_its_family_and_unfinished_work_stays(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    store.obtain(_pool(2), _draw(2))
    unfinished = store.work_dir("sft_policy", "a" * 64)
    (unfinished / "checkpoint").write_text("update 7")
    collect(store, plan_collection(store, [], GROWS, grace_seconds=0))
    assert not list((tmp_path / "work" / "benchmark_samples").iterdir())
    assert (unfinished / "checkpoint").exists()
    assert not list(store.root.glob("*/*/manifest.json"))


def test_what_killed_processes_left_goes_and_what_the_living_write_stays(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host, own, rest = store.own_name().split("~")
    for place_, pid in [(store.making, dead.pid), (store.trash, dead.pid), (store.making, int(own))]:
        folder = place_ / f"{host}~{pid}~{rest}"
        folder.mkdir(parents=True)
        (folder / "half.txt").write_text("half")
    plan = plan_collection(store, [], {})
    assert kinds(plan) == ["leftover", "leftover"]
    assert plan.bytes == 8
    collect(store, plan)
    assert [folder.name.split("~")[1] for folder in store.making.iterdir()] == [own]


def test_old_lock_files_go_and_held_ones_stay(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    easy = make(store, "easy_problems")

    def body(draft: Draft) -> None:
        age(tmp_path)
        collect(store, plan_collection(store, [place(easy)], {}))
        locks = [path.name.split("-")[0] for path in store.locks.iterdir() if not path.name.startswith(".")]
        assert locks == ["sft_policy"]
        (draft.out / "data.txt").write_text("made")

    store.obtain(Request("sft_policy", "c0de"), body)


def test_a_lock_whose_file_was_removed_while_waiting_still_excludes(tmp_path: Path) -> None:
    """Two processes request artifacts and a collector removes lock files all the time: no artifact
    is made twice at once."""
    inside, most, stop = [0], [0], threading.Event()
    store = ArtifactStore(tmp_path)

    def body(draft: Draft) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.002)
        inside[0] -= 1
        (draft.out / "data.txt").write_text("made")

    def ask(first: int) -> None:
        for samples in range(first, 60, 2):
            ArtifactStore(tmp_path).obtain(_pool(samples + 1), body)

    def remove() -> None:
        while not stop.is_set():
            for path in store.locks.glob("benchmark*"):
                _remove_lock(path)

    remover = threading.Thread(target=remove)
    askers = [threading.Thread(target=ask, args=(first,)) for first in (0, 1)]
    for thread in (remover, *askers):
        thread.start()
    for asker in askers:
        asker.join()
    stop.set()
    remover.join()
    assert most[0] == 1
    assert len(list(store.root.glob("benchmark_samples/*"))) == 60


def test_a_run_during_collection_works(tmp_path: Path) -> None:
    """A run requests its stages again and again while old artifacts are collected: the artifacts
    that it got stay."""
    store, stop = ArtifactStore(tmp_path), threading.Event()
    for number in range(6):
        make(store, "easy_problems", content=str(number), recipe={"seed": number})

    def collects() -> int:
        turns = 0
        while not stop.is_set():
            collect(store, plan_collection(store, [], {}))
            turns += 1
        return turns

    with ThreadPoolExecutor(1) as pool:
        collector = pool.submit(collects)
        try:
            for turn in range(30):
                age(tmp_path)  # all of it may go now, and is requested at this moment
                seed = turn % 6
                easy = make(store, "easy_problems", content=str(seed), recipe={"seed": seed})
                sft = make(store, "sft_policy", easy)
                assert [node.asset for node in trace(store, sft).inputs] == ["easy_problems"]
                assert (easy.path / "data.txt").read_text() == str(seed)
        finally:
            stop.set()
        assert collector.result() > 0
    assert verify_store(store).findings == []


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from e2h_pipeline.artifacts import garbage
from e2h_pipeline.artifacts.store import ArtifactStore

left, when = int(sys.argv[2]), sys.argv[3]
real = shutil.rmtree

def rmtree(path, **options):
    global left
    left -= 1
    if left < 0:
        if when == "half":
            next(Path(path).rglob("data.txt")).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, **options)

garbage.shutil.rmtree = rmtree
store = ArtifactStore(Path(sys.argv[1]))
garbage.collect(store, garbage.plan_collection(store, [], {}, grace_seconds=0))
"""


@pytest.mark.parametrize(("after", "when"), [(0, "whole"), (1, "half"), (3, "half")])
def test_kill_9_within_collection_leaves_a_store_that_verifies(tmp_path: Path, after: int, when: str) -> None:
    store = ArtifactStore(tmp_path)
    made: list[Artifact] = []
    for number in range(5):
        made.append(make(store, f"stage_{number}", *made[-2:]))
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(after), when], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(take_inventory(store).entries) == 4 - after
    assert verify_store(store).findings == []
    plan = plan_collection(store, [], {}, grace_seconds=0)
    assert "leftover" in kinds(plan)
    collect(store, plan)
    assert not list(store.trash.iterdir())
    assert not take_inventory(store).entries
