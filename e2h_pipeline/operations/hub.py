"""Pushes a folder to the Hugging Face Hub, with the login that huggingface_hub finds by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


class HubError(RuntimeError):
    """The Hub cannot be written to; one line for people, without the token."""


def push(folder: Path, repo: str, kind: Literal["model", "dataset"], private: bool, message: str) -> str:
    """Push all of a folder as one commit; its address.

    Args:
        repo: OWNER/NAME; made if it is not there.
        private: of a new repository.

    Raises:
        HubError: there is no login, no such owner, or the Hub does not answer.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError, HTTPError

    token = get_token()
    if not token:
        raise HubError("no login for the Hub: set HF_TOKEN, or run: hf auth login")
    api = HfApi(token=token)
    try:
        api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo, folder_path=folder, repo_type=kind, commit_message=message)
    except (HTTPError, HFValidationError, OSError, ValueError) as error:
        first = next(iter(str(error).strip().splitlines()), "")
        said = f"{type(error).__name__}: {first}".replace(token, "***")
        raise HubError(f"{repo}: {said}") from None
    return str(getattr(commit, "commit_url", commit))
