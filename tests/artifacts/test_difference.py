"""Differences of lineages: where they begin, and their consequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_stores import make

from e2h_pipeline.artifacts.difference import ABSENT, Change, as_row, changes, compare
from e2h_pipeline.artifacts.lineage import Node, trace
from e2h_pipeline.artifacts.request import Artifact
from e2h_pipeline.artifacts.store import ArtifactStore


def result(
    store: ArtifactStore,
    easy: dict[str, Any] | None = None,
    epochs: int = 2,
    code: str = "c0de",
) -> Node:
    """easy_problems -> sft_policy -> rerank_metrics <- base_model."""
    data = make(store, "easy_problems", recipe=easy or {"problems": {"seed": 0, "levels": [1, 2]}})
    sft = make(store, "sft_policy", data, recipe={"sft": {"epochs": epochs}}, code=code)
    return trace(store, make(store, "rerank_metrics", sft, make(store, "base_model")))


def test_the_same_result_differs_in_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    found = compare(result(store), result(store))
    assert found.roots == []
    assert all(asset.same_artifact for asset in found.assets)


def test_the_root_is_where_the_recipe_differs_and_what_is_below_follows(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    found = compare(result(store), result(store, easy={"problems": {"seed": 1, "levels": [1, 2, 3]}}))
    (root,) = found.roots
    assert root.asset == "easy_problems"
    assert root.recipe == (Change("problems.levels", [1, 2], [1, 2, 3]), Change("problems.seed", 0, 1))
    assert [asset.asset for asset in found.assets] == [
        "base_model",
        "easy_problems",
        "sft_policy",
        "rerank_metrics",
    ]
    assert found.assets[2].changed_inputs == ("easy_problems",)
    assert found.assets[0].same_artifact


def test_every_reason_of_its_own_is_a_root(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    found = compare(result(store), result(store, easy={"problems": {"seed": 1}}, epochs=3, code="other"))
    assert [root.asset for root in found.roots] == ["easy_problems", "sft_policy"]
    row = as_row(found.roots[1])
    assert row["code"] == [{"field": "code_version", "first": "c0de", "second": "other"}]
    assert row["recipe"] == [{"field": "sft.epochs", "first": 2, "second": 3}]
    assert row["changed_inputs"] == ["easy_problems"]


def test_other_code_with_equal_content_is_no_root(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    old = make(store, "sft_policy", content="weights")
    new = make(store, "sft_policy", content="weights", code="refactored")
    scores = [make(store, "rerank_scores", sft, recipe={"batch": n}) for n, sft in enumerate((old, new))]
    found = compare(*(trace(store, artifact) for artifact in scores))
    assert [root.asset for root in found.roots] == ["rerank_scores"]
    policy = found.assets[0]
    assert (policy.asset, policy.same_artifact, policy.same_content) == ("sft_policy", False, True)
    assert policy.code == (Change("code_version", "c0de", "refactored"),)


def test_an_input_that_only_one_side_has_is_a_reason_and_is_listed(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    sft, watch = make(store, "sft_policy"), make(store, "evaluator")
    first, second = make(store, "benchmark_samples", sft), make(store, "benchmark_samples", sft, watch)
    found = compare(trace(store, first), trace(store, second))
    (root,) = found.roots
    assert root.inputs == (Change("evaluator", ABSENT, "read"),)
    alone: list[Artifact | None] = [asset.first for asset in found.assets if asset.asset == "evaluator"]
    assert alone == [None]


def test_fields_are_named_with_dots() -> None:
    first, second = {"a": {"b": 1, "c": [1]}, "d": None}, {"a": {"b": 2, "c": [1]}, "e": 0}
    assert list(changes(first, second)) == [
        Change("a.b", 1, 2),
        Change("d", None, ABSENT),
        Change("e", ABSENT, 0),
    ]
