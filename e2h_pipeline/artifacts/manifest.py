"""The manifest: how and from which inputs an artifact was made, and the hash of every file in it.

It is written last, inside the temporary folder, so a folder with a manifest is a whole artifact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from e2h_pipeline.artifacts.hashing import digest_json

MANIFEST_NAME = "manifest.json"

# Credentials in their issuers' formats, and logins in URLs: a token can replace the user name.
_SECRET = re.compile(
    r"hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY|://[^/\s@]+@"
)


class ManifestError(ValueError):
    """A manifest that cannot be written or read; the message names the file or field."""


class InputRef(BaseModel):
    """One input: the artifact that was read (`key`) and its content (`data_version`)."""

    model_config = ConfigDict(frozen=True)
    key: str
    data_version: str


class FileEntry(BaseModel):
    """One file. `sha256` is of its bytes (integrity); `content` of its meaning (data version)."""

    model_config = ConfigDict(frozen=True)
    sha256: str
    content: str
    size: int


class Manifest(BaseModel):
    """Everything needed to trust, explain and re-make an artifact."""

    model_config = ConfigDict(frozen=True)
    asset: str
    key: str = Field(
        description="SHA-256 of asset, code version, recipe slice, input data versions, external fingerprint."
    )
    experiment: str = Field(
        "", description="The experiment that made it first; others with the same key share it."
    )
    code_version: str
    recipe: dict[str, Any] = Field(default_factory=dict, description="The recipe slice that shaped it.")
    inputs: dict[str, InputRef] = Field(default_factory=dict)
    external: Any = Field(
        None, description="Fingerprint of what lies outside the store (source files, Hub commit)."
    )
    data_version: str
    files: dict[str, FileEntry]
    seeds: dict[str, int] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    device: str = "cpu"
    wall_seconds: float = Field(
        0.0, description="Of the run that finished it; earlier, killed runs are not counted."
    )
    tokens: int | None = Field(
        None, description="Tokens trained on or generated, where the stage reports them."
    )
    peak_memory_bytes: int = Field(
        0, description="Largest resident size of the process (or its children) by the end."
    )
    summary: dict[str, Any] = Field(
        default_factory=dict, description="Counts and headline numbers from the stage."
    )
    run_id: str | None = Field(None, description="Dagster run that made it.")
    tracking_url: str | None = Field(None, description="MLflow run of the stage.")
    created: str
    seal: str = Field("", description="SHA-256 of all other fields. Dagster's record has it too.")

    def expected_seal(self) -> str:
        """The seal that fits the other fields."""
        return digest_json(self.model_dump(mode="json", exclude={"seal"}))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Seal a manifest and write it as `manifest.json` into an artifact folder.

    Raises:
        ManifestError: a value looks like a credential, or is not plain JSON.
    """
    data = manifest.model_dump(mode="json") | {"seal": manifest.expected_seal()}
    refuse_credentials(manifest.asset, data)
    text = json.dumps(data, indent=1, sort_keys=True, allow_nan=False)
    (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


def refuse_credentials(asset: str, values: Mapping[str, Any]) -> None:
    """Refuse credentials in values that go into a manifest or to MLflow.

    Raises:
        ManifestError: a text looks like a credential; the message names its field, not the text.
    """
    for field, text in _strings(values, ""):
        if _SECRET.search(text):
            raise ManifestError(
                f"{asset}, field {field}: looks like a credential, and manifests and MLflow are readable by all; "
                f"remove it: libraries read credentials from the environment"
            )


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an artifact folder.

    Raises:
        ManifestError: it is missing or not a manifest.
    """
    path = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ManifestError(f"{path}: missing; {folder} is not an artifact") from None
    except ValidationError as error:
        raise ManifestError(
            f"{path}: not a manifest ({error.errors()[0]['msg']}); delete {folder} to make it again"
        ) from None


def _strings(value: Any, field: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _strings(item, f"{field}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _strings(item, f"{field}[{i}]")
