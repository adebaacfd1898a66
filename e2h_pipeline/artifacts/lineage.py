"""Which data fed a number: a walk over manifests, from an artifact back to all its ancestors.

Dagster's own tags for partitioned upstreams point at the wrong event (dagster issue 26563), so
provenance comes from the manifests alone. They are chained by hashes: a key covers the data
versions of the inputs, a data version the content of the files. The walk checks this chain and
reads no other files, so model size does not matter. The files are checked against the manifests
when they are read, and by verify.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from e2h_pipeline.artifacts.manifest import MANIFEST_NAME, InputRef, Manifest
from e2h_pipeline.artifacts.request import Artifact, StoreError, manifest_damage
from e2h_pipeline.artifacts.store import ArtifactStore

EASY_DATA = "easy_problems"
LABELS_BOUGHT = "labels_bought"
"""Figure of an artifact of labels: how many it took, in all and by source."""


@dataclass(frozen=True)
class Node:
    """An artifact and the nodes of its inputs, by asset name."""

    artifact: Artifact
    inputs: tuple[Node, ...]

    @property
    def asset(self) -> str:
        return self.artifact.asset


def trace(store: ArtifactStore, artifact: Artifact, seen: dict[str, Node] | None = None) -> Node:
    """The tree of an artifact's ancestors; shared ancestors are shared nodes.

    Args:
        seen: nodes of earlier trees by key, which are taken from here and added; to trace many artifacts.

    Raises:
        StoreError: an ancestor is gone, was made again with other content, or has a damaged
            manifest.
    """
    return _trace(store, artifact, {} if seen is None else seen)


def _trace(store: ArtifactStore, artifact: Artifact, seen: dict[str, Node]) -> Node:
    if artifact.key not in seen:
        inputs = sorted(artifact.manifest.inputs.items())
        parents = (_parent(store, artifact, asset, ref, seen) for asset, ref in inputs)
        seen[artifact.key] = Node(artifact, tuple(parents))
    return seen[artifact.key]


def _parent(
    store: ArtifactStore, artifact: Artifact, asset: str, ref: InputRef, seen: dict[str, Node]
) -> Node:
    """The node of an input; its manifest is read once, however many artifacts were made from it."""
    known = seen.get(ref.key)
    if known is not None and known.artifact.data_version == ref.data_version:
        return known
    return _trace(store, _input(store, artifact, asset, ref), seen)


def _input(store: ArtifactStore, artifact: Artifact, asset: str, ref: InputRef) -> Artifact:
    found = store.peek(asset, ref.key)
    if found is None:
        raise StoreError(
            f"{store.folder(asset, ref.key)}: gone from the store, and {artifact.asset} was made from it; "
            f"materialize {asset} again"
        )
    if found.data_version != ref.data_version:
        raise StoreError(
            f"{found.path}: made again with other content since {artifact.asset} was made from it; "
            f"materialize {artifact.asset} again"
        )
    damage = manifest_damage(found.manifest)
    if damage:
        raise StoreError(f"{found.path / MANIFEST_NAME}: {damage}; delete {found.path} to make it again")
    return found


def ancestors(node: Node) -> list[Node]:
    """The node and all before it, each once, nearest first."""
    found: dict[str, Node] = {}
    waiting = [node]
    while waiting:
        current = waiting.pop(0)
        if current.artifact.key not in found:
            found[current.artifact.key] = current
            waiting.extend(current.inputs)
    return list(found.values())


def paths(node: Node, asset: str) -> Iterator[tuple[Node, ...]]:
    """Every way from a node back to artifacts of `asset`, nearest first."""
    if node.asset == asset:
        yield (node,)
        return
    for parent in node.inputs:
        for rest in paths(parent, asset):
            yield (node, *rest)


def data_versions(node: Node, asset: str = EASY_DATA) -> list[str]:
    """Data versions of `asset` that fed a node: one normally, none where it was not used."""
    return sorted({n.artifact.data_version for n in ancestors(node) if n.asset == asset})


def labels_bought(node: Node) -> dict[str, dict[str, int]]:
    """Labels bought for a node, by asset of labels and then by source; labels of versions that did
    not count them are left out."""
    return bought_of(ancestor.artifact.manifest for ancestor in ancestors(node))


def bought_of(manifests: Iterable[Manifest]) -> dict[str, dict[str, int]]:
    """Labels that these artifacts say they bought; see `labels_bought`."""
    found = ((manifest.asset, _bought(manifest)) for manifest in manifests)
    return {asset: bought for asset, bought in sorted(found) if bought}


def _bought(manifest: Manifest) -> dict[str, int]:
    """Labels bought by source; of outcome labels, the source is the grader."""
    if LABELS_BOUGHT not in manifest.summary:
        return {}
    sources = manifest.summary.get("sources")
    if sources:
        return {name: part[LABELS_BOUGHT] for name, part in sources.items()}
    labels = manifest.recipe.get("labels")
    name = labels[0]["source"] if labels else manifest.summary["grader"]
    return {name: manifest.summary[LABELS_BOUGHT]}


def as_rows(*nodes: Node) -> list[dict[str, Any]]:
    """Nodes and all their ancestors, as plain rows for tables and JSON."""
    found = {n.artifact.key: n.artifact.manifest for node in nodes for n in ancestors(node)}
    return [
        {
            "asset": manifest.asset,
            "data_version": manifest.data_version,
            "key": manifest.key,
            "code_version": manifest.code_version,
            "experiment": manifest.experiment,
            "created": manifest.created,
            "wall_seconds": manifest.wall_seconds,
            "inputs": sorted(manifest.inputs),
            "not_trained": manifest.summary.get("not_trained", ""),
            "run_id": manifest.run_id,
            "tracking_url": manifest.tracking_url,
            "labels_bought": _bought(manifest),
            "agreement": manifest.summary.get("agreement", {}),
        }
        for manifest in found.values()
    ]
