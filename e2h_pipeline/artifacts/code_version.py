"""Automatic code versions: a hash of a definition and of everything it uses.

The unit is the *definition*: a function, class or constant at the top of a module. A version covers
a definition, the definitions of its module that it names, and the library definitions that it
imports, transitively, also by imports inside functions. So a new function changes only the versions
of its callers. Hashes are over syntax trees without docstrings: comments, docstrings and formatting
do not count. Modules are parsed, never imported: loading definitions must not load torch.

A string that is exactly the name of a library module counts as an import: code names the modules of
child processes this way. A string `module:Name` does not count: registries hold many, and a stage
says which entries it uses (`e2h_pipeline.registry`).

The version describes the running code. Editing a file does not change a loaded module, so the hash
of a loaded module is kept from the first look at it. A module that is not loaded yet is read from
disk each time. `Code.load` loads all covered modules; after it, the version of this process is
fixed.

Left out: the recipe (its values are in the key), the registry, and the part of `artifacts` that
carries results without shaping them.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

Reference = tuple[str, str]
"""A module and one of its definitions; `WHOLE` for all of them."""

WHOLE = "*"
_LIBRARY = ("e2h_pipeline", "assets")
_PREFIXES = tuple(f"{package}." for package in _LIBRARY)
_ROOT = Path(__file__).resolve().parents[1]
_LEFT_OUT = ("e2h_pipeline.recipe", "e2h_pipeline.registry", "e2h_pipeline.artifacts")
_SHAPING = ("e2h_pipeline.artifacts.tables", "e2h_pipeline.artifacts.shards")
_LENGTH = 16
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
_SECONDS = 1.0


class CodeChangedError(RuntimeError):
    """Code was edited between two moments that must see the same code; the message names the stage
    and the mend."""


@dataclass(frozen=True)
class Code:
    """A piece of code and the start of its closure.

    Attributes:
        own: hash of the piece itself.
        uses: library definitions that it names.
        packages: top-level packages; only their modules are followed.
    """

    own: str
    uses: tuple[Reference, ...]
    packages: tuple[str, ...] = _LIBRARY

    def version(self) -> str:
        """Hash of the piece and of all it uses, 16 hex digits, as this process would run it now.

        Files are looked at once in `_SECONDS`, because plans ask for thousands of versions;
        `look_again` does not wait.
        """
        return _version(self, _state_of_files(self.packages, time.monotonic() // _SECONDS))

    def load(self) -> None:
        """Import all covered modules of this process, so that later edits do not affect it.

        Each file is read right after its import. An edit in between is taken for the loaded code,
        so it shows as another version and is not missed.
        """
        _seen.clear()
        found = _closure(self.uses, self.packages)
        elsewhere = {module for part in found.values() for module, _ in part.started}
        here = sorted({module for module, _ in found} - elsewhere)
        for module in here:
            importlib.import_module(module)
        _seen.clear()
        for module in here:
            _source(module)


@lru_cache(maxsize=1024)
def _version(code: Code, files: str) -> str:
    if _seen.get("") != files:
        _seen.clear()
        _seen[""] = files
    digest = hashlib.sha256(code.own.encode())
    for (module, name), found in sorted(_closure(code.uses, code.packages).items()):
        digest.update(f"{module}:{name}={found.digest}".encode())
    return digest.hexdigest()[:_LENGTH]


@lru_cache(maxsize=16)
def _state_of_files(packages: tuple[str, ...], _when: float) -> str:
    """Hash of names, sizes and times of some packages' modules; versions change only with it."""
    digest = hashlib.sha256()
    for package in packages:
        folder = _package_folder(package)
        for path in sorted(folder.rglob("*.py")) if folder and folder.is_dir() else []:
            stat = path.stat()
            digest.update(f"{path} {stat.st_mtime_ns} {stat.st_size};".encode())
    return digest.hexdigest()


def look_again() -> None:
    """The next version looks at the files, however short ago the last one did."""
    _state_of_files.cache_clear()


@dataclass(frozen=True)
class _Definition:
    """A definition: its hash, its references, and those that it starts in other processes."""

    digest: str
    refers: tuple[Reference, ...]
    started: tuple[Reference, ...]

    @classmethod
    def of(cls, data: Sequence[Any]) -> _Definition:
        """From JSON data."""
        digest, refers, started = data
        return cls(digest, tuple((m, n) for m, n in refers), tuple((m, n) for m, n in started))


@dataclass(frozen=True)
class _Source:
    """A module: definitions by name, origins of imported names, and its import-time code."""

    definitions: Mapping[str, _Definition]
    imported: Mapping[str, Reference]
    effects: _Definition

    def as_data(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "definitions": {name: list(vars(found).values()) for name, found in self.definitions.items()},
            "imported": self.imported,
            "effects": list(vars(self.effects).values()),
        }

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> _Source:
        """From JSON data."""
        return cls(
            {name: _Definition.of(found) for name, found in data["definitions"].items()},
            {name: (module, inner) for name, (module, inner) in data["imported"].items()},
            _Definition.of(data["effects"]),
        )


def code_of(body: Callable[..., Any]) -> Code:
    """The code of an asset body: the function without its decorators, and the code it uses."""
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
    bare = [_bare(node) for node in used]
    text = "".join(_dump(node) for node in bare)
    uses = tuple(sorted({reference for node in bare for reference in _named_in(node, body.__module__)}))
    return Code(hashlib.sha256(text.encode()).hexdigest(), uses)


def code_behind(target: str) -> Code:
    """The code of a registry entry `module:Name`; the package of a plugin is followed too."""
    module, _, name = target.partition(":")
    package = module.partition(".")[0]
    packages = _LIBRARY if package in _LIBRARY else (*_LIBRARY, package)
    return Code(target, ((module, name),), packages)


def changed_since(code: Iterable[Code], seconds: float) -> list[Path]:
    """Files of some code that were changed after a time (seconds since 1970)."""
    _seen.clear()
    modules = {module for part in code for module, _ in _closure(part.uses, part.packages)}
    files = {path for module in modules if (path := _module_file(module)) is not None}
    return sorted(path for path in files if path.stat().st_mtime > seconds)


def _closure(seeds: Iterable[Reference], packages: tuple[str, ...]) -> dict[Reference, _Definition]:
    """All definitions reachable from the seeds."""
    found: dict[Reference, _Definition] = {}
    waiting = list(seeds)
    seen: set[Reference] = set()
    while waiting:
        reference = waiting.pop()
        if reference in seen:
            continue
        seen.add(reference)
        for resolved, definition in _resolve(reference, packages):
            if resolved not in found:
                found[resolved] = definition
                waiting += definition.refers
    return found


def _resolve(reference: Reference, packages: tuple[str, ...]) -> Iterator[tuple[Reference, _Definition]]:
    """The definitions behind a reference, and the import-time code of their module.

    A whole module is an entry without a hash of its own that refers to all it defines and imports.
    """
    module, name = reference
    source = _source(module) if _followed(module, packages) else None
    if source is None:
        return
    yield (module, ""), source.effects
    if name in source.definitions:
        yield reference, source.definitions[name]
    elif name in source.imported:
        yield from _resolve(source.imported[name], packages)
    elif name != WHOLE and _source(f"{module}.{name}") is not None:
        yield from _resolve((f"{module}.{name}", WHOLE), packages)
    else:
        defined = ((module, each) for each in source.definitions)
        yield (module, WHOLE), _Definition("", (*defined, *source.imported.values()), ())


def _followed(module: str, packages: tuple[str, ...]) -> bool:
    if module.partition(".")[0] not in packages:
        return False
    left_out = any(module == name or module.startswith(f"{name}.") for name in _LEFT_OUT)
    return not left_out or module in _SHAPING


_held: dict[str, _Source] = {}
_seen: dict[str, Any] = {}  # modules by name; under "", the state of the files they were read in


def _source(module: str) -> _Source | None:
    """A module as this process runs it; a loaded one as it was at the first look."""
    if module in _held:
        return _held[module]
    if module not in _seen:
        path = _module_file(module)
        stat = path.stat() if path else None
        _seen[module] = _scan(path, module, stat.st_mtime_ns, stat.st_size) if path and stat else None
    source: _Source | None = _seen[module]
    if source is not None and _loaded(module):
        _held[module] = source
    return source


def _loaded(module: str) -> bool:
    return module in sys.modules


@cache
def _scan(path: Path, module: str, changed: int, size: int) -> _Source:
    """Take a module file apart, or read what an earlier process found in it.

    That is kept beside Python's own compiled files, under their rule: as long as time and size of
    the file stay. Every process would spend a second on it otherwise.
    """
    kept = path.parent / "__pycache__" / f"{path.stem}.code-{sys.implementation.cache_tag}.json"
    about = [module, changed, size, _own_hash()]
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["about"] == about:
            return _Source.of(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or cut off: it is made anew
    source = _take_apart(path, module)
    if not sys.dont_write_bytecode:
        with suppress(OSError):  # a folder that cannot be written
            _write_beside(kept, json.dumps({"about": about, **source.as_data()}))
    return source


@cache
def _own_hash() -> str:
    """Hash of this file: other rules find other things."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _write_beside(path: Path, text: str) -> None:
    """Write a file as a whole, whoever else writes it at the moment."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _take_apart(path: Path, module: str) -> _Source:
    tree = _parse(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    top = {name for node in tree.body for name in _defined(node)}
    definitions: dict[str, _Definition] = {}
    imported: dict[str, Reference] = {}
    effects: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported |= dict(_import_table(node, package))
        elif names := _defined(node):
            definition = _definition([node], module, package, top)
            for name in names:
                before = definitions.get(name)
                definitions[name] = _both(before, definition) if before else definition
        else:
            effects.append(node)
    return _Source(definitions, imported, _definition(effects, module, package, top))


def _definition(nodes: list[ast.stmt], module: str, package: str, top: set[str]) -> _Definition:
    text = "".join(_dump(node) for node in nodes)
    refers: set[Reference] = set()
    started: set[Reference] = set()
    for inner in _all_nodes(nodes):
        if isinstance(inner, ast.Name):
            if inner.id in top:
                refers.add((module, inner.id))
        elif isinstance(inner, ast.Constant):
            started.update(_started(inner))
        elif isinstance(inner, ast.Import | ast.ImportFrom):
            refers.update(target for _, target in _import_table(inner, package))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return _Definition(digest, tuple(sorted(refers | started)), tuple(sorted(started)))


def _all_nodes(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes of some trees, in no order; `ast.walk` takes twice as long."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, ast.AST):
                waiting.append(value)
            elif isinstance(value, list):
                waiting += [inner for inner in value if isinstance(inner, ast.AST)]


def _both(one: _Definition, other: _Definition) -> _Definition:
    """A name that is defined twice (overloads, a constant and its fallback)."""
    digest = hashlib.sha256(f"{one.digest}{other.digest}".encode()).hexdigest()
    return _Definition(digest, one.refers + other.refers, one.started + other.started)


def _named_in(node: ast.stmt, module: str) -> Iterator[Reference]:
    """Library references of a statement in an asset's file."""
    yield from _definition([node], module, module.rpartition(".")[0], set()).refers


def _started(constant: ast.Constant) -> Iterator[Reference]:
    """The library module that a string names."""
    text = constant.value
    if isinstance(text, str) and text.startswith(_PREFIXES) and _module_file(text) is not None:
        yield text, WHOLE


def _import_table(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, Reference]]:
    """Names that an import binds, and what they stand for."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield (alias.asname or alias.name.partition(".")[0]), (alias.name, WHOLE)
        return
    base = _absolute(node, package)
    for alias in node.names:
        yield (alias.asname or alias.name), (base, alias.name)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _module_file(module: str) -> Path | None:
    package, *rest = module.split(".")
    base = _package_folder(package)
    if base is None:
        return None
    path = base.joinpath(*rest)
    options = (path.with_name(path.name + ".py"), path / "__init__.py")
    return next((option for option in options if option.is_file()), None)


def _package_folder(package: str) -> Path | None:
    """Folder of a top-level package, found without importing it."""
    if package in _LIBRARY:
        return _ROOT.parent / package
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return origin.parent if origin.name == "__init__.py" else origin.with_suffix("")


def _first_line(node: ast.FunctionDef) -> int:
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        targets = [inner for target in node.targets for inner in _flat(target)]
        named = [target.id for target in targets if isinstance(target, ast.Name)]
        return named if len(named) == len(targets) else []  # an item or attribute is set: an effect
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    return []


def _flat(target: ast.expr) -> list[ast.expr]:
    return (
        [inner for element in target.elts for inner in _flat(element)]
        if isinstance(target, ast.Tuple)
        else [target]
    )


def _bare(node: ast.stmt) -> ast.stmt:
    """A function without its decorators: they describe the asset, they do not compute it."""
    if not isinstance(node, ast.FunctionDef):
        return node
    copy = ast.FunctionDef(**{name: getattr(node, name) for name in node._fields})
    copy.decorator_list, copy.returns = [], None
    return copy


def _parse(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    _strip(tree)
    return tree


def _strip(node: ast.AST) -> None:
    """Drop docstrings and `if TYPE_CHECKING:` blocks. Statements hold statements, and expressions
    hold none, so the expressions, which are most of a tree, are not walked."""
    for name in _BLOCKS:
        block = getattr(node, name, None)
        if isinstance(block, list):
            block[:] = [inner for inner in block if not _dropped(inner)]
            for inner in block:
                _strip(inner)


def _dropped(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _dump(node: ast.AST) -> str:
    return ast.dump(node, include_attributes=False)
