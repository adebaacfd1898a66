"""A code version nobody has to bump: a hash of what an asset's body does, and of all it imports.

The hash is over syntax trees without docstrings, so comments, docstrings and formatting do not
count. It covers the body, the helpers of its file that it names, and the modules of the library
that these import, transitively, imports inside functions included. Modules are parsed, never
imported: loading definitions must not load torch.

Left out: recipe.py (its values are in the key), reporter.py and artifacts/ (they carry results,
they do not shape them).
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

_PACKAGE = "e2h_pipeline"
_ROOT = Path(__file__).resolve().parents[1]
_LEFT_OUT = (f"{_PACKAGE}.recipe", f"{_PACKAGE}.reporter", f"{_PACKAGE}.artifacts")
_LENGTH = 16


def code_version(body: Callable[..., Any]) -> str:
    """Hash of an asset body and of the library code behind it, 16 hex digits."""
    names = _body_definitions(body)
    digest = hashlib.sha256()
    for node in names:
        digest.update(_dump(node).encode())
    for module, module_hash in sorted(_closure(_imports(names, None)).items()):
        digest.update(f"{module}={module_hash}".encode())
    return digest.hexdigest()[:_LENGTH]


def _body_definitions(body: Callable[..., Any]) -> list[ast.stmt]:
    """The body, and the statements at the top of its file that it uses, directly or through others."""
    tree = _parse(Path(inspect.getsourcefile(body) or ""))
    line = body.__code__.co_firstlineno
    function = next(
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and _first_line(node) == line
    )
    top = {name: node for node in tree.body for name in _defined(node)}
    used: list[ast.stmt] = [function]
    for node in used:  # grows while it is walked
        names = {n.id for n in ast.walk(_bare(node)) if isinstance(n, ast.Name)}
        used.extend(top[name] for name in sorted(names & top.keys()) if top[name] not in used)
    return [_bare(node) for node in used]


def _first_line(node: ast.FunctionDef) -> int:
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    return []


def _bare(node: ast.stmt) -> ast.stmt:
    """A function without its decorators: they describe the asset, they do not compute it."""
    if not isinstance(node, ast.FunctionDef):
        return node
    copy = ast.FunctionDef(**{name: getattr(node, name) for name in node._fields})
    copy.decorator_list, copy.returns = [], None
    return copy


def _closure(modules: Iterable[str]) -> dict[str, str]:
    """Module name -> hash, for the given library modules and all they import."""
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        path = _module_file(module)
        if path is None or module in found or module.startswith(_LEFT_OUT):
            continue
        found[module], imported = _scan(path, module, path.stat().st_mtime_ns)
        waiting.extend(imported)
    return found


@cache
def _scan(path: Path, module: str, _changed: int) -> tuple[str, tuple[str, ...]]:
    """Hash of one module file and the library modules it imports."""
    tree = _parse(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    text = "".join(_dump(node) for node in tree.body)
    return hashlib.sha256(text.encode()).hexdigest(), tuple(_imports(tree.body, package))


def _imports(nodes: Iterable[ast.stmt], package: str | None) -> Iterator[str]:
    """Library modules named by import statements anywhere below `nodes`.

    `from a import b` may name a module or something in one, so both readings are given.
    """
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(_PACKAGE))
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            if base.startswith(_PACKAGE):
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _absolute(node: ast.ImportFrom, package: str | None) -> str:
    if not node.level or package is None:
        return node.module or ""
    parts = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _module_file(module: str) -> Path | None:
    base = _ROOT.parent.joinpath(*module.split("."))
    options = (base.with_name(base.name + ".py"), base / "__init__.py")
    return next((path for path in options if path.is_file()), None)


def _parse(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return ast.fix_missing_locations(_Strip().visit(tree))


class _Strip(ast.NodeTransformer):
    """Drops docstrings and `if TYPE_CHECKING:` blocks."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        bare_string = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if bare_string else node


def _dump(node: ast.AST) -> str:
    return ast.dump(node, include_attributes=False)
