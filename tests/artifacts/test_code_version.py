"""Code versions: what computes counts, what explains does not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.artifacts import code_version as module
from e2h_pipeline.artifacts.code_version import code_version

BODY = '''
from typing import Any

LIMIT = 3
UNUSED = 1

def helper(x: int) -> int:
    """Explains."""
    return x + LIMIT

def body(job: Any) -> int:
    """Explains."""
    return helper(1)  # a comment
'''


def _load(path: Path, text: str) -> Callable[..., Any]:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded.body


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("  # a comment", "", False),
        ('"""Explains."""', '"""Explains better."""', False),
        ("UNUSED = 1", "UNUSED = 2", False),
        ("def body", "def deco(f):\n    return f\n\n@deco\ndef body", False),
        ("LIMIT = 3", "LIMIT = 4", True),
        ("x + LIMIT", "x - LIMIT", True),
        ("helper(1)", "helper(2)", True),
    ],
)
def test_only_what_computes_counts(tmp_path: Path, old: str, new: str, changes: bool) -> None:
    before = code_version(_load(tmp_path / "one.py", BODY))
    after = code_version(_load(tmp_path / "two.py", BODY.replace(old, new)))
    assert (before != after) == changes


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small stand-in for the library's folder."""
    root = tmp_path / "e2h_pipeline"
    (root / "rl").mkdir(parents=True)
    (root / "artifacts").mkdir()
    for name in ("__init__", "rl/__init__", "artifacts/__init__"):
        (root / f"{name}.py").write_text('"""Doc."""\n')
    (root / "rl" / "ppo.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from e2h_pipeline.rl.types import T\n"
        "def train():\n    from e2h_pipeline.rl import shaping\n    return shaping.shape()\n"
    )
    (root / "rl" / "shaping.py").write_text(
        "from e2h_pipeline.artifacts.tables import read\ndef shape():\n    return 1\n"
    )
    (root / "rl" / "types.py").write_text("T = int\n")
    (root / "artifacts" / "tables.py").write_text("def read():\n    return 1\n")
    monkeypatch.setattr(module, "_ROOT", root)
    return root


LAZY = "def body(job):\n    from e2h_pipeline.rl.online.ppo import train\n    return train()\n"


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("rl/ppo.py", "shaping.shape()", "-shaping.shape()", True),
        ("rl/shaping.py", "return 1", "return 2", True),
        ("rl/shaping.py", "def shape():", 'def shape():\n    """Doc."""\n    # why', False),
        ("rl/types.py", "T = int", "T = str", False),
        ("artifacts/tables.py", "return 1", "return 2", False),
    ],
)
def test_lazy_and_transitive_imports_count(
    library: Path, tmp_path: Path, file: str, old: str, new: str, changes: bool
) -> None:
    body = _load(tmp_path / "asset.py", LAZY)
    before = code_version(body)
    (library / file).write_text((library / file).read_text().replace(old, new))
    module._scan.cache_clear()
    assert (code_version(body) != before) == changes


def test_nothing_is_imported(library: Path, tmp_path: Path) -> None:
    (library / "rl" / "ppo.py").write_text("raise RuntimeError('imported')\n")
    code_version(_load(tmp_path / "asset.py", LAZY))
