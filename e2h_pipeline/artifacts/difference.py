"""Differences between the origins of two artifacts, and where they begin.

Both trees are walked side by side, input by input. Two artifacts of one asset differ for reasons of
their own (code, recipe, external data, set of inputs) or because an input has other content. The
roots of a difference are the artifacts with a reason of their own and other content. An artifact
with a reason but equal content changed nothing downstream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from e2h_pipeline.artifacts.lineage import Node
from e2h_pipeline.artifacts.request import Artifact

ABSENT = "(not there)"
"""Stands for a field that one side does not have."""


@dataclass(frozen=True)
class Change:
    """A dotted field and its two values."""

    field: str
    first: Any
    second: Any


@dataclass(frozen=True)
class AssetDifference:
    """One asset on both sides; on one only where the other is None.

    Attributes:
        code: code versions, where they differ.
        recipe: fields of the recipe that differ.
        external: fields of the fingerprint of external data that differ.
        inputs: assets that only one side read.
        changed_inputs: inputs that both read, with other content.
        packages: versions that differ; they are not part of the key, so they are not reasons.
    """

    asset: str
    first: Artifact | None
    second: Artifact | None
    code: tuple[Change, ...] = ()
    recipe: tuple[Change, ...] = ()
    external: tuple[Change, ...] = ()
    inputs: tuple[Change, ...] = ()
    changed_inputs: tuple[str, ...] = ()
    packages: tuple[Change, ...] = ()

    @property
    def same_artifact(self) -> bool:
        return bool(self.first and self.second and self.first.key == self.second.key)

    @property
    def same_content(self) -> bool:
        return bool(self.first and self.second and self.first.data_version == self.second.data_version)

    @property
    def reasons(self) -> tuple[Change, ...]:
        """The asset's own reasons to differ."""
        return (*self.code, *self.recipe, *self.external, *self.inputs)

    @property
    def is_root(self) -> bool:
        """Its content differs, and not only through its inputs."""
        both = self.first is not None and self.second is not None
        if not both or self.same_content:
            return False
        return bool(self.reasons) or not self.changed_inputs


@dataclass
class LineageDifference:
    """All assets behind two artifacts, upstream first."""

    assets: list[AssetDifference] = field(default_factory=list)

    @property
    def roots(self) -> list[AssetDifference]:
        return [asset for asset in self.assets if asset.is_root]


def compare(first: Node, second: Node) -> LineageDifference:
    """Differences between two artifacts of one asset and between their ancestors."""
    found: dict[tuple[str, str], AssetDifference] = {}
    _compare(first, second, found)
    return LineageDifference(list(found.values()))


def _compare(first: Node | None, second: Node | None, found: dict[tuple[str, str], AssetDifference]) -> None:
    """Add inputs before the artifacts made from them."""
    name = tuple(node.artifact.key if node else "" for node in (first, second))
    if name in found:
        return
    ones, others = ({node.asset: node for node in side.inputs} if side else {} for side in (first, second))
    for asset in sorted({*ones, *others}):
        _compare(ones.get(asset), others.get(asset), found)
    found[name[0], name[1]] = _difference(first, second)


def _difference(first: Node | None, second: Node | None) -> AssetDifference:
    if first is None or second is None:
        asset = first.asset if first else second.asset if second else ""
        return AssetDifference(asset, first.artifact if first else None, second.artifact if second else None)
    a, b = first.artifact.manifest, second.artifact.manifest
    if a.key == b.key:
        return AssetDifference(first.asset, first.artifact, second.artifact)
    both = sorted(a.inputs.keys() & b.inputs.keys())
    return AssetDifference(
        asset=first.asset,
        first=first.artifact,
        second=second.artifact,
        code=tuple(changes(a.code_version, b.code_version, "code_version")),
        recipe=tuple(changes(a.recipe, b.recipe)),
        external=tuple(changes(a.external, b.external)),
        inputs=tuple(
            Change(
                name,
                "read" if name in a.inputs else ABSENT,
                "read" if name in b.inputs else ABSENT,
            )
            for name in sorted(a.inputs.keys() ^ b.inputs.keys())
        ),
        changed_inputs=tuple(n for n in both if a.inputs[n].data_version != b.inputs[n].data_version),
        packages=tuple(changes(a.packages, b.packages)),
    )


def changes(first: Any, second: Any, name: str = "") -> Iterator[Change]:
    """Dotted fields in which two JSON values differ; lists are compared whole."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for inner in sorted({*first, *second}):
            dotted = f"{name}.{inner}".lstrip(".")
            yield from changes(first.get(inner, ABSENT), second.get(inner, ABSENT), dotted)
    elif first != second:
        yield Change(name, first, second)


def grouped(assets: Sequence[Mapping[str, Any]], first: str, second: str) -> dict[str, list[str]]:
    """The assets that are no roots of a difference, by how they differ; groups without one are left out.

    Args:
        assets: as `as_row` makes them.
        first, second: names of the two sides.
    """
    both = [asset for asset in assets if asset["first"] and asset["second"]]
    differ = [asset for asset in both if not asset["same_artifact"] and not asset["root"]]
    groups = {
        "differ because of an input": [
            f"{a['asset']} ({', '.join(a['changed_inputs'])})" for a in differ if not a["same_content"]
        ],
        "made otherwise, with equal content": [a["asset"] for a in differ if a["same_content"]],
        "the same artifact": [a["asset"] for a in both if a["same_artifact"]],
        f"only behind {first}": [a["asset"] for a in assets if not a["second"]],
        f"only behind {second}": [a["asset"] for a in assets if not a["first"]],
    }
    return {name: list(dict.fromkeys(members)) for name, members in groups.items() if members}


def reasons(asset: Mapping[str, Any]) -> list[tuple[str, str, Any, Any]]:
    """Why an asset differs, from what `as_row` says: part, field, and the two values."""
    return [
        (part, change["field"], change["first"], change["second"])
        for part in ("code", "recipe", "external", "inputs", "packages")
        for change in asset[part]
    ]


def as_row(asset: AssetDifference) -> dict[str, Any]:
    """Plain data for JSON."""
    sides = {
        side: None
        if artifact is None
        else {
            "key": artifact.key,
            "data_version": artifact.data_version,
            "code_version": artifact.manifest.code_version,
            "experiment": artifact.manifest.experiment,
        }
        for side, artifact in (("first", asset.first), ("second", asset.second))
    }
    parts = {
        part: [vars(change) for change in getattr(asset, part)]
        for part in ("code", "recipe", "external", "inputs", "packages")
    }
    return {
        "asset": asset.asset,
        "root": asset.is_root,
        "same_artifact": asset.same_artifact,
        "same_content": asset.same_content,
        **sides,
        **parts,
        "changed_inputs": list(asset.changed_inputs),
    }
