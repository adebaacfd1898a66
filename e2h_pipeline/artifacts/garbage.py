"""Garbage collection: first plan, then remove.

An artifact is kept where it is the latest of a partition, was made or asked for a short while ago,
is being read now (lock files name the inputs of running work), or is an ancestor of a kept one. All
others are removed, each before its inputs. So at any moment, also after a kill, the remaining
artifacts have their inputs.

A folder is renamed into the trash and then deleted, under the lock of its family and only if it was
not asked for since the plan. Removals and requests also share a lock (ArtifactStore.removal_lock),
and a request marks the artifact that it finds. So an artifact is either found and spared, or
removed and made again.
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
"""Grace after an artifact was made or asked for: Dagster records it a moment later."""


@dataclass(frozen=True)
class Garbage:
    """Something that can be removed.

    Attributes:
        bytes: freed by its removal, after the removals before it in the plan. Files with another
            hard link that stays do not count.
        family: of an artifact or work folder; the family's lock protects it.
    """

    kind: Kind
    path: Path
    why: str
    bytes: int = 0
    family: Place = ("", "")
    changed: int = 0


@dataclass
class CollectionPlan:
    """What to remove, in order, and what stays."""

    garbage: list[Garbage] = field(default_factory=list)
    kept_artifacts: int = 0
    kept_work: list[Garbage] = field(default_factory=list)
    inventory: Inventory = field(default_factory=Inventory)

    @property
    def bytes(self) -> int:
        """Bytes that the whole plan frees."""
        return sum(item.bytes for item in self.garbage)


@dataclass
class CollectionOutcome:
    """What was removed, and what was spared because it was asked for after the plan."""

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
) -> CollectionPlan:
    """Plan a collection; nothing is changed.

    Args:
        wanted: artifacts that partitions refer to, read before this call.
        grows: asset -> recipe field with the amount of work, `sampling.samples`.
        grace_seconds: artifacts made or asked for within this time are spared. With 0, nothing else
            may run.
        pools: also remove work folders that a larger request would continue. Their surplus over the
            artifacts would then be made again.
    """
    inventory = take_inventory(store)
    # Marks first, locks second: a process writes its inputs into its lock, then marks them.
    since = time.time_ns() - int(grace_seconds * 1e9)
    recent = {place for place, entry in inventory.entries.items() if entry.changed > since}
    kept = with_ancestors(inventory, {*wanted, *recent, *_being_read(store)})
    families = {place: _family(entry, grows) for place, entry in inventory.entries.items()}
    doomed = [entry for place, entry in inventory.entries.items() if place not in kept]
    plan = CollectionPlan(kept_artifacts=len(kept), inventory=inventory)
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
    store: ArtifactStore, plan: CollectionPlan, watch: Callable[[Garbage], None] = lambda _item: None
) -> CollectionOutcome:
    """Remove the items of a plan, except those asked for since.

    Args:
        watch: called after each removal.
    """
    outcome, spared = CollectionOutcome(), set[Place]()
    families = set[Place]()  # of spared artifacts: their work stays too
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
    """Inputs of all running work."""
    for path in _lock_files(store):
        if lock_is_held(path):
            with suppress(
                ValueError, FileNotFoundError
            ):  # lock just taken: its inputs are marked in a moment
                for asset, key in json.loads(path.read_bytes()).items():
                    yield place_of(asset, key)


def _family(entry: Entry, grows: Mapping[str, str]) -> Place:
    """Asset and family of an artifact; its own key where the recipe no longer has that field."""
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
    """Work folders that are not in use, and whether they stay."""
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
                yield Garbage("lock", path, "no process holds it")


def _lock_files(store: ArtifactStore) -> list[Path]:
    return [path for path in sorted(store.locks.glob("*")) if path.name != REMOVAL_LOCK]


def _weighed(items: Iterable[Garbage]) -> Iterator[Garbage]:
    """Items with the bytes that each frees: files that lose their last hard link."""
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
    """Bytes of files below a folder that have no other hard link."""
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
    """Remove an artifact, unless its family is at work or it was asked for since the plan."""
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
    """Unlink a lock file while holding it: a waiting process sees this and takes a new one."""
    if not path.exists():
        return True
    with free_lock(path) as held:
        if held is None:
            return False
        path.unlink()
    return True
