"""Kinds of evaluator that the recipe does not name are not trained, and `evaluator` is the one it names."""

import json
from pathlib import Path

import pytest

import assets.evaluators  # noqa: F401 - fills BODIES
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.request import Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.stages.spec import STAGES, narrow
from resources.compute import BODIES

EVALUATORS = ("easy_prm", "easy_orm", "easy_oprm", "easy_pairwise")


def job(asset: str, recipe: Recipe, folder: Path, **inputs: Path) -> StageJob:
    out = folder / asset
    out.mkdir()
    store = ArtifactStore(folder / "home")
    stored = {}
    for name, source in inputs.items():

        def copy(draft: Draft, source: Path = source) -> None:
            for file in source.iterdir():
                (draft.out / file.name).write_bytes(file.read_bytes())

        stored[name], _ = store.obtain(Request(asset=name, code_version=str(source)), copy)
    return StageJob(narrow(recipe, STAGES[asset].sections), stored, Work(out, folder / "work", recipe.seed))


@pytest.mark.parametrize("kind", ["prm", "orm", "oprm", "pairwise"])
def test_only_the_named_kind_is_trained(tmp_path: Path, kind: str) -> None:
    recipe = Recipe.from_key(f"ladder/reward.kind={kind}")
    made = {}
    for name in EVALUATORS:
        if name == f"easy_{kind}":
            (tmp_path / name).mkdir()
            (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        else:
            summary = BODIES[name](job(name, recipe, tmp_path))
            assert summary == {"not_trained": f"the recipe has reward.kind={kind}"}
            assert json.loads((tmp_path / name / "not_trained.json").read_text()) == summary
        made[name] = tmp_path / name
    chosen = job("evaluator", recipe, tmp_path, **made)
    assert BODIES["evaluator"](chosen) == {"kind": kind, "files": 1}
    assert [path.name for path in chosen.out.iterdir()] == ["model.safetensors"]
