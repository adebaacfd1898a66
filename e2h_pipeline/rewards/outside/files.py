"""The files of an evaluator that others have trained: a folder, or the Hub's, never code or pickles."""

from __future__ import annotations

import shutil
from pathlib import Path

from e2h_pipeline.rewards.outside.layout import LayoutError

_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def local_folder(name: str, revision: str | None = None) -> Path:
    """The folder of this name, else that of the Hub's files. The latter is named by their commit.

    Raises:
        LayoutError: there is neither.
    """
    return Path(name) if Path(name).is_dir() else _fetched(name, revision)


def _fetched(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        why = str(error).splitlines()[0]
        raise LayoutError(f"{name}: no such folder, and not found on the Hub ({why})") from None


def copy_model(source: Path, target: Path) -> None:
    """Copy the files of a model; its folders (other formats, code) are left out."""
    target.mkdir(parents=True)
    for pattern in _FILES:
        for file in sorted(source.glob(pattern)):
            shutil.copyfile(file, target / file.name)
