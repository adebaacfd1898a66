"""Requests (all that determines an artifact), artifacts, and the drafts in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.hashing import data_version, digest_json
from e2h_pipeline.artifacts.manifest import (
    InputRef,
    Manifest,
)


class StoreError(RuntimeError):
    """An artifact that is missing, damaged or cannot be made; the message names the file and the
    mend."""


@dataclass(frozen=True)
class Artifact:
    """An immutable folder and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def asset(self) -> str:
        """Name of the asset."""
        return self.manifest.asset

    @property
    def key(self) -> str:
        """Key of the request that it answers."""
        return self.manifest.key

    @property
    def data_version(self) -> str:
        """Hash of the content."""
        return self.manifest.data_version


@dataclass(frozen=True)
class Request:
    """What determines an artifact. Only these enter the key.

    Attributes:
        grows: dotted recipe field with the amount of work, `sampling.samples`; empty where there is
            none.
    """

    asset: str
    code_version: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, InputRef] = field(default_factory=dict)
    external: Any = None
    experiment: str = ""
    grows: str = ""

    @cached_property
    def key(self) -> str:
        """SHA-256 over everything that shapes the content. Inputs count by content, not by their
        own key."""
        return self._digest(self.recipe)

    @property
    def family(self) -> str:
        """The key without the field that grows; the key itself where there is none.

        Raises:
            StoreError: the recipe has no such field.
        """
        return self._digest(_without(self.recipe, self.grows)) if self.grows else self.key

    def _digest(self, recipe: Mapping[str, Any]) -> str:
        return digest_json(
            {
                "asset": self.asset,
                "code": self.code_version,
                "recipe": recipe,
                "inputs": {name: ref.data_version for name, ref in self.inputs.items()},
                "external": self.external,
            }
        )


@dataclass
class Draft:
    """An artifact being made. `lock_fd` holds the family's lock; a child that inherits it keeps
    others out."""

    out: Path
    work: Path
    lock_fd: int
    summary: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None
    tracking_url: str | None = None
    device: str = ""


def request_behind(manifest: Manifest, grows: str = "") -> Request:
    """The request behind an artifact. Its key is the manifest's, unless the manifest was edited.

    Args:
        grows: the stage's field that grows; manifests do not record it.
    """
    return Request(
        asset=manifest.asset,
        code_version=manifest.code_version,
        recipe=manifest.recipe,
        inputs=manifest.inputs,
        external=manifest.external,
        experiment=manifest.experiment,
        grows=grows,
    )


def manifest_damage(manifest: Manifest) -> str | None:
    """The contradiction in a manifest, or None.

    The seal must fit all fields, the key the request, and the data version the listed contents.
    Files are not read.
    """
    if request_behind(manifest).key != manifest.key:
        return "key does not match code version, recipe, inputs and external fingerprint"
    if data_version({name: entry.content for name, entry in manifest.files.items()}) != manifest.data_version:
        return "data_version does not match its files"
    if manifest.seal != manifest.expected_seal():
        return "edited since it was sealed" if manifest.seal else "not sealed: an earlier version made it"
    return None


def _without(recipe: Mapping[str, Any], field: str) -> dict[str, Any]:
    """A recipe without one dotted field."""
    name, _, inner = field.partition(".")
    if name not in recipe:
        raise StoreError(f"'{field}' grows, but the stage does not read it; name it among its recipe fields")
    rest = {other: value for other, value in recipe.items() if other != name}
    return {**rest, name: _without(recipe[name], inner)} if inner else rest
