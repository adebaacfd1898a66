from pathlib import Path

import pytest

from e2h_pipeline.sweeps.spec import SweepError, load_sweep, members, read_sweep, spell

GOOD = """
description: two evaluators, two seeds
recipe: ladder/rl.updates=20
axes:
  reward.kind: [prm, orm]
  problems.seed, seed: [21, 22]
"""


def sweep_file(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_members_are_the_grid_with_fields_that_move_together(tmp_path: Path) -> None:
    found = members(read_sweep(sweep_file(tmp_path, GOOD)))
    assert [member.key for member in found] == [
        "ladder/problems.seed=21/reward.kind=prm/rl.updates=20/seed=21",
        "ladder/problems.seed=22/reward.kind=prm/rl.updates=20/seed=22",
        "ladder/problems.seed=21/reward.kind=orm/rl.updates=20/seed=21",
        "ladder/problems.seed=22/reward.kind=orm/rl.updates=20/seed=22",
    ]
    assert found[0].values == {"reward.kind": "prm", "problems.seed": 21, "seed": 21}


def test_members_are_left_out_by_all_values_of_an_exclusion(tmp_path: Path) -> None:
    text = GOOD + "exclude:\n  - {reward.kind: orm, seed: 22}\n"
    keys = [member.key for member in members(read_sweep(sweep_file(tmp_path, text)))]
    assert len(keys) == 3
    assert not any("orm" in key and "seed=22" in key for key in keys)


def test_values_are_spelled_as_keys_have_them() -> None:
    assert [spell(v) for v in (True, 0.1, 3e-4, "prm", ["min"], ["min", "mean"])] == [
        "true",
        "0.1",
        "0.0003",
        "prm",
        "min,",
        "min,mean",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("recipe: [", "not valid YAML"),
        ("- a", "a sweep is a mapping with recipe and axes, not a list"),
        ("recipe: ladder\naxes: {seed: []}", "axis 'seed' has no values"),
        ("recipe: ladder\naxes: {'Seed!': [1]}", "'Seed!' is not a field"),
        ("recipe: ladder\naxes: {seed: [1], 'problems.seed, seed': [1]}", "field seed is in two axes"),
        ("recipe: ladder\naxes: {seed: [1]}\nretry: 1", "retry"),
        ("recipe: nothing\naxes: {seed: [1]}", "no recipe 'nothing'"),
        ("recipe: ladder\naxes: {rl.nothing: [1]}", "no field 'rl.nothing'"),
        ("recipe: ladder\naxes: {seed: [1, 1]}", "two members are ladder/seed=1"),
        ("recipe: ladder\naxes: {seed: [1]}\nexclude: [{seed: 1}]", "excludes all of its members"),
        ("recipe: ladder\naxes: {seed: [1]}\nexclude: [{rl.kl: 1}]", "rl.kl is not on an axis"),
        ("recipe: ../../etc\naxes: {seed: [1]}", "is not a recipe name"),
        ("recipe: ladder\naxes: {reward.kind: ['../x']}", "is not of the form"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SweepError) as error:
        members(read_sweep(sweep_file(tmp_path, text)))
    assert says in str(error.value)
    assert "mine" in str(error.value) or "exclude" in str(error.value)


def test_a_sweep_is_found_by_name_in_a_folder_or_shipped_and_by_its_file(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, GOOD)
    assert load_sweep("mine", [tmp_path]) == load_sweep(str(path))
    assert len(members(load_sweep("evaluators"))) == 12
    with pytest.raises(SweepError, match=r"no sweep '\.\./mine'; there are: evaluators, mine"):
        load_sweep("../mine", [tmp_path])
    with pytest.raises(SweepError, match="no such sweep file"):
        load_sweep(str(tmp_path / "other.yaml"))


def test_a_grid_without_end_is_refused(tmp_path: Path) -> None:
    axes = "\n".join(f"  {name}: [{', '.join(map(str, range(1, 41)))}]" for name in ("seed", "problems.seed"))
    with pytest.raises(SweepError, match="more than 1000 members"):
        members(read_sweep(sweep_file(tmp_path, f"recipe: ladder\naxes:\n{axes}\n")))
