"""`e2h export --hub` against a local stub of the Hub's API: what is sent, and that the token is nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_stub import TOKEN, Hub, hub_stub
from huggingface_hub import constants

from e2h_pipeline.operations.hub import HubError, push


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub_stub() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "README.md").write_text("---\nlibrary_name: transformers\n---\n# A model\n")
    (tmp_path / "sub" / "data.bin").write_bytes(b"\x00\x01")
    return tmp_path


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_a_folder_is_one_commit_in_a_private_repository(
    hub: Hub, folder: Path, kind: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    address = push(folder, "me/it", kind, private=True, message="Experiment ladder")
    assert address.endswith("/me/it/commit/1")
    assert hub.files() == {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    (made,) = (json.loads(body) for _, path, _, body in hub.asked if path == "/api/repos/create")
    assert made["name"] == "it" and made["organization"] == "me"
    assert made.get("private") is True or made.get("visibility") == "private"
    assert all(token == f"Bearer {TOKEN}" for _, path, token, _ in hub.asked if "/me/it/" in path)
    assert not any(TOKEN.encode() in body or TOKEN in path for _, path, _, body in hub.asked)
    said = "".join(capfd.readouterr()) + caplog.text
    assert TOKEN not in said


def test_errors_do_not_tell_the_token(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.refuses = True
    with pytest.raises(HubError, match="me/it: ") as caught:
        push(folder, "me/it", "model", private=True, message="m")
    assert TOKEN not in str(caught.value) and TOKEN not in "".join(capfd.readouterr())
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    with pytest.raises(HubError, match="HFValidationError"):
        push(folder, "not a name", "model", private=True, message="m")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(HubError, match="me/it: Connect"):
        push(folder, "me/it", "model", private=True, message="m")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "none"))
    with pytest.raises(HubError, match="set HF_TOKEN"):
        push(folder, "me/it", "model", private=True, message="m")
