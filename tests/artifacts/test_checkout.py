"""The commit of a checkout, told to people."""

from __future__ import annotations

import subprocess
from pathlib import Path

from e2h_pipeline.artifacts.checkout import commit


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    assert commit(tmp_path / "none") == ""
    folder = tmp_path / "checkout"
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / "a").write_text("1")
    for command in (["add", "a"], ["commit", "-qm", "a"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    commit.cache_clear()
    assert commit(folder) == head[:12]
    (folder / "a").write_text("2")
    commit.cache_clear()
    assert commit(folder) == f"{head[:12]}+changes"
    (folder / "inside").mkdir()
    assert commit(folder / "inside") == ""  # an installed package inside another project
