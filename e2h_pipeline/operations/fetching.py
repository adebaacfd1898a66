"""Fetches published files: what was begun is gone on with, and nothing counts before its hash is right."""

from __future__ import annotations

import hashlib
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from e2h_pipeline.problems.catalogue import DataSet, Source, state_of_file

_PIECE = 1 << 20
_SECONDS = 60.0  # without a byte
_ATTEMPTS = 4  # without a new byte
_WAIT_SECONDS = 1.0
_PARTIAL, _WHOLE = 206, 416
_HASH_LENGTH = 64

Watch = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that are there, and all bytes (0 where not known)."""


class FetchError(RuntimeError):
    """A file cannot be fetched; one line for people."""


def fetch_data(data: DataSet, folder: Path, watch: Watch) -> list[Path]:
    """Fetch the files of a data set that are not there; those that are there.

    Args:
        folder: E2H_DATA_DIR.

    Raises:
        FetchError: it is published in no form that can be taken, cannot be reached, or has another hash.
    """
    if not data.fetched:
        raise FetchError(
            f"{data.name} is not published in a form that can be taken as it is: {data.published}"
        )
    states = {place: state_of_file(folder / place, source) for place, source in data.files.items()}
    if other := [str(file) for state, file in states.values() if state == "differs"]:
        raise FetchError(f"{other[0]} is another file than the published one; move it away first")
    if all(state != "missing" for state, _ in states.values()):
        return [file for _, file in states.values()]
    if data.make is not None:
        partial = folder / ".fetched" / data.name
        for source in data.sources:
            fetch(source, partial / source.name, watch)
        data.make(partial, (folder / next(iter(data.files))).parent)
        for source in data.sources:
            (partial / source.name).unlink()
    else:
        for place, direct in data.files.items():
            if direct is not None and states[place][0] == "missing":
                fetch(direct, folder / place, watch)
    return [folder / place for place in data.files]


def fetch(source: Source, target: Path, watch: Watch) -> None:
    """Fetch a file; a part of it beside it (`.part`) is gone on with.

    Raises:
        FetchError: see `fetch_data`.
    """
    if target.is_file():
        return
    url, sha256, size = (
        _on_hub(source) if "://" not in source.url else (source.url, source.sha256, source.size)
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    attempts = 0
    while not _continue(url, part, size, lambda done: watch(source.name, done, size)):
        attempts += 1
        if attempts == _ATTEMPTS:
            raise FetchError(f"{url}: broken off again and again; the same command goes on from here")
        time.sleep(_WAIT_SECONDS)
    found = _sha256(part)
    if sha256 and found != sha256:
        part.unlink()
        raise FetchError(f"{url}: SHA-256 {found} instead of {sha256}; nothing was kept")
    part.rename(target)


def _continue(url: str, part: Path, size: int, told: Callable[[int], None]) -> bool:
    """Go on with a file; whether it is whole.

    Raises:
        FetchError: the server does not answer, or refuses.
    """
    done = part.stat().st_size if part.exists() else 0
    if size and done == size:
        return True
    asked = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(asked, timeout=_SECONDS) as answer:
            goes_on = answer.status == _PARTIAL
            done = done if goes_on else 0
            whole = done + int(answer.headers.get("Content-Length") or 0)
            with part.open("ab" if goes_on else "wb") as out:
                while piece := answer.read(_PIECE):
                    out.write(piece)
                    done += len(piece)
                    told(done)
    except urllib.error.HTTPError as error:
        if error.code == _WHOLE and done:
            return True
        raise FetchError(f"{url}: {error.code} {error.reason}") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        if part.exists() and part.stat().st_size > 0:
            return False
        raise FetchError(f"{url}: {getattr(error, 'reason', error)}") from None
    return done >= (size or whole)


def _on_hub(source: Source) -> tuple[str, str, int]:
    """Address, hash and size of a file on the Hub, as the Hub tells them."""
    from huggingface_hub import constants, get_hf_file_metadata
    from huggingface_hub.errors import HTTPError

    url = f"{constants.ENDPOINT}/{source.url}"
    try:
        told = get_hf_file_metadata(url)
    except (HTTPError, OSError, ValueError) as error:
        raise FetchError(
            f"{url}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from None
    sha256 = told.etag if told.etag and len(told.etag) == _HASH_LENGTH else ""
    return told.location, sha256, told.size or 0


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
