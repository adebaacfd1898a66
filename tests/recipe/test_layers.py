"""Layers: files, the files that they extend, and overrides. Sections with different fields for each
method."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2h_pipeline.recipe import (
    FAMILIES,
    GrpoRl,
    MonteCarloLabels,
    OrmReward,
    PpoRl,
    Prm800kLabels,
    Recipe,
    RecipeError,
    RestEmRl,
    ShepherdLabels,
)


def read(folder: Path, key: str, **files: str) -> Recipe:
    """The recipe of a key, with files NAME.yaml in their own folder."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(f"description: test\n{text}")
    return Recipe.from_key(key, [folder])


def test_another_method_leaves_the_fields_of_the_first_behind(tmp_path: Path) -> None:
    text = "rl: {algorithm: ppo, updates: 7, clip: 0.3, lam: 0.9, questions: easy}\n"
    grpo = read(tmp_path, "mine/rl.algorithm=grpo", mine=text).rl
    assert isinstance(grpo, GrpoRl) and (grpo.updates, grpo.clip, grpo.questions) == (7, 0.3, "easy")
    rest = read(tmp_path, "mine/rl.algorithm=rest", mine=text).rl
    assert isinstance(rest, RestEmRl) and rest.questions == "easy"
    again = read(
        tmp_path,
        "back",
        mine=text,
        back="extends: over\nrl: {algorithm: ppo}\n",
        over="extends: mine\nrl: {algorithm: rest}\n",
    ).rl
    assert isinstance(again, PpoRl) and (again.updates, again.questions) == (PpoRl().updates, "easy")


def test_a_file_says_what_holds_for_a_method_it_does_not_choose(tmp_path: Path) -> None:
    text = "reward: {kind: prm, training: {epochs: 5}, when: {orm: {tokens: last, training: {max_tokens: 99}}}}\n"
    orm = read(tmp_path, "mine/reward.kind=orm", mine=text).reward
    assert isinstance(orm, OrmReward)
    assert (orm.tokens, orm.training.max_tokens, orm.training.epochs) == ("last", 99, 5)
    assert read(tmp_path, "mine", mine=text).reward.training.max_tokens == 768
    below = read(
        tmp_path,
        "child/reward.kind=orm",
        mine=text,
        child="extends: mine\nreward: {training: {max_tokens: 50}}\n",
    )
    assert below.reward.training.max_tokens == 50  # the later layer wins, also over an earlier `when`
    said = read(tmp_path, "mine/reward.kind=orm/reward.tokens=every", mine=text).reward
    assert isinstance(said, OrmReward) and said.tokens == "every"


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (
            "ladder/rl.algorithm=rest/rl.clip=0.1",
            "clip is a field of algorithm=ppo and grpo, not of algorithm=rest",
        ),
        ("ladder/problems.path=x", "path is a field of source=math, gsm8k and code, not of source=ladder"),
        ("ladder/rl.algorithm=pppo", "did you mean 'ppo'"),
        ("ladder/rl.rest.samples=3", "rl.rest.samples is now rl.samples"),
        ("ladder/rl.preference.loss=simpo", "rl.preference.loss is now rl.loss"),
        ("ladder/prm.epochs=3", "prm.epochs is now reward.training.epochs"),
        ("ladder/orm.tokens=last", "orm.tokens is now reward.tokens"),
        ("ladder/labels.1.weight=2", "there are 1"),
        ("ladder/labels.source=math", "no 'math'"),
        ("ladder/evaluation.grader=exactt", "did you mean 'exact'"),
        ("ladder/rerank.aggregations=product,median", "no 'median'"),
    ],
)
def test_what_does_not_fit_is_named_with_the_mend(key: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Recipe.from_key(key)


def test_old_spellings_in_a_file_are_named_too(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"mine\.yaml: prm\.epochs is now reward\.training\.epochs"):
        read(tmp_path, "mine", mine="prm: {epochs: 3}\n")


def test_labels_are_one_source_or_several(tmp_path: Path) -> None:
    text = "labels: [{source: prm800k, neutral: soft}, {source: shepherd, weight: 0.5}]\n"
    first, second = read(tmp_path, "mine", mine=text).labels
    assert isinstance(first, Prm800kLabels) and (first.neutral, first.weight) == ("soft", 1.0)
    assert isinstance(second, ShepherdLabels) and second.weight == 0.5
    assert read(tmp_path, "mine/labels.1.weight=0.25", mine=text).labels[1].weight == 0.25
    with pytest.raises(RecipeError, match=r"2 entries: give the number of one, as in labels\.0\.limit"):
        read(tmp_path, "mine/labels.limit=9", mine=text)
    (only,) = Recipe.from_key("ladder/labels.source=monte_carlo/labels.completions=3").labels
    assert isinstance(only, MonteCarloLabels) and only.completions == 3
    (replaced,) = read(
        tmp_path, "child", mine=text, child="extends: mine\nlabels: [{source: checker}]\n"
    ).labels
    assert replaced.source == "checker"


def test_the_domain_decides_what_is_left_open() -> None:
    ladder, math = Recipe.from_key("ladder/evaluation.grader=math"), Recipe.from_key("llemma-7b")
    assert ladder.evaluation.grader == "math"
    assert Recipe.from_key("ladder/problems.source=math").evaluation.grader == "exact"  # the file says so
    assert math.evaluation.grader == "math" and math.problems.easy_levels == math.evaluation.easy_levels == (
        1,
        2,
        3,
    )


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_method_reads_back_as_it_was(name: str) -> None:
    family = FAMILIES[name]
    for word, section in family.members.items():
        value = section.model_validate({family.tag: word})
        assert family.parse(value.model_dump(mode="json")) == value
        assert getattr(value, family.tag) == word
