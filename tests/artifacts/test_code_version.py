"""Code versions: code counts, comments and docstrings do not, and the version is that of the
running code."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.artifacts import code_version as module
from e2h_pipeline.artifacts.code_version import changed_since, code_behind, code_of, look_again

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
    before = code_of(_load(tmp_path / "one.py", BODY)).version()
    after = code_of(_load(tmp_path / "two.py", BODY.replace(old, new))).version()
    assert (before != after) == changes


FILES = {
    "artifacts/tables.py": "def read():\n    return 1\n",
    "artifacts/store.py": "def keep():\n    return 1\n",
    "rl/ppo.py": (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from e2h_pipeline.rl.types import T\n"
        "from e2h_pipeline.artifacts.store import keep\n"
        "def train():\n    from e2h_pipeline.rl import shaping\n    return keep(shaping.shape())\n"
        "def other():\n    return 1\n"
    ),
    "rl/shaping.py": (
        "from e2h_pipeline.artifacts.tables import read\n"
        "SCALE = 2\n"
        "def shape():\n    return read() * SCALE\n"
        "SCHEMES = {}\n"
        "SCHEMES['sum'] = shape\n"
    ),
    "rl/types.py": "T = int\n",
    "rl/losses.py": "def one():\n    return half(1)\ndef two():\n    return 2\ndef half(x):\n    return x / 2\n",
    "rl/public.py": "from e2h_pipeline.rl.losses import one, two\n",
    "grading/pool.py": "def start():\n    return run('e2h_pipeline.grading.worker')\n",
    "grading/worker.py": "def main():\n    return 1\n",
    "registry.py": "WORDS = {'worker': 'e2h_pipeline.grading.worker:main'}\n",
}


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small stand-in for the library's folder; it is never loaded."""
    root = tmp_path / "e2h_pipeline"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").write_text('"""Doc."""\n')
    monkeypatch.setattr(module, "_ROOT", root)
    monkeypatch.setattr(module, "_held", {})
    monkeypatch.setattr(module, "_loaded", lambda name: False)
    _forget()
    yield root
    _forget()


PPO = "def body(job):\n    from e2h_pipeline.rl.ppo import train\n    return train()\n"
ONE = "def body(job):\n    from e2h_pipeline.rl.public import one\n    return one()\n"
POOL = "def body(job):\n    from e2h_pipeline.grading.pool import start\n    return start()\n"


@pytest.mark.parametrize(
    ("asset", "file", "old", "new", "changes"),
    [
        (PPO, "rl/ppo.py", "shaping.shape()", "-shaping.shape()", True),
        (PPO, "rl/ppo.py", "def other():\n    return 1", "def other():\n    return 2", False),
        (PPO, "rl/shaping.py", "SCALE = 2", "SCALE = 3", True),
        (PPO, "rl/shaping.py", "SCHEMES['sum']", "SCHEMES['mean']", True),
        (PPO, "rl/shaping.py", "def shape():", 'def shape():\n    """Doc."""\n    # why', False),
        (PPO, "rl/types.py", "T = int", "T = str", False),
        (PPO, "artifacts/tables.py", "return 1", "return 2", True),
        (PPO, "artifacts/store.py", "return 1", "return 2", False),
        (ONE, "rl/losses.py", "return 2", "return 3", False),
        (ONE, "rl/losses.py", "x / 2", "x / 3", True),
        (ONE, "rl/losses.py", "def two()", "def three():\n    return 3\ndef two()", False),
        (POOL, "grading/worker.py", "return 1", "return 2", True),
        (PPO, "grading/worker.py", "return 1", "return 2", False),
        (POOL, "registry.py", "worker:main", "worker:other", False),
    ],
)
def test_what_is_used_counts_and_nothing_beside_it(
    library: Path, tmp_path: Path, asset: str, file: str, old: str, new: str, changes: bool
) -> None:
    body = _load(tmp_path / "asset.py", asset)
    before = code_of(body).version()
    _edit(library / file, old, new)
    assert (code_of(body).version() != before) == changes


def test_nothing_is_imported(library: Path, tmp_path: Path) -> None:
    (library / "rl" / "ppo.py").write_text("raise RuntimeError('imported')\n")
    code_of(_load(tmp_path / "asset.py", PPO)).version()


def test_an_entry_is_its_definition_and_what_that_uses(library: Path) -> None:
    one, two = (code_behind(f"e2h_pipeline.rl.losses:{name}") for name in ("one", "two"))
    before = one.version(), two.version()
    path = library / "rl" / "losses.py"
    _edit(path, "x / 2", "x / 4")
    assert one.version() != before[0]
    assert two.version() == before[1]
    assert changed_since([one], path.stat().st_mtime - 1) and not changed_since(
        [one], path.stat().st_mtime + 1
    )


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package, which can be imported."""
    folder = tmp_path / "site" / "e2h_toy_code"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "method.py").write_text(
        "from e2h_toy_code.maths import half\ndef method():\n    return half(2)\n"
    )
    (folder / "maths.py").write_text("def half(x):\n    return x / 2\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "e2h_toy_code"]:
        del sys.modules[name]
        module._held.pop(name, None)
    _forget()


def _forget() -> None:
    """Forget all files, like a new process."""
    module._scan.cache_clear()
    module._version.cache_clear()
    module._seen.clear()


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) + "\n")  # another size: file systems may count whole seconds
    look_again()


def test_an_installed_package_is_followed(installed: Path) -> None:
    code = code_behind("e2h_toy_code.method:method")
    before = code.version()
    assert "e2h_toy_code" not in sys.modules
    _edit(installed / "maths.py", "x / 2", "x / 3")
    assert code.version() != before


def test_what_is_loaded_keeps_its_version_and_what_is_not_is_read_anew(installed: Path) -> None:
    """If a file is edited while a stage runs, the new code must not get the old version, and the
    running code must not get the new one."""
    code = code_behind("e2h_toy_code.method:method")
    method = importlib.import_module("e2h_toy_code.method").method
    code.load()
    before = code.version()
    _edit(installed / "maths.py", "x / 2", "x / 3")
    assert method() == 1.0  # this process runs the code that it loaded,
    assert code.version() == before  # and says so
    for name in ("e2h_toy_code.method", "e2h_toy_code.maths"):  # like a new process
        del sys.modules[name]
        del module._held[name]
    _forget()
    assert code.version() != before


def test_a_lazy_import_behind_an_edit_is_found_out(installed: Path) -> None:
    code = code_behind("e2h_toy_code.method:method")
    at_start = code.version()
    _edit(installed / "maths.py", "x / 2", "x / 3")
    assert importlib.import_module("e2h_toy_code.method").method() == 2 / 3
    assert code.version() != at_start


def test_every_stage_covers_the_lazily_imported_and_the_started() -> None:
    """Code that shapes results and was once in no key: the graders' worker, its tasks, and the
    writing of tables."""
    import assets.rerank_metrics  # noqa: F401 - fills STAGES
    from e2h_pipeline.stages.spec import STAGES

    code = STAGES["rerank_metrics"].code
    covered = {name for name, _ in module._closure(code.uses, code.packages)}
    assert "e2h_pipeline.artifacts.tables" in covered
    graders = module._closure(
        code_behind("e2h_pipeline.grading.published.compat:Prm800kGrader").uses, module._LIBRARY
    )
    names = {name for name, _ in graders}
    assert {"e2h_pipeline.grading.worker", "e2h_pipeline.grading.tasks.prm800k"} <= names
    assert "e2h_pipeline.grading.tasks.math_verify" not in names


def test_the_body_of_an_asset_is_found(tmp_path: Path) -> None:
    code = code_of(_load(tmp_path / "asset.py", ONE))
    assert ("e2h_pipeline.rl.public", "one") in code.uses


_BLOCKS = """
class A:
    DOC
    def f(self):
        DOC
        for i in ():
            DOC
            pass
        else:
            DOC
            pass
        try:
            DOC
            pass
        except ValueError:
            DOC
            pass
        else:
            DOC
            pass
        finally:
            DOC
            pass
        match 1:
            case 1:
                DOC
                pass
        with self as g:
            DOC
            return lambda: "kept"
        if g:
            pass
        elif self:
            DOC
            pass
        else:
            DOC
            async def h():
                DOC
                while True:
                    DOC
                    pass
                if TYPE_CHECKING:
                    import docstring
"""


def test_texts_without_a_reader_do_not_count_wherever_they_stand(tmp_path: Path) -> None:
    """In every kind of block of statements; those in expressions count."""
    trees = []
    for doc in ("'a docstring'", "pass", "pass; 'a docstring'", "pass; 1"):
        (tmp_path / "m.py").write_text(_BLOCKS.replace("DOC", doc))
        trees.append(ast.dump(module._parse(tmp_path / "m.py")).replace("Pass(), ", ""))
    assert trees[0] == trees[1] == trees[2] != trees[3]
    assert "kept" in trees[0] and "docstring" not in trees[0]
