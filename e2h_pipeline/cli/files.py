"""Files that commands read and write, and errors about them as command errors."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from e2h_pipeline.cli.shared import CommandError


@contextmanager
def explained() -> Iterator[None]:
    """Errors about files and graders as command errors."""
    from e2h_pipeline.evaluation.graded import PoolError
    from e2h_pipeline.grading.worker_pool import GradingError
    from e2h_pipeline.problems.records import ProblemError

    try:
        yield
    except (ProblemError, PoolError, GradingError) as error:
        raise CommandError(str(error)) from None


@contextmanager
def opened(file: str) -> Iterator[tuple[IO[bytes], str]]:
    """The file or stdin, and its name for messages."""
    if file == "-":
        if sys.stdin is None:
            raise CommandError("stdin is closed; name a file of JSON lines")
        yield sys.stdin.buffer, "stdin"
        return
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(file).open("rb"))
        except OSError as error:
            raise CommandError(
                f"{file}: {error.strerror}; name a file of JSON lines, or - for stdin"
            ) from None
        yield stream, file


@contextmanager
def whole_file(path: Path) -> Iterator[IO[Any]]:
    """A text file that gets its name only once it is completely written."""
    if path.exists() and not path.is_file():
        raise CommandError(f"{path}: not a regular file; name one to write")
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(temporary, "wt", encoding="utf-8") as sink:
            yield sink
        temporary.replace(path)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}; name a file that can be written") from None
    finally:
        temporary.unlink(missing_ok=True)
