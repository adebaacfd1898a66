"""Free what nothing refers to: first say what, then do it.

An artifact is wanted that is the latest of a partition, that was made or asked for a short while ago, that somebody
reads at this moment (lock files name the inputs of what is being made), or that a wanted one was made from. All others
go, those that were made of others first, so that at any moment, also after a kill, what is left has its inputs.

A folder is renamed into the trash and then deleted, under the lock of its family and only if nobody asked for it since
the plan was made: who finds an artifact marks it under the same lock (ArtifactStore.removal_lock), so that it is either
found and spared, or gone and made again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from e2h_pipeline.artifacts.inventory import (
    Entry,
    Inventory,
    Place,
    place_of,
    take_inventory,
    with_ancestors,
)
from e2h_pipeline.artifacts.locks import free_lock, lock_is_held
from e2h_pipeline.artifacts.request import request_behind
from e2h_pipeline.artifacts.store import REMOVAL_LOCK, ArtifactStore

Kind = Literal["artifact", "work", "leftover", "lock"]

GRACE_SECONDS = 3600.0
"""How long an artifact is spared after it was made or asked for; Dagster's record of it comes a moment later."""


@dataclass(frozen=True)
class Garbage:
    """Something that can go.

    Attributes:
        bytes: what removing it frees, given that all before it in the plan are removed; what is also linked from
            somewhere that stays is not counted.
        family: of an artifact or work folder: whose lock protects it.
    """

    kind: Kind
    path: Path
    why: str
    bytes: int = 0
    family: Place = ("", "")
    changed: int = 0


@dataclass
class Plan:
    """What can go, in the order of removal, and what stays."""

    garbage: list[Garbage] = field(default_factory=list)
    kept_artifacts: int = 0
    kept_work: list[Garbage] = field(default_factory=list)
    inventory: Inventory = field(default_factory=Inventory)

    @property
    def bytes(self) -> int:
        """What the whole plan frees."""
        return sum(item.bytes for item in self.garbage)


@dataclass
class Outcome:
    """What was removed, and what was spared because somebody came to want it."""

    removed: list[Garbage] = field(default_factory=list)
    spared: list[Garbage] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.removed)


def plan_collection(
    store: ArtifactStore,
    wanted: Collection[Place],
    grows: Mapping[str, str],
    grace_seconds: float = GRACE_SECONDS,
    pools: bool = False,
) -> Plan:
    """What can go. Nothing is changed.

    Args:
        wanted: artifacts that partitions refer to; must be read before this is called.
        grows: asset -> its field that says how much is wanted of the same.
        grace_seconds: artifacts made or asked for later than this are spared. With 0, nothing else may run.
        pools: also work folders from which a larger request would go on; what they have more than the artifacts
            would then be made again.
    """
    inventory = take_inventory(store)
    # Marks first, locks second: who takes a lock names its inputs in it before it marks them.
    since = time.time_ns() - int(grace_seconds * 1e9)
    recent = {place for place, entry in inventory.entries.items() if entry.changed > since}
    kept = with_ancestors(inventory, {*wanted, *recent, *_being_read(store)})
    families = {place: _family(entry, grows) for place, entry in inventory.entries.items()}
    doomed = [entry for place, entry in inventory.entries.items() if place not in kept]
    plan = Plan(kept_artifacts=len(kept), inventory=inventory)
    found = [
        Garbage(
            "artifact",
            entry.path,
            "no partition refers to it",
            family=families[entry.place],
            changed=entry.changed,
        )
        for entry in _made_of_others_first(doomed)
    ]
    alive = {families[place] for place in kept}
    for item, stays in _work(store, alive, set(families.values()), grows, pools):
        (plan.kept_work if stays else found).append(item)
    found.extend(
        Garbage("leftover", folder, "left by a process that was killed") for folder in store.abandoned()
    )
    found.extend(_old_locks(store, since))
    plan.garbage = list(_weighed(found))
    plan.kept_work = [
        Garbage(item.kind, item.path, item.why, _size(item.path), item.family) for item in plan.kept_work
    ]
    return plan


def collect(
    store: ArtifactStore, plan: Plan, watch: Callable[[Garbage], None] = lambda _item: None
) -> Outcome:
    """Remove what a plan names, unless somebody came to want it since.

    Args:
        watch: called after each removal.
    """
    outcome, spared = Outcome(), set[Place]()
    families = set[Place]()  # of artifacts that were spared: their work stays too
    for item in plan.garbage:
        place = (item.path.parent.name, item.path.name)
        if item.kind == "artifact":
            gone = place not in spared and _remove_artifact(store, item)
            if not gone:
                spared |= with_ancestors(plan.inventory, [place])
                families.add(item.family)
        elif item.kind == "work":
            gone = item.family not in families and _remove_work(store, item)
        elif item.kind == "lock":
            gone = _remove_lock(item.path)
        else:
            shutil.rmtree(item.path, ignore_errors=True)
            gone = not item.path.exists()
        (outcome.removed if gone else outcome.spared).append(item)
        if gone:
            watch(item)
    return outcome


def _being_read(store: ArtifactStore) -> Iterator[Place]:
    """Inputs of everything that is being made now."""
    for path in _lock_files(store):
        if lock_is_held(path):
            with suppress(
                ValueError, FileNotFoundError
            ):  # just taken: its inputs get their marks in a moment
                for asset, key in json.loads(path.read_bytes()).items():
                    yield place_of(asset, key)


def _family(entry: Entry, grows: Mapping[str, str]) -> Place:
    """Asset and family of an artifact; its own key where the stage's recipe has no such field any more."""
    manifest, grown = entry.manifest, grows.get(entry.manifest.asset, "")
    value: object = manifest.recipe
    for name in grown.split(".") if grown else ():
        value = value.get(name) if isinstance(value, dict) else None
    known = grown if value is not None else ""
    return place_of(manifest.asset, request_behind(manifest, known).family)


def _made_of_others_first(entries: Iterable[Entry]) -> list[Entry]:
    """Every artifact before those it was made from."""
    waiting = {entry.place: entry for entry in entries}
    uses = dict.fromkeys(waiting, 0)
    for entry in waiting.values():
        for parent, _ in entry.inputs():
            if parent in uses:
                uses[parent] += 1
    ready = sorted(place for place, count in uses.items() if count == 0)
    order = []
    for place in ready:  # grows while it is walked
        order.append(waiting[place])
        for parent, _ in waiting[place].inputs():
            if parent in uses:
                uses[parent] -= 1
                if uses[parent] == 0:
                    ready.append(parent)
    return order


def _work(
    store: ArtifactStore, alive: set[Place], known: set[Place], grows: Mapping[str, str], pools: bool
) -> Iterator[tuple[Garbage, bool]]:
    """Work folders that nobody is at, and whether they stay."""
    for folder in sorted(store.work_root.glob("[a-z]*/*")):
        family = (folder.parent.name, folder.name)
        if not folder.is_dir() or lock_is_held(store.lock_path(*family)):
            continue
        if family not in known:
            yield Garbage("work", folder, "unfinished: a run would go on from here", family=family), True
        elif family not in alive:
            yield Garbage("work", folder, "its artifacts go too", family=family), False
        elif family[0] in grows and not pools:
            yield Garbage("work", folder, "a larger request would go on from here", family=family), True
        else:
            yield Garbage("work", folder, "its artifact is made", family=family), False


def _old_locks(store: ArtifactStore, since: int) -> Iterator[Garbage]:
    for path in _lock_files(store):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime_ns <= since and not lock_is_held(path):
                yield Garbage("lock", path, "nobody holds it")


def _lock_files(store: ArtifactStore) -> list[Path]:
    return [path for path in sorted(store.locks.glob("*")) if path.name != REMOVAL_LOCK]


def _weighed(items: Iterable[Garbage]) -> Iterator[Garbage]:
    """With the bytes that each frees: those of files whose last name goes with it."""
    names: dict[tuple[int, int], int] = {}
    for item in items:
        freed = 0
        for stat in _files(item.path):
            inode = (stat.st_dev, stat.st_ino)
            names[inode] = names.get(inode, 0) + 1
            if names[inode] == stat.st_nlink:
                freed += stat.st_size
        yield Garbage(item.kind, item.path, item.why, freed, item.family, item.changed)


def _size(folder: Path) -> int:
    """Bytes of files below a folder that have no other name."""
    return sum(stat.st_size for stat in _files(folder) if stat.st_nlink == 1)


def _files(path: Path) -> Iterator[os.stat_result]:
    with suppress(FileNotFoundError):
        if not path.is_dir():
            yield path.lstat()
            return
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                yield os.lstat(os.path.join(folder, name))


def _remove_artifact(store: ArtifactStore, item: Garbage) -> bool:
    """Into the trash and away, unless its family is at work or it was asked for since the plan."""
    lock = store.lock_path(*item.family)
    with free_lock(lock) as held:
        if held is None:
            return False
        with store.removal_lock(exclusive=True):
            try:
                if item.path.stat().st_mtime_ns != item.changed:
                    return False
                trashed = _to_trash(item.path, store.trash, store.own_name())
            except FileNotFoundError:  # another collection was faster
                return True
        lock.unlink(missing_ok=True)
    shutil.rmtree(trashed, ignore_errors=True)
    return True


def _remove_work(store: ArtifactStore, item: Garbage) -> bool:
    with free_lock(store.lock_path(*item.family)) as held:
        if held is None:
            return False
        try:
            trashed = _to_trash(item.path, store.work_trash, store.own_name())
        except FileNotFoundError:
            return True
    shutil.rmtree(trashed, ignore_errors=True)
    return True


def _to_trash(path: Path, trash: Path, name: str) -> Path:
    trash.mkdir(parents=True, exist_ok=True)
    return path.rename(trash / name)


def _remove_lock(path: Path) -> bool:
    """Unlink a lock file while it is held: who waits for it sees that it lost its name, and takes a new one."""
    if not path.exists():
        return True
    with free_lock(path) as held:
        if held is None:
            return False
        path.unlink()
    return True
