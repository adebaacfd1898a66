"""Every asset of a whole experiment has figures and pictures on Dagster's page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.orchestration.instance import open_instance
from e2h_pipeline.orchestration.planning import stages_of
from e2h_pipeline.recipe import Recipe

# Settings have no picture.
NOT_DRAWN = {"recipe"}

Metadata = Mapping[str, dg.MetadataValue]


@pytest.fixture(scope="module")
def pages(tiny_home: Path) -> dict[str, Metadata]:
    """Asset -> metadata of its latest materialization in Dagster."""
    found = {}
    with open_instance(tiny_home) as instance:
        for name in sorted(stages_of(Recipe.from_key("tiny", recipe_folders(tiny_home)))):
            asked = dg.AssetRecordsFilter(asset_key=dg.AssetKey(name), asset_partitions=["tiny"])
            record, *_ = instance.fetch_materializations(asked, limit=1).records
            assert record.asset_materialization is not None
            found[name] = record.asset_materialization.metadata
    return found


def _pictures(page: Metadata) -> list[str]:
    texts = [value.value for value in page.values() if isinstance(value, dg.MarkdownMetadataValue)]
    return re.findall(r"\(data:image/(?:png|svg\+xml);base64,[^)]{200,}\)", " ".join(map(str, texts)))


def test_every_asset_shows_a_table(pages: dict[str, Metadata]) -> None:
    for name, page in pages.items():
        tables = [value for value in page.values() if isinstance(value, dg.TableMetadataValue)]
        assert any(table.records for table in tables), name
    assert len(pages) > 20


def test_every_asset_of_which_something_can_be_drawn_shows_a_picture(pages: dict[str, Metadata]) -> None:
    assert {name for name, page in pages.items() if not _pictures(page)} == NOT_DRAWN


def test_what_is_trained_shows_its_curves(pages: dict[str, Metadata], tiny_home: Path) -> None:
    for name in ("base_model", "sft_policy", "easy_evaluator", "rl_policy"):
        assert "curves" in pages[name], name
        path = Path(str(pages[name]["path"].value)) / "curves.jsonl"
        points = [json.loads(line) for line in path.read_text().splitlines()]
        assert points and all("update" in point for point in points)
        assert not [word for point in points for word in point if "second" in word or "time" in word]


def test_pictures_are_small_enough_for_the_event_log(pages: dict[str, Metadata]) -> None:
    assert max(len(picture) for page in pages.values() for picture in _pictures(page)) < 100_000


def test_the_audit_shows_gold_accuracy_by_level(pages: dict[str, Metadata]) -> None:
    assert {"curves", "over_optimization"} <= pages["rl_audit"].keys()
