"""The ladder's rows of the paper's Table 2: the benchmark runs the keys in the docs."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from e2h_pipeline.recipe import Recipe, canonical_key

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rl_ladder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rl_ladder", PROJECT / "benchmarks" / "rl_ladder.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rl_ladder"] = module  # its data classes look themselves up
    spec.loader.exec_module(module)
    return module


def test_the_keys_of_all_tables_are_keys_and_compare_with_rows_that_are_there(rl_ladder: ModuleType) -> None:
    for table in rl_ladder.TABLES.values():
        names = [row.name for row in table.rows]
        assert len(set(names)) == len(names)
        for row in table.rows:
            Recipe.from_key(row.key(21))
            assert (row.against or table.baseline) in names


def test_the_rows_in_the_docs_are_those_that_are_run(rl_ladder: ModuleType) -> None:
    text = (PROJECT / "docs" / "rl.md").read_text(encoding="utf-8")
    keys = re.findall(r"^\|[^|]+\| `llemma-7b[a-z-]*` \| `(ladder[^`]*)` \|$", text, re.M)
    assert len(keys) == 9
    seeded = {canonical_key(f"{key}/problems.seed=21/seed=21") for key in keys}
    rows = {row.key(21) for row in rl_ladder.TABLES["table2"].rows}
    assert seeded <= rows
    extra = canonical_key("ladder/rl.algorithm=rest/problems.seed=21/seed=21")
    assert rows - seeded == {extra, canonical_key("ladder-ceiling/problems.seed=21/seed=21")}
