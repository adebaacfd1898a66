"""Sensors of thousands of experiments: one look for what they share, and ticks with limits."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import Engine

from assets.watched import WATCHED
from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.orchestration import automation
from e2h_pipeline.orchestration.automation import RecipesSeen
from e2h_pipeline.orchestration.instance import known_experiments, open_instance
from e2h_pipeline.orchestration.planning import add_experiments
from e2h_pipeline.orchestration.source_watch import Seen, look
from e2h_pipeline.recipe import Recipe

KEYS = [f"ladder/rl.kl=0.{i:03d}/seed={i}" for i in range(40)]
OVERRIDES = st.sampled_from(
    (
        "seed=3",
        "rl.kl=0.1",
        "problems.seed=2",
        "problems.world.seed=4",
        "base.seed=2",
        "labels.0.weight=0.5",
        "sft.epochs=2",
        "problems.easy_limit=9",
        "base.train.steps=5",
        "reward.kind=orm",
    )
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        found.add_dynamic_partitions("experiment", KEYS)
        yield found


def tick(instance: dg.DagsterInstance, home: Path, seen: Seen, **limits: float) -> tuple[set[str], Seen]:
    """The experiments that one tick reports, as the daemon stores them; and the cursor."""
    events, seen, unknown, _ = look(instance, home, seen, **limits)  # type: ignore[arg-type]
    assert not unknown
    for event in events:
        instance.report_runless_asset_event(event)
    reported = {f"{e.asset_key.to_user_string()} {e.partition}" for e in events if e.partition}
    return reported, json.loads(json.dumps(seen))


def test_experiments_that_share_a_source_share_a_look() -> None:
    assert all(len(watched.by_source(KEYS)) == 1 for watched in WATCHED)


@given(st.lists(OVERRIDES, unique=True, max_size=5), st.lists(OVERRIDES, unique=True, max_size=5))
def test_experiments_are_grouped_only_if_their_sources_are_equal(first: list[str], second: list[str]) -> None:
    keys = ["/".join(["ladder", *sorted(overrides)]) for overrides in (first, second)]
    try:
        recipes = [Recipe.from_key(key) for key in keys]
    except ValueError:
        return  # two overrides that do not go together
    for watched in WATCHED:
        if len(watched.by_source(keys)) == 1:
            one, other = (digest_json(watched.options(recipe).as_dict()) for recipe in recipes)
            assert one == other, watched.name


def test_a_first_look_is_worked_through_tick_by_tick(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    seen: Seen = {}
    every: set[str] = set()
    for _ in range(len(KEYS) * len(WATCHED) // 25 + 1):
        reported, seen = tick(instance, tmp_path, seen, reports=25)
        assert len(reported) <= 25 and not reported & every
        every |= reported
    assert len(every) == len(KEYS) * len(WATCHED)
    assert tick(instance, tmp_path, seen, reports=25)[0] == set()
    instance.add_dynamic_partitions("experiment", ["ladder/seed=99"])
    reported, seen = tick(instance, tmp_path, seen, reports=25)
    assert reported == {f"{watched.name} ladder/seed=99" for watched in WATCHED}


def test_a_tick_without_time_keeps_what_it_knew(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    _, seen = tick(instance, tmp_path, {})
    reported, late = tick(instance, tmp_path, seen, seconds=-1.0)
    assert reported == set() and late == seen
    instance.add_dynamic_partitions("experiment", ["ladder/seed=99"])
    assert len(tick(instance, tmp_path, late)[0]) == len(WATCHED)


def test_an_edited_recipe_is_compared_tick_by_tick_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automation, "_COMPARED", 15)
    (tmp_path / "mine.yaml").write_text("extends: ladder\n")
    keys = [*KEYS, *(f"mine/seed={i}" for i in range(20))]
    seen = RecipesSeen("before").after_edit("now", keys, [tmp_path])
    (tmp_path / "mine.yaml").write_text("extends: ladder\nsft: {epochs: 3}\n")
    seen = RecipesSeen("now", seen.recipes).after_edit("later", keys, [tmp_path])
    compared: list[int] = []
    every: list[str] = []
    while seen.left:
        compared.append(len(seen.due(keys)))
        every += seen.due(keys)
        seen = RecipesSeen.read(json.dumps(vars(seen.after_due(keys))), "later")
    assert compared == [15, 5]
    assert sorted(every) == sorted(key for key in keys if key.startswith("mine/"))


def test_more_experiments_than_sqlite_takes_values_are_added(tmp_path: Path) -> None:
    """With its limit lowered, because 40,000 keys take long."""

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 600)

    keys = [f"ladder/seed={seed}" for seed in range(1, 1300)]
    sqlalchemy.event.listen(Engine, "connect", limit)
    try:
        with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
            add_experiments(instance, keys)
            assert sorted(instance.get_dynamic_partitions("experiment")) == sorted(keys)
    finally:
        sqlalchemy.event.remove(Engine, "connect", limit)


@pytest.mark.parametrize(("experiments", "seconds"), [(0, 30), (2000, 30), (2001, 60), (10_000, 150)])
def test_ticks_of_dagsters_automation_are_rarer_in_large_homes(experiments: int, seconds: int) -> None:
    assert automation.sensor(experiments).minimum_interval_seconds == seconds


def test_the_experiments_of_a_home_are_counted_and_no_home_is_made(tmp_path: Path) -> None:
    assert known_experiments(tmp_path / "none") == 0
    assert not (tmp_path / "none").exists()
    with open_instance(tmp_path / "e2h") as instance:
        instance.add_dynamic_partitions("experiment", ["ladder", "ladder/seed=1"])
    assert known_experiments(tmp_path / "e2h") == 2
