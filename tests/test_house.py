"""The house as planned: few loose files, short functions, no domain's name in other modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from e2h_pipeline.registry import DOMAINS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("e2h_pipeline", "assets", "resources")
LONGEST = 60  # lines of a function
MOST_PARAMETERS, SHARE = 6, 0.98
AT_HOME = (
    *(f"e2h_pipeline/problems/{name}/" for name in DOMAINS.entries),
    "e2h_pipeline/recipe/",
    "e2h_pipeline/registry.py",
)


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of this project, by path."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function, by place."""
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path}:{node.lineno} {node.name}", node


def test_few_files_lie_loose() -> None:
    loose = {path.name for path in (ROOT / "e2h_pipeline").glob("*.py")} - {"__init__.py"}
    assert len(loose) <= 4, loose


def test_functions_are_short() -> None:
    lengths = {where: (node.end_lineno or 0) - node.lineno + 1 for where, node in functions()}
    assert {where: length for where, length in lengths.items() if length > LONGEST} == {}


def test_functions_take_few_parameters() -> None:
    found = {
        where: len(node.args.posonlyargs)
        + len(node.args.args)
        + len(node.args.kwonlyargs)
        - (bool(node.args.args) and node.args.args[0].arg in ("self", "cls"))
        for where, node in functions()
    }
    many = {where: count for where, count in found.items() if count > MOST_PARAMETERS}
    assert len(many) <= (1 - SHARE) * len(found), many


def test_modules_say_what_they_are() -> None:
    silent = [path for path, tree in modules() if tree.body and not ast.get_docstring(tree)]
    assert silent == []
    assert [path for path, tree in modules() if "TODO" in (ast.get_docstring(tree) or "")] == []


def test_no_code_asks_a_domain_for_its_name() -> None:
    asked = [
        f"{path}:{node.lineno}"
        for path, tree in modules()
        if not path.startswith(AT_HOME)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if isinstance(side, ast.Constant) and side.value in DOMAINS.entries
    ]
    assert asked == []
